"""Aliased polygons, exactly: what OpenGL draws without anti-aliasing, in integers.

Vertices lie on a lattice of 1/256 pixel; a pixel is on when its centre is inside the polygon. A centre on an edge
counts when the edge is a left or a lower one (y points down), so that polygons that share an edge share no pixel.

The position of a polygon enters its vertices' x only through the column offset and y only through the row offset. So
the rows that each edge crosses are found once per row offset and serve all column offsets, and a row of 64 pixels is
one 64-bit word: the exclusive or, over the row's crossings, of the words that are on from the crossing rightwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LATTICE = 256
"""Lattice steps per pixel."""
WIDTH = 64
"""Pixels per row, and rows per image."""

_HALF = LATTICE // 2
_FROM_COLUMN = np.array([(2**WIDTH - 1) >> column for column in range(WIDTH)] + [0], dtype=np.uint64)


def snap(coordinates: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pixel coordinates to the nearest lattice point."""
    return np.asarray(np.rint(coordinates * np.float32(LATTICE)), dtype=np.int64)


def rasterise(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Fill one polygon at every combination of column and row offsets.

    Parameters
    ----------
    x
        Vertices' x in lattice steps, shape (column offset, vertex).
    y
        Vertices' y in lattice steps, shape (row offset, vertex); the polygon is closed and filled by the even-odd rule.

    Returns
    -------
    NDArray
        uint64, shape (column offset, row offset, 64 rows); the most significant bit is the leftmost pixel.
    """
    row, edge, offset = _crossed_rows(y)
    key = offset * WIDTH + row
    order = np.argsort(key, kind="stable")
    key, row, edge, offset = key[order], row[order], edge[order], offset[order]
    start, rise = y[offset, edge], np.roll(y, -1, axis=1)[offset, edge] - y[offset, edge]
    upward = np.sign(rise)
    rise, along = rise * upward, (LATTICE * row + _HALF - start) * upward
    run = np.roll(x, -1, axis=1) - x
    # First column whose centre is at or right of the crossing: ceil((x + along * run / rise - 1/2 pixel) / pixel).
    crossing = (x[:, edge] - _HALF) * rise + along * run[:, edge]
    column = -(-crossing // (rise * LATTICE))
    words = _FROM_COLUMN[np.clip(column, 0, WIDTH)]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    image = np.zeros((len(x), len(y) * WIDTH), dtype=np.uint64)
    if starts.size:
        image[:, key[starts]] = np.bitwise_xor.reduceat(words, starts, axis=1)
    return image.reshape(len(x), len(y), WIDTH)


def to_bytes(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Rows of words as the bytes of `np.packbits`: shape (..., rows) to (..., 8 * rows)."""
    return np.ascontiguousarray(words.astype(">u8")).view(np.uint8)


def _crossed_rows(y: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every (row, edge, row offset) such that the row's centre lies in (top, bottom] of the edge, inside the image."""
    following = np.roll(y, -1, axis=1)
    first = np.maximum((np.minimum(y, following) - _HALF) // LATTICE + 1, 0)
    last = np.minimum((np.maximum(y, following) - _HALF) // LATTICE, WIDTH - 1)
    count = np.maximum(last - first + 1, 0).ravel()
    which = np.repeat(np.arange(count.size), count)
    row = np.arange(which.size) - (np.cumsum(count) - count)[which] + first.ravel()[which]
    offset, edge = np.divmod(which, y.shape[1])
    return row, edge, offset
