"""The one protocol of factor data sets.

An image is addressed by its integer `index`; its generative factors are integer classes, one column per factor in the
order of `factor_names`. Everything else (training, interventions, metrics, reports) uses nothing but these members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Factors = NDArray[np.int64]


class Split(NamedTuple):
    """Indices to learn from and indices never learned from; no image is in both."""

    train: Index
    test: Index


class Pairs(NamedTuple):
    """Indices of base and source images that differ in exactly one factor; shape (pair,) each."""

    base: Index
    source: Index


@runtime_checkable
class FactorData(Protocol):
    """A data set whose images are addressed by index and described by ground-truth factors."""

    @property
    def name(self) -> str: ...

    @property
    def factor_names(self) -> tuple[str, ...]: ...

    @property
    def factor_sizes(self) -> tuple[int, ...]: ...

    @property
    def factor_values(self) -> Mapping[str, NDArray[np.float64]]: ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, y, x)"""
        ...

    @property
    def provenance(self) -> str:
        """One sentence saying whose pixels these are: the authors', or re-rendered and how well they agree."""
        ...

    @property
    def licence(self) -> str: ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def images(self, index: Index, dtype: Literal["uint8", "float32"] = "uint8") -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x): uint8 in the file's own levels, or float32 scaled to [0, 1]."""
        ...

    def factors(self, index: Index) -> Factors:
        """Factor classes of the images, shape (n, factor)."""
        ...

    def index(self, factors: Factors) -> Index:
        """Indices of the images with these factor classes, inverse of `factors`; `DataError` outside the grid."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        """`n` indices drawn from the data set's own distribution, with replacement."""
        ...

    def pairs(self, factor: str, n: int, rng: np.random.Generator) -> Pairs:
        """Base images from the data set's own distribution, and sources with `factor` changed and the rest held."""
        ...

    def split(self, test: int, seed: int) -> Split:
        """Deterministic split with `test` held-out images, disjoint from all images in `train`."""
        ...
