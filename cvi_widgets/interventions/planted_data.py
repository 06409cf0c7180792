"""Images for planted circuits: one rectangular block per factor, whose brightness says the factor's class.

Brightness is affine in the class and a whole number of grey levels, so that bytes and floats tell the same story.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.pixels import DType, check_dtype
from cvi_widgets.data.protocol import Index

BLOCK = (4, 4)
"""Pixels of a block, (y, x)."""
WHITE = 255
DARKEST, BRIGHTEST = 51, 204
"""Grey levels of a block, brightness 0.2 and 0.8; the last class stays below the second where steps do not divide."""
MOST_VALUES = BRIGHTEST - DARKEST + 1


@dataclass(frozen=True, eq=False)
class BlockPixels:
    """Images drawn when they are asked for: a grid of many factors has more of them than memory.

    Parameters
    ----------
    levels
        Grey levels of each factor's classes, one array per factor.
    owner
        Number of the factor that paints each pixel, shape (y, x).
    """

    levels: tuple[NDArray[np.uint8], ...]
    owner: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, y, x)"""
        return (1, *self.owner.shape)

    def __len__(self) -> int:
        return int(np.prod([len(level) for level in self.levels]))

    def read(self, index: Index, dtype: DType) -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x); `index` has been checked."""
        classes = np.unravel_index(index, [len(level) for level in self.levels])
        painted = np.stack([level[c] for level, c in zip(self.levels, classes, strict=True)], axis=1)
        images = painted[:, self.owner.ravel()].reshape(len(index), *self.shape)
        return images if check_dtype(dtype) == "uint8" else images.astype(np.float32) / np.float32(WHITE)

    def rows(self) -> NDArray[np.uint8]:
        """One row of bytes per image."""
        return np.asarray(self.read(np.arange(len(self)), "uint8"), np.uint8).reshape(len(self), -1)


def grey_levels(size: int) -> NDArray[np.uint8]:
    """Grey levels of the classes of a factor with `size` values, evenly spaced from the darkest."""
    step = (BRIGHTEST - DARKEST) // (size - 1)
    return (DARKEST + step * np.arange(size)).astype(np.uint8)


def block_owners(factors: int) -> NDArray[np.int64]:
    """Which factor paints each pixel, shape (y, x): equal blocks in as square an arrangement as tiles exactly."""
    rows = max(n for n in range(1, int(factors**0.5) + 1) if factors % n == 0)
    arrangement = np.arange(factors).reshape(rows, factors // rows)
    return np.kron(arrangement, np.ones(BLOCK, dtype=np.int64)).astype(np.int64)


def block_data(sizes: tuple[int, ...]) -> GridData:
    """All images of factors `f0`, `f1`, ... with so many values each; a `FactorData`.

    A factor's values are the brightness of its block, in [0, 1].
    """
    levels = tuple(grey_levels(size) for size in sizes)
    grid = FactorGrid({f"f{k}": level / WHITE for k, level in enumerate(levels)})
    return GridData(
        "planted",
        grid,
        BlockPixels(levels, block_owners(len(sizes))),
        provenance="Drawn here: one block of grey per factor, its brightness affine in the factor's class.",
        licence="CC0-1.0",
        # No two images are the same, which looking at all of them would only confirm.
        twin=np.arange(len(grid), dtype=np.int32),
    )
