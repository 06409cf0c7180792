"""What encode and decode of other people's VAEs return, and how two libraries spell their halves.

Libraries are recognised by the names of classes and their modules, so that none of them has to be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PAIRS = (("mu", "logvar"), ("mean", "logvar"), ("embedding", "log_covariance"), ("latents", None), ("embedding", None))
_BETWEEN = {
    "SVAE": "a projection onto the sphere",
    "PoincareVAE": "a hyperbolic space",
    "VAE_LinNF": "a flow",
    "VAE_IAF": "a flow",
}
_IMAGES = ("reconstruction", "sample", "recon_x", "image")


class Known(NamedTuple):
    """The halves of a recognised model; None where the usual attributes do."""

    encode: Callable[[Tensor], object] | None = None
    decode: Callable[[Tensor], object] | None = None
    image_shape: tuple[int, ...] | None = None
    quantise: Callable[[Tensor], object] | None = None
    lookup: Callable[[Tensor], object] | None = None
    n_codes: int | None = None
    refused: str | None = None
    """Why the usual halves cannot stand for the model."""


def posterior(result: object) -> tuple[Tensor, Tensor | None] | None:
    """mu and logvar in whatever an encoder returned, or None; logvar is None where there is only a mean."""
    if isinstance(result, Tensor):
        return (result, None) if result.ndim >= 2 else None
    inner = _part(result, "latent_dist")
    if inner is not None:
        return posterior(inner)
    for first, second in _PAIRS:
        mu = _part(result, first)
        logvar = None if second is None else _part(result, second)
        spread = logvar if isinstance(logvar, Tensor) else None
        if isinstance(mu, Tensor) and mu.ndim >= 2 and (second is None or spread is not None):
            return mu, spread
    if isinstance(result, tuple | list) and len(result) >= 2:
        mu, logvar = result[0], result[1]
        if isinstance(mu, Tensor) and isinstance(logvar, Tensor) and mu.ndim >= 2:
            return mu, logvar
    return None


def image(result: object) -> Tensor | None:
    """The images in whatever a decoder returned, or None."""
    if isinstance(result, Tensor):
        return result
    for name in _IMAGES:
        found = _part(result, name)
        if isinstance(found, Tensor):
            return found
    first = result[0] if isinstance(result, tuple | list) and result else None
    return first if isinstance(first, Tensor) else None


def described(result: object) -> str:
    """A few words for a message: the shape of a tensor, the type of anything else."""
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    if isinstance(result, tuple | list):
        return f"a {type(result).__name__} of {', '.join(described(part) for part in result)}"
    return f"a {type(result).__name__}"


def known(module: nn.Module) -> Known:
    """The halves of a VAE of pythae or diffusers; of any other module, nothing."""
    names = {f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in type(module).__mro__}
    plain: Any = module
    for name in _BETWEEN:
        if f"pythae.{name}" in names:
            return Known(
                image_shape=_pythae_shape(plain),
                refused=f"pythae's {name} puts {_BETWEEN[name]} between its encoder and decoder: pass encode= and "
                "decode= that include it.",
            )
    if "pythae.VQVAE" in names:
        return _pythae_vq(plain)
    if "pythae.BaseAE" in names:
        return Known(plain.encoder, plain.decoder, _pythae_shape(plain))
    if "diffusers.VQModel" in names:
        return _diffusers_vq(plain)
    if "diffusers.ModelMixin" in names and hasattr(plain, "encode"):
        return Known(
            lambda x: plain.encode(2 * x - 1), lambda z: _from_diffusers(plain.decode(z)), _diffusers_shape(plain)
        )
    return Known()


def codes_of(module: nn.Module) -> int | None:
    """How many codes a module has, where it says so itself or has a single codebook that is an embedding."""
    said = getattr(module, "n_codes", None)
    if isinstance(said, int):
        return said
    sizes = {m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)}
    return sizes.pop() if len(sizes) == 1 else None


def nearest_code(mu: Tensor, codebook: Tensor) -> Tensor:
    """Number of the nearest entry (n, y, x) for vectors mu (n, entry size, y, x) and a codebook (entry, entry size)."""
    vectors = mu.movedim(1, -1)
    # One matrix product; the vectors' own length is the same for all entries and left out.
    scores = codebook.square().sum(1) - 2 * vectors @ codebook.T
    return scores.argmin(-1)


def _pythae_shape(module: Any) -> tuple[int, ...] | None:
    shape = getattr(module.model_config, "input_dim", None)
    return tuple(shape) if shape is not None and len(shape) == 3 else None


def _pythae_vq(module: Any) -> Known:
    def codebook() -> Tensor:
        entries = module.quantizer.embeddings
        found: Tensor = entries if isinstance(entries, Tensor) else entries.weight
        return found

    def quantise(mu: Tensor) -> Tensor:
        # pythae quantises each coordinate of a flat embedding by itself, with entries of size 1.
        grid = mu if mu.ndim == 4 else mu[:, None, None]
        return nearest_code(grid, codebook())[:, None]

    def lookup(codes: Tensor) -> Tensor:
        z = codebook()[codes[:, 0]].movedim(-1, 1)
        return z.flatten(1) if flat else z

    shape = _pythae_shape(module)
    flat = shape is not None and _flat_output(module.encoder, shape)
    return Known(module.encoder, module.decoder, shape, quantise, lookup, len(codebook()))


def _flat_output(encoder: nn.Module, shape: tuple[int, ...]) -> bool:
    training = [(m, m.training) for m in encoder.modules()]
    try:
        encoder.eval()
        with torch.no_grad():
            weight = next(encoder.parameters(), None)
            found = posterior(encoder(torch.zeros((1, *shape), device=None if weight is None else weight.device)))
    finally:
        for m, mode in training:
            m.training = mode
    return found is not None and found[0].ndim == 2


def _diffusers_shape(module: Any) -> tuple[int, ...] | None:
    channels, size = module.config.get("in_channels"), module.config.get("sample_size")
    if channels is None or size is None:
        return None
    y, x = (size, size) if isinstance(size, int) else size
    return channels, y, x


def _diffusers_vq(module: Any) -> Known:
    def quantise(mu: Tensor) -> Tensor:
        return nearest_code(mu, module.quantize.embedding.weight)[:, None]

    def lookup(codes: Tensor) -> Tensor:
        z: Tensor = module.quantize.embedding(codes[:, 0]).movedim(-1, 1)
        return z

    def decode(z: Tensor) -> object:
        if module.config.lookup_from_codebook:
            # Such a model takes codes where others take vectors, so its decoder is called without its lookup.
            spatial = z if module.config.norm_type == "spatial" else None
            return _from_diffusers(module.decoder(module.post_quant_conv(z), spatial))
        return _from_diffusers(module.decode(z, force_not_quantize=True))

    shape = _diffusers_shape(module)
    codes = module.quantize.embedding.num_embeddings
    return Known(lambda x: module.encode(2 * x - 1), decode, shape, quantise, lookup, codes)


def _from_diffusers(result: object) -> object:
    found = image(result)
    return result if found is None else (found + 1) / 2


def _part(result: object, name: str) -> object:
    if isinstance(result, Mapping):
        return result.get(name)
    return (
        None
        if isinstance(result, tuple | list | Tensor) and not hasattr(result, "_fields")
        else getattr(result, name, None)
    )
