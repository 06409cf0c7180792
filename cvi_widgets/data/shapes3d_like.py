"""A stand-in for 3D Shapes that needs no download: its factors and their order, drawn by a ray caster fitted to it.

It is NOT the authors' data: colours, shading and outlines differ by a few grey levels (6.9 of 255 on average over 50
genuine frames). Say so wherever its figures stand; `shapes3d` is the genuine set.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvi_widgets import paths
from cvi_widgets.data import cache, raycast
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.pixels import DType, check_dtype
from cvi_widgets.data.protocol import Index
from cvi_widgets.data.shapes3d import GRID

NAME = "shapes3d-like"
LICENCE = "Apache-2.0"
PROVENANCE = (
    "A stand-in for 3D Shapes, ray-cast with its factors; not the authors' images "
    "(mean absolute difference 6.9 grey levels of 255 on 50 genuine frames)."
)
IMAGE_SHAPE = (3, 64, 64)
SKY = (153, 226, 249)
RENDERING = 1
_MAPS = 64 * 64 * len(raycast.SURFACES)
_AT_ONCE = 256


def load() -> GridData:
    """All 480,000 images, coloured when they are read; the 480 views are cast the first time (about 10 s).

    Raises
    ------
    StoreError
        When the data folder cannot be written.
    """
    views = len(GRID) // 1000
    packed = cache.opened(cache_folder(), views, _MAPS, cast)
    # No two views are alike, and no two colourings of one.
    twin = np.arange(len(GRID), dtype=np.int32)
    return GridData(NAME, GRID, Coloured(packed.bits), provenance=PROVENANCE, licence=LICENCE, twin=twin)


def cache_folder() -> Path:
    """Where the views lie."""
    return paths.data_dir() / f"shapes3d-like-v{RENDERING}"


def cast(out: NDArray[np.uint8]) -> None:
    """Cast all views into `out`, shape (480, 64 * 64 * 5): light of each surface in each pixel, 255 for all of it."""
    values = list(GRID.values.values())[3:]
    for view, at in enumerate(np.ndindex(*GRID.sizes[3:])):
        scale, shape, degrees = (float(v[k]) for v, k in zip(values, at, strict=True))
        light = raycast.weights(scale, int(shape), degrees)
        out[view] = np.rint(255 * light).astype(np.uint8).reshape(-1)


@dataclass(frozen=True, eq=False)
class Coloured:
    """Images made of a view and three hues when they are asked for.

    Parameters
    ----------
    views : light of each surface, shape (view, y * x * surface), bytes
    """

    views: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, y, x)"""
        return IMAGE_SHAPE

    def __len__(self) -> int:
        return len(GRID)

    def read(self, index: Index, dtype: DType) -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x); `index` has been checked."""
        out = np.empty((len(index), *IMAGE_SHAPE), np.uint8)
        for start in range(0, len(index), _AT_ONCE):
            out[start : start + _AT_ONCE] = self._painted(np.asarray(index[start : start + _AT_ONCE]))
        return out if check_dtype(dtype) == "uint8" else out.astype(np.float32) / np.float32(255)

    def rows(self) -> NDArray[np.uint8]:
        """One row of bytes per image; 5.9 GB."""
        return np.asarray(self.read(np.arange(len(self)), "uint8"), np.uint8).reshape(len(self), -1)

    def _painted(self, index: Index) -> NDArray[np.uint8]:
        view, paint = index % len(self.views), index // len(self.views)
        floor, wall, thing = np.unravel_index(paint, GRID.sizes[:3])
        colours = np.empty((len(index), len(raycast.SURFACES), 3), np.float32)
        colours[:] = np.array([SKY, (0, 0, 0), (0, 0, 0), (0, 0, 0), (255, 255, 255)], np.float32)
        colours[:, 1], colours[:, 2], colours[:, 3] = _HUES[wall], _HUES[floor], _HUES[thing]
        light = self.views[view].reshape(len(index), -1, len(raycast.SURFACES)).astype(np.float32)
        image = np.rint(np.clip(light @ colours / np.float32(255), 0, 255)).astype(np.uint8)
        return np.asarray(image.transpose(0, 2, 1).reshape(len(index), *IMAGE_SHAPE))


_HUES = np.array([colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)], np.float32) * 255
