"""Images described by attributes that form no grid: pairs are matched, since no image differs in one factor alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.data.grid import checked_count, checked_index, split_apart
from cvi_widgets.data.pixels import Pixels
from cvi_widgets.data.protocol import Factors, Index, Pairs, Split
from cvi_widgets.errors import DataError
from cvi_widgets.names import unknown

_SPLIT_STREAM = 0xA77B
_BLOCK = 64
TRAIN, TEST = 0, 2
"""Numbers of the parts in an official partition; 1 is for validation."""


class AttributeData:
    """A set of images with one class per attribute and image.

    Parameters
    ----------
    name
        Name of the data set.
    names
        Attribute names.
    classes
        Class of each image, shape (n, attribute), whole numbers from 0; an attribute's size is its largest class + 1.
    pixels
        One image per row of `classes`.
    twin
        For each image the smallest index with identical pixels, shape (n,).
    provenance, licence
        Whose pixels these are (one sentence), and on what terms.
    partition
        Which part each image belongs to (0 train, 1 validation, 2 test), shape (n,); None for no official one.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        classes: ArrayLike,
        pixels: Pixels,
        *,
        twin: NDArray[np.int32],
        provenance: str,
        licence: str,
        partition: NDArray[np.integer] | None = None,
    ) -> None:
        self._classes = np.asarray(classes, dtype=np.int64)
        if self._classes.shape != (len(pixels), len(names)):
            raise DataError(
                f"attributes of data set {name!r} have shape {self._classes.shape}; "
                f"allowed is {(len(pixels), len(names))}, one row per image."
            )
        self.name = name
        self.pixels = pixels
        self.provenance = provenance
        self.licence = licence
        self.twin = twin
        self.partition = partition
        self.image_shape = pixels.shape
        self.factor_names = tuple(names)
        self.factor_sizes = tuple((self._classes.max(axis=0) + 1).tolist())
        self.factor_values: Mapping[str, NDArray[np.float64]] = MappingProxyType(
            {name: np.arange(size, dtype=np.float64) for name, size in zip(names, self.factor_sizes, strict=True)}
        )
        self._first: dict[bytes, int] = {}
        # One column per class, so that one matrix product counts the attributes that two images share.
        levels = [self._classes[:, i, None] == np.arange(size) for i, size in enumerate(self.factor_sizes)]
        self._shared = np.concatenate(levels, axis=1).astype(np.float32)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        n = len(self.factor_names)
        return f"<AttributeData {self.name!r}: {len(self):,} images {self.image_shape} of {n} attributes>"

    def images(self, index: ArrayLike, dtype: Literal["uint8", "float32"] = "uint8") -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x): uint8 in the file's own levels, or float32 scaled to [0, 1]."""
        return self.pixels.read(checked_index(index, len(self)), dtype)

    def factors(self, index: ArrayLike) -> Factors:
        """Attribute classes of the images, shape (n, attribute)."""
        return self._classes[checked_index(index, len(self))]

    def index(self, factors: ArrayLike) -> Index:
        """The first image that has exactly these attributes, for each row; several images can have the same."""
        wanted = np.ascontiguousarray(factors, dtype=np.int64)
        if wanted.ndim != 2 or wanted.shape[1] != len(self.factor_names):
            raise DataError(f"factors have shape {wanted.shape}; allowed is (n, {len(self.factor_names)}).")
        if not self._first:
            for i, row in enumerate(self._classes):
                self._first.setdefault(row.tobytes(), i)
        found = [self._first.get(row.tobytes(), -1) for row in wanted]
        if -1 in found:
            raise DataError(f"factors in row {found.index(-1)} belong to no image of data set {self.name!r}.")
        return np.array(found, dtype=np.int64)

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        """`n` indices, every image equally likely, with replacement."""
        return rng.integers(0, len(self), checked_count(n), dtype=np.int64)

    def pairs(self, factor: str, n: int, rng: np.random.Generator) -> Pairs:
        """Random base images, and for each one of the images nearest to it in all other attributes.

        The source has another class of `factor` and the fewest other attributes that differ (Hamming distance); among
        equals one is drawn at random. How many differ all the same is what `mismatches` says.
        """
        column = self._column(factor)
        if (self._classes[:, column] == self._classes[0, column]).all():
            raise DataError(f"factor {factor!r} is the same in all images of data set {self.name!r}; choose another.")
        base = self.sample(n, rng)
        blocks = [base[start : start + _BLOCK] for start in range(0, n, _BLOCK)]
        return Pairs(base, np.concatenate([self._nearest(block, column, rng) for block in blocks]))

    def mismatches(self, pairs: Pairs, factor: str) -> NDArray[np.int64]:
        """How many attributes besides `factor` differ within each pair, shape (pair,)."""
        differ = self.factors(pairs.base) != self.factors(pairs.source)
        return np.asarray(np.delete(differ, self._column(factor), axis=1).sum(axis=1), dtype=np.int64)

    def split(self, test: int, seed: int) -> Split:
        """Deterministic split: `test` images of the official test part, and all of the official training part.

        Without an official partition any image can be held out. Images with the same pixels never lie on both sides.
        """
        if self.partition is None:
            return split_apart(self.twin, test, seed)
        held_out = np.flatnonzero(self.partition == TEST)
        if checked_count(test, "test") > len(held_out):
            raise DataError(f"test is {test}; the official test part of {self.name!r} has {len(held_out)} images.")
        chosen = np.random.default_rng([_SPLIT_STREAM, seed]).permutation(held_out)[:test]
        train = np.flatnonzero((self.partition == TRAIN) & ~np.isin(self.twin, self.twin[chosen]))
        return Split(train.astype(np.int64), chosen.astype(np.int64))

    def _column(self, factor: str) -> int:
        if factor not in self.factor_names:
            raise DataError(unknown("factor", factor, self.factor_names))
        return self.factor_names.index(factor)

    def _nearest(self, base: Index, column: int, rng: np.random.Generator) -> Index:
        start = sum(self.factor_sizes[:column])
        others = self._shared[base]
        others[:, start : start + self.factor_sizes[column]] = 0
        shared = others @ self._shared.T
        unchanged = self._classes[base, column, None] == self._classes[:, column]
        # An image with the same pixels and another label shows no change at all.
        shared[unchanged | (self.twin[base, None] == self.twin)] = -1
        best = shared.max(axis=1)
        if best.min() < 0:
            raise DataError(f"factor {self.factor_names[column]!r} changes no pixel for some images; choose another.")
        return np.array([rng.choice(np.flatnonzero(row == most)) for row, most in zip(shared, best, strict=True)])
