"""Mutual information of each latent with each factor: by which cut, and corrected for chance or not.

A code that is continuous has to be cut into bins before counting, and the cut decides what a score can reach: the 20
bins of equal width that disentanglement_lib takes cannot tell 32 or 40 classes apart, so a perfect code scores 0.90.
`adjusted` takes bins of equal mass, four for each class of the largest factor, which no outlier and no monotone map of
the code changes, keeps the levels of a code that has no more levels than bins, and subtracts what independent columns
with the same margins would share (Vinh, Epps & Bailey 2010, adjusted mutual information, here per factor:
`I_adj = H(f) (I - E I) / (H(f) - E I)`), so that unrelated codes score 0 and perfect ones H(f).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.cluster import expected_mutual_information

from cvi_widgets.errors import ConfigError
from cvi_widgets.metrics.disentanglement.sample import Floats, Ints, Sample

BINS_PER_CLASS = 4
MIN_PER_BIN = 10


@dataclass(frozen=True)
class Estimator:
    """How mutual information is counted."""

    cut: Literal["mass", "width"]
    bins: int | None
    """Bins of a latent; None: four for each class of the largest factor, with 10 examples or more in each."""
    adjusted: bool = False
    factor_bins: int | None = None
    """Bins into which the factors are cut as well; None leaves their classes alone."""

    def described(self, bins: int) -> str:
        """One line for attrs."""
        cut = f"plug-in counts of {bins} bins of equal {self.cut}"
        return (
            cut
            + (", adjusted for chance" if self.adjusted else "")
            + (f", factors cut to {self.factor_bins} bins" if self.factor_bins else "")
        )


ADJUSTED = Estimator("mass", None, adjusted=True)
DLIB = Estimator("width", 20)


class Information(NamedTuple):
    """Mutual information in nats and the entropies that bound it, with the same of resampled and permuted examples."""

    value: Floats
    """(latent, factor); 0 for dead latents where the estimate is adjusted for chance."""
    entropy: Floats
    """H(factor), shape (factor,)."""
    code_entropy: Floats
    """H(cut latent), shape (latent,)."""
    draws: Floats
    """(draw, latent, factor) of resampled examples."""
    draws_entropy: Floats
    """(draw, factor)."""
    draws_code_entropy: Floats
    """(draw, latent)."""
    null: Floats
    """(draw, latent, factor) with the examples of the factors permuted jointly against those of the codes."""
    bins: int


def information(sample: Sample, estimator: Estimator, draws: int, null_draws: int, seed: int) -> Information:
    """Mutual information of every latent with every factor, its bootstrap and its permutation null.

    Dead latents carry no information by definition where the estimate is adjusted; elsewhere they count as they do in
    the implementation whose convention it is.
    """
    n, n_latents = sample.codes.shape
    bins = number_of_bins(sample, estimator)
    cut = np.stack([cut_into(column, bins, estimator.cut) for column in sample.codes.T], axis=1)
    classes = sample.classes
    if estimator.factor_bins is not None:
        classes = np.stack([cut_into(c, estimator.factor_bins, "width") for c in classes.T.astype(np.float64)], axis=1)
    rng = np.random.default_rng(seed)
    resamples = rng.integers(0, n, (draws, n)) if draws else np.empty((0, n), np.int64)
    permutations = np.array([rng.permutation(n) for _ in range(null_draws)]).reshape(null_draws, n)
    everything = np.arange(n)[None]
    ignored = sample.dead if estimator.adjusted else np.zeros(n_latents, bool)

    shape = (n_latents, classes.shape[1])
    value, boot, null = np.zeros(shape), np.zeros((draws, *shape)), np.zeros((null_draws, *shape))
    for i in np.flatnonzero(~ignored):
        for k in range(shape[1]):
            first, second = cut[:, i], classes[:, k]
            plain = _plug_in(first, second, everything, everything)[0]
            value[i, k] = plain
            boot[:, i, k] = _plug_in(first, second, resamples, resamples)
            null[:, i, k] = _plug_in(first, second, np.broadcast_to(everything, permutations.shape), permutations)
            if estimator.adjusted:
                chance, entropy = _chance(first, second), _entropy(second, everything)[0]
                for target in (value, boot, null):
                    target[..., i, k] = np.maximum(0, _adjusted(target[..., i, k], chance, entropy))
    return Information(
        value,
        _entropies(classes, everything)[0],
        _entropies(cut, everything)[0],
        boot,
        _entropies(classes, resamples),
        _entropies(cut, resamples),
        null,
        bins,
    )


def number_of_bins(sample: Sample, estimator: Estimator) -> int:
    """Bins of a latent; a chosen number must be between 2 and the number of examples."""
    n = len(sample.codes)
    if estimator.bins is None:
        return max(2, min(BINS_PER_CLASS * max(sample.sizes), n // MIN_PER_BIN))
    if not 2 <= estimator.bins <= n:
        raise ConfigError(f"setting 'bins' is {estimator.bins}: allowed are 2 to the number of examples, {n}.")
    return estimator.bins


def cut_into(values: Floats, bins: int, cut: Literal["mass", "width"]) -> Ints:
    """Bin of each value, from 0; shape (example,).

    `width` is NumPy's histogram between smallest and largest value. `mass` keeps the distinct values where they are no
    more than `bins`, and otherwise puts equal numbers of examples into each bin, with ties together.
    """
    if cut == "width":
        edges = np.histogram(values, bins)[1]
        return np.asarray(np.digitize(values, edges[1:-1]), np.int64)
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) <= bins:
        return np.asarray(inverse, np.int64)
    # The middle rank of ties, so that reversing the sign of a code mirrors the bins.
    counts = np.bincount(inverse)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(np.floor(middle * bins / len(values)).astype(np.int64)[inverse])


def _plug_in(first: Ints, second: Ints, rows: Ints, paired: Ints) -> Floats:
    """I(first[rows]; second[paired]) in nats for each line of `rows` and `paired`, shape (draw,)."""
    width = int(second.max()) + 1
    cells = (int(first.max()) + 1) * width
    out = np.empty(len(rows))
    n = len(first)
    scaled = first * width
    logs = _count_logs(n)
    for block in _blocks(len(rows), max(n, cells)):
        joint = scaled[rows[block]] + second[paired[block]]
        joint += np.arange(len(joint))[:, None] * cells
        table = np.bincount(joint.ravel(), minlength=len(joint) * cells).reshape(len(joint), -1, width)
        total = logs[table].sum((1, 2)) - logs[table.sum(2)].sum(1) - logs[table.sum(1)].sum(1) + logs[n]
        # A sum of rounded terms may fall a hair below zero.
        out[block] = np.maximum(0, total / n)
    return out


def _entropies(columns: Ints, rows: Ints) -> Floats:
    return np.stack([_entropy(column, rows) for column in columns.T], axis=1)


def _entropy(column: Ints, rows: Ints) -> Floats:
    """Plug-in entropy in nats of column[rows], shape (draw,)."""
    n, width = len(column), int(column.max()) + 1
    logs, out = _count_logs(n), np.empty(len(rows))
    for block in _blocks(len(rows), n):
        joint = column[rows[block]]
        joint += np.arange(len(joint))[:, None] * width
        table = np.bincount(joint.ravel(), minlength=len(joint) * width).reshape(len(joint), width)
        out[block] = np.log(n) - logs[table].sum(1) / n
    return out


def _chance(first: Ints, second: Ints) -> float:
    """Mean information of columns with these margins when they are independent, exactly (hypergeometric counts)."""
    width = int(second.max()) + 1
    table = np.bincount(first * width + second, minlength=(int(first.max()) + 1) * width).reshape(-1, width)
    return float(expected_mutual_information(table, len(first)))


def _adjusted(plain: Floats, chance: float, entropy: float) -> Floats:
    room = entropy - chance
    return entropy * (plain - chance) / room if room > 1e-12 else np.zeros_like(plain)


def _count_logs(n: int) -> Floats:
    """k log k for k = 0 ... n: counts are whole numbers, and looking up is faster than a logarithm of each."""
    k = np.arange(n + 1, dtype=np.float64)
    return np.asarray(k * np.log(np.maximum(k, 1)))


def _blocks(lines: int, width: int) -> Iterator[slice]:
    step = max(1, 2**21 // width)
    for start in range(0, lines, step):
        yield slice(start, start + step)


def top_two(values: Floats, axis: int = -2) -> tuple[Floats, Floats]:
    """Largest and second largest along `axis` (the latents); the second is 0 where there is only one."""
    if values.shape[axis] == 1:
        values = np.concatenate([values, np.zeros_like(values)], axis=axis)
    ordered = np.sort(values, axis=axis)
    return np.take(ordered, -1, axis=axis), np.take(ordered, -2, axis=axis)


def informative(found: Information, level: float = 0.99) -> NDArray[np.bool_]:
    """Latents that know of some factor, shape (latent,): more than the best of all latents would know by chance.

    Their largest information exceeds the `level` quantile of the largest information anywhere under permutation, so
    that among latents that know nothing hardly ever one passes. Without permutations any information will do.
    """
    top = found.value.max(axis=1)
    threshold = np.quantile(found.null.max(axis=(1, 2)), level) if len(found.null) else 0.0
    return np.asarray(top > threshold)
