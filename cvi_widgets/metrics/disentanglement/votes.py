"""Groups of examples that share a factor: the points that the FactorVAE and the beta-VAE score are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cvi_widgets.metrics.disentanglement.sample import Floats, Ints, Sample

_VALUES = 2**22


class Points(NamedTuple):
    """Features of each point, shape (point, feature), and the factor that was held, shape (point,)."""

    features: Floats
    factor: Ints


class Groups:
    """Examples of a sample by factor and class.

    Drawing a class takes that of a random example, so that classes come as often as the data has them.
    """

    def __init__(self, sample: Sample) -> None:
        self.classes = sample.classes
        self.order = np.argsort(sample.classes, axis=0, kind="stable")
        self.sizes = [np.bincount(column) for column in sample.classes.T]
        self.starts = [np.cumsum(size) - size for size in self.sizes]

    def sharing(self, example: Ints, factor: Ints, size: int, rng: np.random.Generator) -> Ints:
        """For each example `size` examples with its class of `factor`, with replacement; shape (point, size)."""
        klass = self.classes[example, factor]
        start = np.array([self.starts[k][c] for k, c in zip(factor, klass, strict=True)])
        many = np.array([self.sizes[k][c] for k, c in zip(factor, klass, strict=True)])
        offset = (rng.random((len(example), size)) * many[:, None]).astype(np.int64)
        return np.asarray(self.order[start[:, None] + offset, factor[:, None]])


def variance_points(sample: Sample, points: int, batch: int, rng: np.random.Generator) -> Points:
    """Variance of each latent that is not dead over `batch` examples that share one class of one random factor.

    In units of the latent's variance over all examples.
    """
    groups, codes = Groups(sample), sample.alive
    scale = codes.var(axis=0, ddof=1)
    factor = rng.integers(0, len(sample.names), points)
    example = rng.integers(0, len(codes), points)
    features = np.empty((points, codes.shape[1]))
    for block in _blocks(points, batch * codes.shape[1]):
        rows = groups.sharing(example[block], factor[block], batch, rng)
        features[block] = codes[rows].var(axis=1, ddof=1) / scale
    return Points(features, factor)


def difference_points(sample: Sample, points: int, batch: int, rng: np.random.Generator) -> Points:
    """Mean size of the difference between the codes of `batch` pairs that share one random factor.

    Every pair of a point shares its own class of that factor. Codes of latents that are not dead.
    """
    groups, codes = Groups(sample), sample.alive
    factor = rng.integers(0, len(sample.names), points)
    features = np.empty((points, codes.shape[1]))
    for block in _blocks(points, batch * codes.shape[1]):
        first = rng.integers(0, len(codes), (block.stop - block.start, batch))
        held = np.repeat(factor[block], batch)
        second = groups.sharing(first.ravel(), held, 1, rng).reshape(first.shape)
        features[block] = np.abs(codes[first] - codes[second]).mean(axis=1)
    return Points(features, factor)


def _blocks(lines: int, width: int) -> Iterator[slice]:
    step = max(1, _VALUES // max(1, width))
    for start in range(0, lines, step):
        yield slice(start, min(lines, start + step))
