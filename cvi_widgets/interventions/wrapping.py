"""`wrap`: from a torch VAE of anybody's to a `Model`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import adapters
from cvi_widgets.interventions.halves import Halves
from cvi_widgets.interventions.model import Model


def wrap(
    module: nn.Module,
    encode: str | Callable[[Tensor], object] | None = None,
    decode: str | Callable[[Tensor], object] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    *,
    quantise: str | Callable[[Tensor], object] | None = None,
    lookup: str | Callable[[Tensor], object] | None = None,
    n_codes: int | None = None,
) -> Model:
    """Give a torch VAE the uniform surface, without changing it.

    VAEs of pythae and diffusers are recognised and need no arguments. Those of diffusers work on images in [-1, 1], as
    its pipelines do; they are given 2 x - 1, and (image + 1) / 2 is what is measured.

    Parameters
    ----------
    module : the VAE
    encode : attribute name or callable; images to (mu, logvar), a tuple or an object with these attributes
        None for `encode`, or `encoder` where there is no such attribute. A tensor alone means that there is no logvar.
        The names may also be mean and logvar, embedding and log_covariance, or lie in `latent_dist`.
    decode : attribute name or callable; codes (n, latent, ...) to images
        None for `decode`, or `decoder` where there is no such attribute.
    image_shape : (channel, y, x)
        Not needed when the module has an attribute of this name.
    quantise, lookup : attribute name or callable, of a discrete model
        mu to integer codes (n, codebook, y, x) or (n, codebook, cell), and codes to what `decode` takes.
    n_codes : entries of a codebook
        Not needed when the module has one `torch.nn.Embedding`, or an attribute `n_codes`. Without any of these, codes
        that are given are not checked for being too large.

    Raises
    ------
    ConfigError
        When one of these is missing or returns something else, or weights are not float32 on one device.
    """
    known = adapters.known(module)
    if known.refused and (encode is None or decode is None):
        raise ConfigError(known.refused)
    shape = image_shape or getattr(module, "image_shape", None) or known.image_shape
    if shape is None:
        raise ConfigError("image_shape is unknown: call wrap(module, image_shape=(channel, y, x)).")
    if len(shape) != 3 or any(int(v) < 1 for v in shape):
        raise ConfigError(f"image_shape is {tuple(shape)}; it must be (channel, y, x), three positive numbers.")
    if (quantise is None) != (lookup is None):
        raise ConfigError("quantise and lookup belong together: give both, or neither.")
    channel, y, x = (int(v) for v in shape)
    # The library's quantiser belongs between the library's own halves.
    middle = (known.quantise, known.lookup) if encode is None and decode is None else (None, None)
    if quantise is not None and lookup is not None:
        middle = (_callable(module, "quantise", quantise), _callable(module, "lookup", lookup))
    own = (
        known.encode if encode is None and known.encode else _callable(module, "encode", encode),
        known.decode if decode is None and known.decode else _callable(module, "decode", decode),
    )
    return Model(module, Halves(*own, (channel, y, x), *middle), n_codes or known.n_codes or adapters.codes_of(module))


def _callable(
    module: nn.Module, what: str, given: str | Callable[[Tensor], object] | None
) -> Callable[[Tensor], object]:
    if given is None:
        # `encoder` stands in where there is no `encode`.
        given = f"{what}r" if not hasattr(module, what) and hasattr(module, f"{what}r") else what
    found = getattr(module, given, None) if isinstance(given, str) else given
    if not callable(found):
        raise ConfigError(f"{what}={given!r} is no method of {type(module).__name__}; pass {what}=<name or callable>.")
    return found
