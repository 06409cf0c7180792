"""Images by index: packed to bits, or as plain bytes; and which images have identical pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data.protocol import Index
from cvi_widgets.errors import DataError
from cvi_widgets.names import unknown

DType = Literal["uint8", "float32"]
_CHUNK = 1024


class Pixels(Protocol):
    """Where a grid's images come from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, y, x)"""
        ...

    def __len__(self) -> int: ...

    def read(self, index: Index, dtype: DType) -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x); `index` has been checked."""
        ...

    def rows(self) -> NDArray[np.uint8]:
        """One row of bytes per image; equal rows are equal images."""
        ...


@dataclass(frozen=True, eq=False)
class PackedPixels:
    """Binary images, one bit per pixel in the order of `np.packbits`.

    Parameters
    ----------
    bits
        Shape (n, bytes), uint8; the most significant bit of a byte is its leftmost pixel.
    shape
        (channel, y, x)
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.bits)

    def read(self, index: Index, dtype: DType) -> NDArray[np.uint8 | np.float32]:
        channel, y, x = self.shape
        images = np.unpackbits(self.bits[index], axis=1, count=channel * y * x).reshape(len(index), *self.shape)
        return images if check_dtype(dtype) == "uint8" else images.astype(np.float32)

    def rows(self) -> NDArray[np.uint8]:
        return self.bits


@dataclass(frozen=True, eq=False)
class BytePixels:
    """Images held as an array (n, channel, y, x) of uint8; float32 divides by `white`."""

    array: NDArray[np.uint8]
    white: int = 255

    @property
    def shape(self) -> tuple[int, int, int]:
        channel, y, x = self.array.shape[1:]
        return (channel, y, x)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: Index, dtype: DType) -> NDArray[np.uint8 | np.float32]:
        images = self.array[index]
        return images if check_dtype(dtype) == "uint8" else images.astype(np.float32) / np.float32(self.white)

    def rows(self) -> NDArray[np.uint8]:
        return self.array.reshape(len(self.array), -1)


def check_dtype(dtype: str) -> str:
    """`dtype` if it is uint8 or float32, else one sentence."""
    if dtype not in ("uint8", "float32"):
        raise DataError(unknown("dtype", dtype, ("uint8", "float32")))
    return dtype


def find_twins(rows: NDArray[np.uint8]) -> NDArray[np.int32]:
    """For each row the smallest index of an identical row.

    Rows are first compared by a 64-bit digest; every match is then verified byte by byte, so the answer is exact. A
    digest that merges two different rows (about one chance in 10^8 for a million rows) is drawn again.

    Parameters
    ----------
    rows
        Shape (n, bytes), uint8.

    Returns
    -------
    NDArray
        int32, shape (n,); `twin[i] <= i`, and `twin[i] == i` for the first image of its kind.
    """
    for seed in itertools.count():
        _, first, inverse = np.unique(_digests(rows, seed), return_index=True, return_inverse=True)
        twin = first[inverse].astype(np.int32)
        copies = np.flatnonzero(twin != np.arange(len(rows)))
        parts = np.array_split(copies, len(copies) // _CHUNK + 1)
        if all(np.array_equal(rows[part], rows[twin[part]]) for part in parts):
            return twin
    raise AssertionError("itertools.count has no end")


def _digests(rows: NDArray[np.uint8], seed: int) -> NDArray[np.uint64]:
    words = -(-rows.shape[1] // 8)
    odd = np.random.default_rng(seed).integers(0, 2**63, words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    out = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        padded = np.zeros((len(part), 8 * words), dtype=np.uint8)
        padded[:, : part.shape[1]] = part
        mixed = padded.view(np.uint64)
        # A sum of word x odd number alone would lose differences in the top bits; the shifts bring them down.
        mixed = (mixed ^ (mixed >> np.uint64(32))) * odd
        out[start : start + _CHUNK] = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
    return out
