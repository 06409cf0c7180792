"""What the tests of official formats share: a data folder of one's own, and harm to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvi_widgets import paths
from cvi_widgets.data import FactorData, FactorGrid


def small_grid(grid: FactorGrid, **sizes: int) -> FactorGrid:
    """The same factors with the first few classes of each, 2 where `sizes` says nothing."""
    return FactorGrid({name: levels[: sizes.get(name, 2)] for name, levels in grid.values.items()})


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes: no two images are alike, and every mistake in an order shows."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def truncated(path: Path, share: float = 0.6) -> Path:
    """A copy of the file that ends early."""
    content = path.read_bytes()
    copy = path.with_name(f"truncated-{path.name}")
    copy.write_bytes(content[: int(len(content) * share)])
    return copy


def caches() -> list[str]:
    """What lies in the data folder."""
    folder = paths.data_dir()
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def keeps_the_protocol(data: FactorData) -> None:
    """Factors and index are inverse, a pair differs in its factor and shows it, a split shares nothing."""
    assert isinstance(data, FactorData)
    rng = np.random.default_rng(0)
    index = data.sample(40, rng)
    assert np.array_equal(data.index(data.factors(index)), index)
    floats = data.images(index, "float32")
    assert np.array_equal(np.rint(floats * 255).astype(np.uint8), data.images(index))
    for column, (factor, size) in enumerate(zip(data.factor_names, data.factor_sizes, strict=True)):
        assert len(data.factor_values[factor]) == size
        if size > 1:
            pairs = data.pairs(factor, 20, rng)
            differ = data.factors(pairs.base) != data.factors(pairs.source)
            assert differ.all(axis=0).tolist() == [i == column for i in range(len(data.factor_names))]
            assert (data.images(pairs.base) != data.images(pairs.source)).any(axis=(1, 2, 3)).all()
    split = data.split(3, seed=1)
    assert not set(split.train.tolist()) & set(split.test.tolist())
