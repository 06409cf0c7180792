"""Reducing images with anti-aliasing, as the published studies do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images (n, y, x) or (n, y, x, 3) at `side` x `side` by Pillow's Lanczos filter, the one that
    disentanglement_lib's `thumbnail` stands for."""
    size, method = (side, side), Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize(size, method)) for image in images])
