"""A full factor grid joined with its images: the plain implementation of `FactorData`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.data.grid import FactorGrid, checked_index, split_apart
from cvi_widgets.data.pixels import Pixels, find_twins
from cvi_widgets.data.protocol import Factors, Index, Pairs, Split
from cvi_widgets.errors import DataError

_ROUNDS = 100


class GridData:
    """Images of every combination of factor classes, every one equally likely.

    Parameters
    ----------
    name
        Name of the data set.
    grid
        The factors.
    pixels
        One image per cell of the grid, in its order.
    provenance, licence
        Whose pixels these are (one sentence), and on what terms.
    twin
        For each image the smallest index with identical pixels; found from the pixels when not given.
    """

    def __init__(
        self,
        name: str,
        grid: FactorGrid,
        pixels: Pixels,
        *,
        provenance: str,
        licence: str,
        twin: NDArray[np.int32] | None = None,
    ) -> None:
        if len(pixels) != len(grid):
            raise DataError(f"data set {name!r} has {len(pixels)} images; its factors need {len(grid)}.")
        self.name = name
        self.grid = grid
        self.pixels = pixels
        self.provenance = provenance
        self.licence = licence
        self.twin = find_twins(pixels.rows()) if twin is None else twin
        self.image_shape = pixels.shape

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Factor names, slowest first."""
        return self.grid.names

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Number of classes of each factor."""
        return self.grid.sizes

    @property
    def factor_values(self) -> Mapping[str, NDArray[np.float64]]:
        """The value of each class, by factor."""
        return self.grid.values

    def __len__(self) -> int:
        return len(self.grid)

    def __repr__(self) -> str:
        factors = ", ".join(f"{n} {s}" for n, s in zip(self.factor_names, self.factor_sizes, strict=True))
        return f"<{type(self).__name__} {self.name!r}: {len(self):,} images {self.image_shape} of {factors}>"

    def images(self, index: ArrayLike, dtype: Literal["uint8", "float32"] = "uint8") -> NDArray[np.uint8 | np.float32]:
        """Images, shape (n, channel, y, x): uint8 in the file's own levels, or float32 scaled to [0, 1]."""
        return self.pixels.read(checked_index(index, len(self)), dtype)

    def factors(self, index: ArrayLike) -> Factors:
        """Factor classes of the images, shape (n, factor)."""
        return self.grid.factors(index)

    def index(self, factors: ArrayLike) -> Index:
        """Indices of the images with these factor classes; inverse of `factors`."""
        return self.grid.index(factors)

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        """`n` indices, every image equally likely, with replacement."""
        return self.grid.sample(n, rng)

    def pairs(self, factor: str, n: int, rng: np.random.Generator) -> Pairs:
        """Random base images, and sources with `factor` changed to another class and the rest held.

        A pair whose two images have identical pixels (orientations 0 and 39 of dSprites) shows no change at all, and
        is drawn again.
        """
        return visible_pairs(self, lambda k: self.sample(k, rng), factor, n, rng)

    def split(self, test: int, seed: int) -> Split:
        """Deterministic split; images with the same pixels never lie on both sides (`split_apart`)."""
        return split_apart(self.twin, test, seed)


def visible_pairs(data: GridData, draw: Callable[[int], Index], factor: str, n: int, rng: np.random.Generator) -> Pairs:
    """`n` pairs from `draw(n)` that differ in `factor`, drawing again those whose pixels do not differ."""
    base = draw(n)
    source = data.grid.changed(base, factor, rng)
    for _ in range(_ROUNDS):
        same = np.flatnonzero(data.twin[base] == data.twin[source])
        if not same.size:
            return Pairs(base, source)
        base[same] = draw(len(same))
        source[same] = data.grid.changed(base[same], factor, rng)
    raise DataError(f"factor {factor!r} changes no pixel of data set {data.name!r} in {_ROUNDS} draws; choose another.")
