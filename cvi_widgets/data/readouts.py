"""Factors read off the pixels of dSprites, so that an effect can be measured on images and not on their labels.

Given the sprite's shape and orientation, its area tells the scale; its centroid, less the outline's own centroid about
the sprite's centre (not zero for the heart), tells the position. Both are rounded to the nearest class. `tests/data`
shows that this returns the classes of every one of the 737,280 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data.dsprites import FIRST_PIXEL, GRID, TRAVEL, outline

_WIDTH = 64


class Readout(Protocol):
    """Reads factor classes off images."""

    @property
    def given(self) -> tuple[str, ...]:
        """Factors that must be told."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Factors that are read from the pixels."""
        ...

    @property
    def description(self) -> str:
        """How, in one sentence."""
        ...

    def __call__(
        self, images: NDArray[np.uint8], given: Mapping[str, NDArray[np.int64]]
    ) -> Mapping[str, NDArray[np.int64]]:
        """Classes of every factor in `reads`, shape (n,) each, of images (n, channel, y, x)."""
        ...


@dataclass(frozen=True)
class SpriteReadout:
    """Scale from the sprite's area, position from its centroid."""

    given: tuple[str, ...] = ("shape", "orientation")
    reads: tuple[str, ...] = ("scale", "posX", "posY")
    description: str = (
        "scale is read from the number of white pixels and posX, posY from their centroid, "
        "given shape and orientation, each rounded to the nearest class"
    )

    def __call__(
        self, images: NDArray[np.uint8], given: Mapping[str, NDArray[np.int64]]
    ) -> Mapping[str, NDArray[np.int64]]:
        area, centroid_x, centroid_y = moments(images)
        shape = given["shape"]
        unit_area, unit_centroid = _UNIT_AREA[shape], _UNIT_CENTROID[shape]
        scales = GRID.values["scale"]
        scale = np.clip(np.rint((np.sqrt(area / unit_area) - scales[0]) / (scales[1] - scales[0])), 0, len(scales) - 1)
        scale = scale.astype(np.int64)
        angle = -GRID.values["orientation"][given["orientation"]]
        shift_x = scales[scale] * (unit_centroid[:, 0] * np.cos(angle) - unit_centroid[:, 1] * np.sin(angle))
        shift_y = scales[scale] * (unit_centroid[:, 0] * np.sin(angle) + unit_centroid[:, 1] * np.cos(angle))
        return {
            "scale": scale,
            "posX": _position(centroid_x - shift_x, "posX"),
            "posY": _position(centroid_y - shift_y, "posY"),
        }


def moments(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """White pixels and their centroid (x, y; pixel centres at index + 0.5) of images (n, 1, 64, 64), (n,) each."""
    centres = np.arange(_WIDTH) + 0.5
    sprite = images[:, 0]
    by_column, by_row = sprite.sum(axis=1, dtype=np.uint16), sprite.sum(axis=2, dtype=np.uint16)
    area = by_row.sum(axis=1, dtype=np.float64)
    return area, by_column @ centres / area, by_row @ centres / area


def _position(pixels: NDArray[np.float64], factor: str) -> NDArray[np.int64]:
    last = GRID.size(factor) - 1
    return np.clip(np.rint((pixels - FIRST_PIXEL) / TRAVEL * last), 0, last).astype(np.int64)


def _polygon_moments(points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Area and centroid of a polygon, shape (vertex, 2), by the shoelace formula."""
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
    centroid = ((points + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    return abs(float(cross.sum())) / 2, centroid


_OUTLINES = [_polygon_moments(outline(shape)) for shape in range(GRID.size("shape"))]
_UNIT_AREA = np.array([area for area, _ in _OUTLINES])
_UNIT_CENTROID = np.stack([centroid for _, centroid in _OUTLINES])
