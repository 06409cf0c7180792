"""Networks only: one file per family, no losses, no loops.

>>> from cvi_widgets.config import BetaVAEConfig
>>> build(BetaVAEConfig(), (1, 64, 64)).latent_mu.in_features
8192
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cvi_widgets.config import ModelConfig, VQVAEConfig
from cvi_widgets.errors import ConfigError
from cvi_widgets.models import dlib, paper, slim
from cvi_widgets.models.vae import GaussianVAE, ImageShape, Networks, Output, Posterior
from cvi_widgets.models.vq_vae import VQVAE, VQOutput

__all__ = [
    "NETWORKS",
    "VQVAE",
    "GaussianVAE",
    "ImageShape",
    "Networks",
    "Output",
    "Posterior",
    "VQOutput",
    "build",
]

NETWORKS: Mapping[str, Callable[[int, ImageShape], Networks]] = {
    "paper": paper.networks,
    "dlib": dlib.networks,
    "slim": slim.networks,
}
CHANNELS = (1, 3)
SIDES = (32, 64)


def build(config: ModelConfig, image_shape: ImageShape) -> GaussianVAE | VQVAE:
    """A freshly initialised model for images of `image_shape` (channel, y, x).

    Initial weights are PyTorch's defaults, drawn from its global generator: the same `torch.manual_seed` before gives
    the same weights.

    Raises
    ------
    ConfigError
        When the images are not square with 1 or 3 channels and a side of 32 or 64.
    """
    channels, height, width = image_shape
    if channels not in CHANNELS or height != width or height not in SIDES:
        raise ConfigError(
            f"image_shape {tuple(image_shape)} does not fit network {config.network!r}; "
            "(channel, y, x) must be 1 or 3 channels and 32x32 or 64x64 pixels."
        )
    networks = NETWORKS[config.network](config.latents, image_shape)
    if isinstance(config, VQVAEConfig):
        return VQVAE(networks, config.latents, config.codes, image_shape, trained=config.codebook == "loss")
    return GaussianVAE(networks, config.latents, image_shape)
