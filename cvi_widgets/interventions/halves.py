"""The parts of a model as its author wrote them, with what they return checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import adapters
from cvi_widgets.interventions.sites import Encoded

CONTINUOUS = "this model's code is continuous; a discrete one is wrapped with quantise= and lookup=."
Part = Callable[[Tensor], object]


@dataclass(frozen=True)
class Halves:
    """Encoder and decoder, and the quantiser between them where there is one.

    All calls assume eval mode and values that are checked; none consults hooks of sites that are no module's output.
    """

    own_encode: Part
    own_decode: Part
    image_shape: tuple[int, int, int]
    own_quantise: Part | None = None
    own_lookup: Part | None = None

    @property
    def discrete(self) -> bool:
        """Whether there is a quantiser."""
        return self.own_quantise is not None

    def encode(self, x: Tensor) -> Encoded:
        """Posterior of images, (n, latent, ...)."""
        result = self.own_encode(x)
        found = adapters.posterior(result)
        if found is None or len(found[0]) != len(x) or (found[1] is not None and found[0].shape != found[1].shape):
            raise ConfigError(
                "encode must return mu and logvar, each of shape (n, latent, ...), as a tuple or as attributes of "
                f"these names; it returned {adapters.described(result)}."
            )
        return Encoded(*found)

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, channel, y, x) of what enters the decoder."""
        result = self.own_decode(z)
        image = adapters.image(result)
        if image is None or tuple(image.shape[1:]) != self.image_shape:
            raise ConfigError(
                f"decode returned {adapters.described(result)}; "
                f"it must return images of shape (n, *{self.image_shape})."
            )
        return image

    def quantise(self, mu: Tensor) -> Tensor:
        """Integer codes (n, codebook, y, x) or (n, codebook, cell) of posterior means; hooks are not consulted.

        Raises
        ------
        ConfigError
            When the model's code is not discrete, or quantise returns something else.
        """
        if self.own_quantise is None:
            raise ConfigError(CONTINUOUS)
        code = self.own_quantise(mu)
        if not isinstance(code, Tensor) or code.dtype != torch.int64 or code.ndim not in (3, 4) or len(code) != len(mu):
            got = f"{code.dtype} {tuple(code.shape)}" if isinstance(code, Tensor) else type(code).__name__
            raise ConfigError(
                f"quantise returned {got}; "
                "it must return torch.int64 of shape (n, codebook, y, x) or (n, codebook, cell)."
            )
        return code

    def lookup(self, codes: Tensor) -> Tensor:
        """What enters the decoder for integer codes (n, codebook, ...); hooks are not consulted."""
        if self.own_lookup is None:
            raise ConfigError(CONTINUOUS)
        z = self.own_lookup(codes)
        if not isinstance(z, Tensor) or not z.is_floating_point() or len(z) != len(codes):
            got = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ConfigError(f"lookup returned {got}; it must return floats of shape (n, latent, ...).")
        return z


def device_of(module: nn.Module) -> torch.device:
    """Where the weights are; refuses weights that cannot be measured."""
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(weight):
            raise ConfigError(f"weight {name} has no shape yet: run the module once on images before wrapping it.")
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise ConfigError(
                f"weight {name} of the module is {weight.dtype}; measuring needs float32, so call .float() first."
            )
    devices = sorted({str(w.device) for w in (*module.parameters(), *module.buffers())})
    if len(devices) > 1 or "meta" in devices:
        raise ConfigError(
            f"the module's weights are on {' and '.join(devices)}; "
            "measuring needs them on one device, so call .to() first."
        )
    return torch.device(devices[0] if devices else "cpu")
