"""Statistics across runs: spread over seeds, correlations between metrics, contrasts between architectures.

A run is one number here. Three runs say little, and these functions say how little: every interval is as wide as it has
to be, and a correlation cannot be printed without the number of runs and its p value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cvi_widgets.errors import DataError

FEWEST = 4
"""Runs below which a correlation has no interval: resampling three points repeats them."""


class Spread(NamedTuple):
    """Mean over runs with its t interval; arrays of one shape."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


class Coefficient(NamedTuple):
    """One correlation coefficient with its interval and two-sided permutation p."""

    value: float
    low: float
    high: float
    p: float


class Correlation(NamedTuple):
    """How two metrics go together over runs."""

    n: int
    pearson: Coefficient
    spearman: Coefficient

    def __str__(self) -> str:
        parts = []
        for name, c in (("Pearson r", self.pearson), ("Spearman rho", self.spearman)):
            between = f" [{c.low:.2f}, {c.high:.2f}]" if np.isfinite(c.low) else ""
            parts.append(f"{name} = {c.value:.2f}{between}, p = {c.p:.2g}")
        warning = "; too few runs for an interval" if self.n < FEWEST else ""
        return f"{'; '.join(parts)} (n = {self.n} runs{warning})"

    def __repr__(self) -> str:
        # Shown instead of a bare tuple in notebooks, so that r never stands alone.
        return str(self)


def over_runs(values: ArrayLike, level: float = 0.95) -> Spread:
    """Mean, standard deviation and t interval over the first axis; NaN runs are left out.

    Parameters
    ----------
    values : (run, ...)

    Returns
    -------
    Spread; sd and interval are NaN for fewer than two runs.
    """
    data = np.asarray(values, np.float64)
    defined = np.isfinite(data)
    n = defined.sum(0)
    mean = np.divide(np.where(defined, data, 0).sum(0), n, out=np.full(n.shape, np.nan), where=n > 0)
    square = np.where(defined, (data - mean) ** 2, 0).sum(0)
    sd = np.sqrt(np.divide(square, n - 1, out=np.full(n.shape, np.nan), where=n > 1))
    half = stats.t.ppf((1 + level) / 2, np.maximum(n - 1, 1)) * sd / np.sqrt(np.maximum(n, 1))
    return Spread(mean, sd, mean - half, mean + half, n)


def correlate(x: ArrayLike, y: ArrayLike, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Correlation:
    """Pearson and Spearman correlation over runs: percentile bootstrap intervals and permutation p values.

    All orders are tried where there are no more than 7 runs, else 9,999 random ones.

    Parameters
    ----------
    x, y : (run,); runs where either is NaN are left out

    Raises
    ------
    DataError
        When fewer than three runs are left, or a metric is the same in all of them.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"x has shape {a.shape} and y {b.shape}; a correlation takes one number of each per run.")
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3:
        raise DataError(f"a correlation over {len(a)} runs means nothing; at least 3 are needed.")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        constant = "x" if np.ptp(a) == 0 else "y"
        raise DataError(f"{constant} is the same in all {len(a)} runs; it correlates with nothing.")
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(a), (draws, len(a)))
    ranks = stats.rankdata(a), stats.rankdata(b)
    redrawn = stats.rankdata(a[index], axis=1), stats.rankdata(b[index], axis=1)
    return Correlation(
        len(a),
        _coefficient(a, b, _rho(a[index], b[index]), rng, level),
        _coefficient(*ranks, _rho(*redrawn), rng, level),
    )


def compare(groups: Mapping[str, ArrayLike], level: float = 0.95) -> pd.DataFrame:
    """All pairs of groups (architectures, say): difference of means, Welch interval, p, and p after Holm's correction.

    Parameters
    ----------
    groups : name to (run,)

    Returns
    -------
    DataFrame, index (first, second); columns difference, low, high, p, p_holm.

    Raises
    ------
    DataError
        When a group has fewer than two runs.
    """
    kept = {name: np.asarray(v, np.float64)[np.isfinite(v)] for name, v in groups.items()}
    for name, values in kept.items():
        if len(values) < 2:
            raise DataError(f"group {name!r} has {len(values)} runs; a contrast needs at least 2 of each.")
    rows = []
    for first, second in combinations(kept, 2):
        found = stats.ttest_ind(kept[first], kept[second], equal_var=False)
        between = found.confidence_interval(level)
        difference = kept[first].mean() - kept[second].mean()
        rows.append((first, second, difference, between.low, between.high, found.pvalue))
    table = pd.DataFrame(rows, columns=["first", "second", "difference", "low", "high", "p"])
    table["p_holm"] = holm(table["p"].to_numpy())
    return table.set_index(["first", "second"])


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction, for contrasts of which none may be wrong; NaN stays NaN and does not count.

    Parameters
    ----------
    p : any shape; all of it is one family
    """
    return _corrected(p, lambda v: np.asarray(multipletests(v, method="holm")[1]))


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini-Hochberg q values, for maps of which some may be wrong; NaN stays NaN and does not count.

    Parameters
    ----------
    p : any shape; all of it is one family
    """
    return _corrected(p, lambda v: np.asarray(stats.false_discovery_control(v, method="bh")))


def _corrected(p: ArrayLike, correct: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    values = np.asarray(p, np.float64)
    out = np.full(values.shape, np.nan)
    defined = np.isfinite(values)
    if defined.any():
        out[defined] = correct(values[defined])
    return out


def _coefficient(
    a: NDArray[np.float64], b: NDArray[np.float64], drawn: NDArray[np.float64], rng: np.random.Generator, level: float
) -> Coefficient:
    value = float(_rho(a, b))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Coefficient(np.nan, np.nan, np.nan, np.nan)
    found = stats.permutation_test(
        (a,),
        lambda v, axis: np.abs(_rho(v, np.broadcast_to(b, v.shape), axis)),
        permutation_type="pairings",
        n_resamples=9999 if len(a) > 7 else np.inf,
        alternative="greater",
        vectorized=True,
        rng=rng,
    )
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.nan, np.nan
    if len(a) >= FEWEST and drawn.size:
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Coefficient(value, float(low), float(high), float(found.pvalue))


def _rho(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    a = a - a.mean(axis, keepdims=True)
    b = b - b.mean(axis, keepdims=True)
    scale = np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    # Rounding leaves a trace of variation in a resample of one run repeated.
    return np.asarray(np.divide((a * b).sum(axis), scale, out=np.full(scale.shape, np.nan), where=scale > 1e-12))
