"""Intervals and nulls: vectorised, seeded, and bounded in memory.

A bootstrap draw of a mean is a weighted mean, so all draws of all columns are one matrix product,
`weights (draw, row) @ data (row, column)`. Rows are what was sampled independently: pairs or examples. Statistics that
are functions of means (a ratio, an entropy, a correlation) are computed draw by draw from those weighted means.
Percentile intervals after Efron & Tibshirani (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.errors import ConfigError

Floats = NDArray[np.float64]
_BYTES = 64 * 2**20


class Interval(NamedTuple):
    """A value with its interval; arrays of one shape."""

    value: Floats
    low: Floats
    high: Floats


class Null(NamedTuple):
    """Mean, standard deviation and p value of a statistic where the structure in question is destroyed."""

    mean: float
    sd: float
    p: float


# Drawing the weights costs more than using them, and the metrics of a run ask for the same ones many times.
@lru_cache(maxsize=1)
def bootstrap_weights(rows: int, draws: int, seed: int = 0) -> NDArray[np.float32]:
    """Resampling weights, shape (draw, row), read-only; each line sums to 1 and is one resample with replacement.

    Raises
    ------
    ConfigError
        When `rows` or `draws` is less than 1.
    """
    if rows < 1 or draws < 1:
        raise ConfigError(f"a bootstrap needs at least one row and one draw, but rows={rows} and draws={draws}.")
    counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws)
    weights = (counts / rows).astype(np.float32)
    weights.flags.writeable = False
    return weights


def bootstrap_means(values: ArrayLike, draws: int = 1000, seed: int = 0) -> NDArray[np.float32]:
    """Resampled means over the first axis, shape (draw, ...); NaN rows are left out, column by column.

    Parameters
    ----------
    values : shape (row, ...)
    """
    data = np.asarray(values, np.float32)
    flat = data.reshape(len(data), -1)
    means = _weighted(bootstrap_weights(len(data), draws, seed), flat)
    return means.reshape(draws, *data.shape[1:])


def bootstrap(values: ArrayLike, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean over the first axis with its percentile interval.

    Parameters
    ----------
    values : shape (row, ...)
        One row per independent pair or example; NaN means "not defined for this row".
    level : coverage of the interval, between 0 and 1

    Returns
    -------
    Interval of arrays of shape (...). Columns with no defined row are NaN.

    Examples
    --------
    >>> interval = bootstrap([0.0, 1.0, 2.0, 3.0], seed=1)
    >>> bool(interval.low < interval.value == 1.5 < interval.high)
    True
    """
    data = np.asarray(values, np.float64)
    flat = data.reshape(len(data), -1)
    weights = bootstrap_weights(len(data), draws, seed)
    defined = np.isfinite(flat)
    count = defined.sum(0)
    total = np.where(defined, flat, 0).sum(0)
    value = np.divide(total, count, out=np.full(flat.shape[1], np.nan), where=count > 0)
    low, high = np.empty_like(value), np.empty_like(value)
    for columns in _column_blocks(flat.shape[1], draws):
        block = _weighted(weights, flat[:, columns].astype(np.float32))
        low[columns], high[columns] = interval(block, level)
    shape = data.shape[1:]
    return Interval(value.reshape(shape), low.reshape(shape), high.reshape(shape))


def interval(draws: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile over the first axis, NaN draws left out; all-NaN columns give NaN."""
    if not 0 < level < 1:
        raise ConfigError(f"setting 'level' is {level}: it must lie between 0 and 1.")
    data = np.asarray(draws, np.float32)
    tail = (1 - level) / 2
    if np.isfinite(data).all():
        low, high = np.quantile(data, [tail, 1 - tail], axis=0)
        return np.asarray(low, np.float64), np.asarray(high, np.float64)
    flat = data.reshape(len(data), -1)
    out = np.full((2, flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        kept = flat[np.isfinite(flat[:, column]), column]
        if kept.size:
            out[:, column] = np.quantile(kept, [tail, 1 - tail])
    low, high = out.reshape(2, *data.shape[1:])
    return low, high


def permutation_null(
    statistic: Callable[[np.random.Generator], float],
    value: float,
    draws: int = 1000,
    seed: int = 0,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
) -> Null:
    """Null distribution of a statistic, from `draws` calls that each permute with the generator they are given.

    Parameters
    ----------
    statistic : called with a `numpy.random.Generator`; permutes the data with it and returns the statistic
    value : the observed statistic
    alternative : which side counts as extreme

    Returns
    -------
    Null with p = (1 + number at least as extreme) / (1 + draws), which is never zero (Phipson & Smyth 2010).
    """
    rng = np.random.default_rng(seed)
    return null_of(np.array([statistic(rng) for _ in range(draws)]), value, alternative)


def null_of(sample: ArrayLike, value: float, alternative: Literal["greater", "less", "two-sided"] = "greater") -> Null:
    """Summarise draws under the null, shape (draw,), against the observed `value`."""
    draws = np.asarray(sample, np.float64)
    if not np.isfinite(value) or not np.isfinite(draws).all():
        return Null(np.nan, np.nan, np.nan)
    # Rounding may put a permutation that restores the data a hair on either side of the observed value.
    slack = 1e-9 * max(1.0, abs(value))
    above = (1 + int((draws >= value - slack).sum())) / (1 + len(draws))
    below = (1 + int((draws <= value + slack).sum())) / (1 + len(draws))
    p = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[alternative]
    return Null(float(draws.mean()), float(draws.std(ddof=1)) if len(draws) > 1 else 0.0, p)


def _weighted(weights: NDArray[np.float32], flat: NDArray[np.float32]) -> NDArray[np.float32]:
    defined = np.isfinite(flat)
    if defined.all():
        return weights @ flat
    total = weights @ np.where(defined, flat, np.float32(0))
    share = weights @ defined.astype(np.float32)
    return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0)


def _column_blocks(columns: int, draws: int) -> Iterator[slice]:
    width = max(1, _BYTES // (8 * draws))
    for start in range(0, columns, width):
        yield slice(start, start + width)
