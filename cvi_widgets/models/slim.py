"""Half the paper's widths, 16-32-64, for runs of minutes on a CPU; not a published network.

A quarter of the paper network's arithmetic: in the same time it sees about twice as many images, and early in training
it is, image for image, as good. Take `paper` to compare with the published study.
"""

from __future__ import annotations

from cvi_widgets.models import paper
from cvi_widgets.models.vae import ImageShape, Networks

CHANNELS = (16, 32, 64)


def networks(latents: int, image_shape: ImageShape) -> Networks:
    """Encoder and decoder for square images whose side is a multiple of 8."""
    return paper.mirrored(CHANNELS, latents, image_shape)
