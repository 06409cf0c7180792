"""The network of the published causal-intervention study: three convolutions, ten latents, mirrored decoder.

Known of it are the widths 32-64-128, the ten latents and the mirror image (Roy 2025, arXiv 2505.03530 v1); kernel,
stride and non-linearity are not recoverable, so they are the usual ones: kernel 4, stride 2, padding 1, ReLU. At 64x64
the encoder ends in 128 x 8 x 8 = 8192 features. Take it to compare with the paper; `dlib` trains with less arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvi_widgets.models import layers
from cvi_widgets.models.vae import ImageShape, Networks

CHANNELS = (32, 64, 128)


def networks(latents: int, image_shape: ImageShape) -> Networks:
    """Encoder and decoder for square images whose side is a multiple of 8."""
    return mirrored(CHANNELS, latents, image_shape)


def mirrored(widths: Sequence[int], latents: int, image_shape: ImageShape) -> Networks:
    """Convolutions of these widths, and the same transposed in reverse order."""
    channels, size, _ = image_shape
    encoder, features = layers.encoder(channels, size, [layers.Conv(c) for c in widths], widths=[])
    decoder = layers.decoder(latents, size, widths=[], channels=[*reversed(widths), channels])
    return Networks(encoder, features, decoder)
