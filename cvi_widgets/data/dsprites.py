"""dSprites without a download: all 737,280 images re-rendered from the recovered geometry of the authors' polygons.

Images: Matthey, Higgins, Hassabis & Lerchner (2017), dSprites, Apache-2.0. The geometry (centres, sizes, outlines,
ties) was recovered from the authors' images; `tests/data` compares the outcome with 46,080 of them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvi_widgets import paths
from cvi_widgets.data import cache, polygons
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.pixels import PackedPixels

NAME = "dsprites"
LICENCE = "Apache-2.0"
IMAGE_SHAPE = (1, 64, 64)
ROW_BYTES = 512
RENDERING = 1
"""Counts changes of the renderer that change a pixel; part of the cache's name."""
PROVENANCE = (
    "dSprites re-rendered from its recovered geometry, not the authors' file: "
    "of 46,080 genuine images 46,074 are identical and 6 differ in one pixel."
)
GRID = FactorGrid(
    {
        "shape": np.array([1.0, 2.0, 3.0]),
        "scale": np.linspace(0.5, 1, 6),
        "orientation": np.linspace(0, 2 * np.pi, 40),
        "posX": np.linspace(0, 1, 32),
        "posY": np.linspace(0, 1, 32),
    }
)
"""Values as in the authors' file (shape 1, 2, 3 = square, ellipse, heart); colour, which is constant, is left out."""

FIRST_PIXEL = 16.0
"""Centre of a sprite at position 0, pixels from the left or upper border."""
TRAVEL = 32.0
"""Pixels between positions 0 and 1."""
_SIZE = 9.6
_STRETCH = 1.33


def load() -> GridData:
    """All images; rendered into the data folder the first time (about 4 s), mapped from there later (about 0.3 s).

    Raises
    ------
    StoreError
        When the data folder cannot be written.
    """
    packed = cache.opened(cache_folder(), len(GRID), ROW_BYTES, render)
    pixels = PackedPixels(packed.bits, IMAGE_SHAPE)
    return GridData(NAME, GRID, pixels, provenance=PROVENANCE, licence=LICENCE, twin=packed.twin)


def cache_folder() -> Path:
    """Where the rendered images lie."""
    return paths.data_dir() / f"dsprites-rerendered-v{RENDERING}"


def render(out: NDArray[np.uint8]) -> None:
    """Draw all images into `out`, shape (737280, 512), packed to bits."""
    shapes, scales, orientations, columns, rows = GRID.sizes
    blocks = out.reshape(shapes, scales, orientations, columns, rows, ROW_BYTES)
    for cell in np.ndindex(shapes, scales, orientations):
        blocks[cell] = polygons.to_bytes(polygons.rasterise(*vertices(*cell)))


def vertices(shape: int, scale: int, orientation: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lattice vertices of a sprite at every posX, shape (32, vertex), and at every posY, shape (32, vertex)."""
    outline = placed(shape, scale, orientation)
    centre = FIRST_PIXEL + TRAVEL * np.linspace(0, 1, 32)[:, None]
    x, y = ((centre + outline[:, axis]).astype(np.float32) for axis in (0, 1))
    return polygons.snap(x), polygons.snap(y)


def placed(shape: int, scale: int, orientation: int) -> NDArray[np.float64]:
    """Outline scaled and turned about its centre, shape (vertex, 2): x right and y down, pixels."""
    angle = -float(GRID.values["orientation"][orientation])
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = outline(shape).T
    turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
    return turned * float(GRID.values["scale"][scale])


def outline(shape: int) -> NDArray[np.float64]:
    """Outline of the square, ellipse or heart at scale 1, shape (vertex, 2), pixels about the sprite's centre."""
    # `math`, not NumPy: its vector routines may differ in the last bit from one processor to the next.
    if shape == 0:
        points = [(-_SIZE, -_SIZE), (_SIZE, -_SIZE), (_SIZE, _SIZE), (-_SIZE, _SIZE)]
    elif shape == 1:
        turns = [2 * math.pi * k / 100 for k in range(100)]
        points = [(_SIZE * _STRETCH * math.cos(t), _SIZE / _STRETCH * math.sin(t)) for t in turns]
    else:
        points = [_heart(2 * math.pi * k / 150) for k in range(150)]
    return np.array(points)


def _heart(t: float) -> tuple[float, float]:
    height = (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 14.5 + 0.15
    return _SIZE * math.sin(t) ** 3, -_SIZE * height
