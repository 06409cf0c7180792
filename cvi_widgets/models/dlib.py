"""The convolutional network of disentanglement_lib's large-scale study (Locatello et al. 2019, appendix).

Encoder: convolutions 32 k4, 32 k4, 64 k2, 64 k2, all stride 2, then 256 fully connected. The paper's table prints 4x4
kernels throughout; the released code, which made the published numbers, has 2x2 in the third and fourth convolution,
and so has this one. Decoder: 256 and 1024 fully connected, transposed convolutions 64, 32, 32, image, all k4 s2. The
"same" padding of TensorFlow equals padding 1 for k4 s2 and none for k2 s2 on even sides.
"""

from __future__ import annotations

from cvi_widgets.models import layers
from cvi_widgets.models.vae import ImageShape, Networks

CONVS = (layers.Conv(32, 4), layers.Conv(32, 4), layers.Conv(64, 2), layers.Conv(64, 2))


def networks(latents: int, image_shape: ImageShape) -> Networks:
    """Encoder and decoder for square images whose side is a multiple of 16."""
    channels, size, _ = image_shape
    encoder, features = layers.encoder(channels, size, CONVS, widths=[256])
    decoder = layers.decoder(latents, size, widths=[256], channels=[64, 64, 32, 32, channels])
    return Networks(encoder, features, decoder)
