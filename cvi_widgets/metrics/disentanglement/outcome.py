"""The data set that every disentanglement metric returns.

Variables over `metric`: value, ci_low, ci_high, null_mean, null_sd, p, with coordinates convention and units, as in the
store's /metrics. Beside them the parts (per factor, per latent, matrices), the mask of dead latents, and attrs that say
how every number was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cvi_widgets.metrics.disentanglement.sample import Floats, Sample
from cvi_widgets.metrics.rows import NO_NULL, Row, table
from cvi_widgets.metrics.statistics import interval, null_of

DRAWS = 200
"""Resamples of every bootstrap, and permutations of every null that needs no refit."""
EXAMPLES = "95 % bootstrap over examples, centred at the value"
HELD_OUT = "95 % bootstrap over held-out examples; what was fitted is not fitted again"


class Part(NamedTuple):
    """A variable beside the metric's value."""

    dims: tuple[str, ...]
    values: ArrayLike
    long_name: str
    units: str = "1"


def measured(
    value: float,
    convention: str,
    *,
    units: str = "1",
    draws: ArrayLike | None = None,
    null: ArrayLike | None = None,
    within: tuple[float, float] = (0.0, 1.0),
) -> Row:
    """One metric with its interval from bootstrap `draws` and its null from draws under `null`, shape (draw,) each.

    The percentile interval is shifted so that the mean draw falls on the value: resampling repeats examples, which
    moves every statistic with a sampling bias (mutual information most of all) by about that bias again (Efron &
    Tibshirani 1993, section 10.2). Ends stay `within` what the metric can be.
    """
    # Weighted sums of ones miss 1 by a rounding error.
    value = min(max(value, within[0]), within[1])
    low, high = (np.nan, np.nan) if draws is None else centred(value, np.asarray(draws, np.float64), within)
    found = NO_NULL if null is None or not len(np.asarray(null)) else null_of(null, value)
    return Row(value, low, high, convention, units, found)


def centred(value: float, draws: Floats, within: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float]:
    """Percentile interval of `draws`, shape (draw,), shifted so that their mean is `value`, and cut to `within`."""
    kept = draws[np.isfinite(draws)]
    if not kept.size or not np.isfinite(value):
        return np.nan, np.nan
    low, high = (float(end) + value - float(kept.mean()) for end in interval(kept))
    # The percentiles come in single precision, and a value without any spread lies on both ends of its interval.
    return max(min(low, value), within[0]), min(max(high, value), within[1])


def outcome(
    rows: Mapping[str, Row],
    sample: Sample,
    *,
    parts: Mapping[str, Part] | None = None,
    **attrs: str | int | float,
) -> xr.Dataset:
    """Data set of `rows` with `parts`, the dead mask of `sample`, and `attrs`."""
    n_dead = int(sample.dead.sum())
    dataset = table(rows, {"n": len(sample.codes), "n_latents": len(sample.dead), "n_dead": n_dead, **attrs})
    dataset = dataset.assign_coords(factor=list(sample.names), latent=np.arange(len(sample.dead)))
    everything = {
        "dead": Part(("latent",), sample.dead, "variance at or below the threshold; left out of every mean"),
        **(parts or {}),
    }
    for name, part in everything.items():
        dataset[name] = xr.DataArray(
            np.asarray(part.values), dims=part.dims, attrs={"long_name": part.long_name, "units": part.units}
        )
    return dataset


def over_latents(alive_values: ArrayLike, sample: Sample, axis: int = 0) -> Floats:
    """Numbers of the latents that are alive, put among NaN for the dead ones along `axis`."""
    given = np.moveaxis(np.asarray(alive_values, np.float64), axis, 0)
    full = np.full((len(sample.dead), *given.shape[1:]), np.nan)
    full[~sample.dead] = given
    return np.moveaxis(full, 0, axis)
