"""Regions of the image, and their brightness as an outcome."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions.model import Model, Pass

GRID = 4
"""Regions along each side of the image, unless given."""


def region_masks(model: Model, regions: ArrayLike | None) -> NDArray[np.bool_]:
    """Regions of the image as masks (region, y, x), checked; a grid where none are given."""
    _, height, width = model.image_shape
    if regions is None:
        rows = (np.arange(height) * GRID // height)[:, None]
        columns = (np.arange(width) * GRID // width)[None]
        number = rows * GRID + columns
        return np.asarray(number == np.unique(number)[:, None, None])
    masks = np.asarray(regions)
    if masks.dtype != np.bool_ or masks.shape[1:] != (height, width) or not masks.any(axis=(1, 2)).all():
        raise ConfigError(
            f"regions are {masks.dtype} of shape {masks.shape}; "
            f"they must be bool (region, {height}, {width}), none empty."
        )
    return masks


class region_means:  # noqa: N801 - a function that remembers its regions
    """Mean brightness of each region, (n, region), of a pass."""

    def __init__(self, masks: NDArray[np.bool_]) -> None:
        flat = torch.from_numpy(masks.reshape(len(masks), -1).astype(np.float32))
        self.weights = (flat / flat.sum(1, keepdim=True)).T
        self.__name__ = "region means"

    def __call__(self, ran: Pass) -> Tensor:
        assert ran.image is not None
        grey = ran.image.mean(1).flatten(1)
        return grey @ self.weights.to(grey)
