"""A full grid of factors: every combination of classes once, addressed in mixed radix.

The last factor runs fastest (C order), as in the dSprites file; `index` and `factors` are each other's inverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.data.protocol import Factors, Index, Split
from cvi_widgets.errors import DataError
from cvi_widgets.names import unknown

_SPLIT_STREAM = 0x5B117


@dataclass(frozen=True)
class FactorGrid:
    """Names, sizes and values of the factors of a full grid.

    Parameters
    ----------
    values
        The values of each factor in class order, by factor name, slowest factor first.

    Examples
    --------
    >>> grid = FactorGrid({"shape": [1, 2, 3], "scale": [0.5, 1.0]})
    >>> len(grid), grid.factors(np.array([3])).tolist(), grid.index(np.array([[1, 1]])).tolist()
    (6, [[1, 1]], [3])
    """

    values: Mapping[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        if not self.values:
            raise DataError("factors are empty; a grid needs at least one factor.")
        frozen: dict[str, NDArray[np.float64]] = {}
        for name, raw in self.values.items():
            levels = np.array(raw, dtype=np.float64)
            if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all():
                raise DataError(f"factor {name!r} has values of shape {levels.shape}; a finite, filled list is needed.")
            levels.flags.writeable = False
            frozen[name] = levels
        object.__setattr__(self, "values", MappingProxyType(frozen))

    @property
    def names(self) -> tuple[str, ...]:
        """Factor names, slowest first."""
        return tuple(self.values)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of classes of each factor."""
        return tuple(len(v) for v in self.values.values())

    def __len__(self) -> int:
        return math.prod(self.sizes)

    def column(self, factor: str) -> int:
        """Column of `factor` in `factors`; `DataError` with the nearest name when there is none."""
        if factor not in self.values:
            raise DataError(unknown("factor", factor, self.names))
        return self.names.index(factor)

    def size(self, factor: str) -> int:
        """Number of classes of `factor`."""
        return self.sizes[self.column(factor)]

    def checked_index(self, index: ArrayLike) -> Index:
        """`index` as an int64 vector, or one sentence about what is wrong with it."""
        return checked_index(index, len(self))

    def checked_class(self, factor: str, value: ArrayLike) -> NDArray[np.int64]:
        """`value` as int64 classes of `factor` (any shape), or one sentence about what is wrong with them."""
        size = self.size(factor)
        classes = _integers(value, f"factor {factor!r}")
        if classes.size and (classes.min() < 0 or classes.max() >= size):
            worst = classes.min() if classes.min() < 0 else classes.max()
            raise DataError(f"factor {factor!r} has class {worst}; allowed are 0 to {size - 1}.")
        return classes

    def factors(self, index: ArrayLike) -> Factors:
        """Factor classes of the images `index`, shape (n, factor)."""
        return np.stack(np.unravel_index(self.checked_index(index), self.sizes), axis=1).astype(np.int64, copy=False)

    def index(self, factors: ArrayLike) -> Index:
        """Indices of the images with these factor classes, shape (n,)."""
        classes = _integers(factors, "factors")
        if classes.ndim != 2 or classes.shape[1] != len(self.sizes):
            raise DataError(
                f"factors have shape {classes.shape}; allowed is (n, {len(self.sizes)}) for {', '.join(self.names)}."
            )
        columns = [self.checked_class(name, classes[:, i]) for i, name in enumerate(self.names)]
        return np.asarray(np.ravel_multi_index(columns, self.sizes), dtype=np.int64)

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        """`n` indices, every cell equally likely, with replacement."""
        return rng.integers(0, len(self), checked_count(n), dtype=np.int64)

    def changed(self, base: Index, factor: str, rng: np.random.Generator) -> Index:
        """Indices that differ from `base` in `factor` only, every other class equally likely."""
        column = self.column(factor)
        if self.sizes[column] < 2:
            raise DataError(f"factor {factor!r} has a single class; only a factor with 2 or more can be changed.")
        classes = self.factors(base)
        step = rng.integers(1, self.sizes[column], len(classes))
        classes[:, column] = (classes[:, column] + step) % self.sizes[column]
        return self.index(classes)


def checked_index(index: ArrayLike, n: int) -> Index:
    """`index` as an int64 vector of numbers in [0, n), or one sentence about what is wrong with it."""
    checked = _integers(index, "index")
    if checked.ndim != 1:
        raise DataError(f"index has shape {checked.shape}; a vector of image numbers is needed.")
    if checked.size and (checked.min() < 0 or checked.max() >= n):
        worst = checked.min() if checked.min() < 0 else checked.max()
        raise DataError(f"index has {worst}; allowed are 0 to {n - 1}.")
    return checked


def checked_count(n: int, name: str = "n") -> int:
    """`n` as a count of at least one."""
    if np.ndim(n) or np.asarray(n).dtype.kind not in "iu" or n < 1:
        raise DataError(f"{name} is {n!r}; a whole number of at least 1 is needed.")
    return int(n)


def split_apart(twin: NDArray[np.integer[Any]], test: int, seed: int) -> Split:
    """Hold out `test` random images and every image with the same pixels.

    Parameters
    ----------
    twin
        For each image the smallest index with identical pixels, shape (n,).
    test, seed
        Number of held-out images, and the seed that alone decides which.

    Returns
    -------
    Split
        `test` in random order, so that its beginning is a random sample too; `train` ascending. Twins of a held-out
        image are in neither part unless they were drawn themselves, so no picture is both learned from and tested on.
    """
    n = len(twin)
    if not 1 <= checked_count(test, "test") < n:
        raise DataError(f"test is {test}; allowed are 1 to {n - 1}.")
    order = np.random.default_rng([_SPLIT_STREAM, seed]).permutation(n)
    held = np.zeros(n, dtype=bool)
    held[twin[order[:test]]] = True
    train = np.flatnonzero(~held[twin])
    if not train.size:
        raise DataError(f"test is {test}, which leaves no image to learn from out of {n}; choose fewer.")
    return Split(train.astype(np.int64, copy=False), order[:test].astype(np.int64, copy=False))


def _integers(value: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} has values of type {array.dtype}; whole numbers are needed.")
    return array.astype(np.int64, copy=False)
