"""Putting measured effects into data sets: names, units, intervals, and what was held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cvi_widgets.interventions.sites import Site
from cvi_widgets.metrics.across import over_runs
from cvi_widgets.metrics.statistics import Interval, bootstrap

LEVEL = 0.95
Coord = tuple[str, np.ndarray]


def variable(dims: Sequence[str], values: ArrayLike, long_name: str, units: str) -> xr.DataArray:
    """An array that says what it is; floats are stored as float32."""
    array = np.asarray(values)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return xr.DataArray(array, dims=tuple(dims), attrs={"long_name": long_name, "units": units})


def with_interval(
    name: str, dims: Sequence[str], measured: Interval, long_name: str, units: str
) -> dict[str, xr.DataArray]:
    """The three variables `name`, `name_low`, `name_high` of one measured quantity."""
    return {
        name: variable(dims, measured.value, long_name, units),
        f"{name}_low": variable(dims, measured.low, f"{long_name}, lower end of the 95 % interval", units),
        f"{name}_high": variable(dims, measured.high, f"{long_name}, upper end of the 95 % interval", units),
    }


def mean_over_first(rows: ArrayLike, draws: int, seed: int) -> Interval:
    """Mean over the first axis with the 95 % bootstrap interval that all effects use."""
    return bootstrap(rows, draws=draws, seed=seed, level=LEVEL)


def with_spread(
    name: str, dims: Sequence[str], rows: ArrayLike, long_name: str, units: str, draws: int, seed: int
) -> dict[str, xr.DataArray]:
    """Mean over pairs, its 95 % interval, and the standard deviation over pairs.

    Parameters
    ----------
    rows : (pair, ...), the dimensions after the first being `dims`; NaN where a pair does not define the quantity
    """
    values = np.asarray(rows, np.float64)
    return {
        **with_interval(name, dims, mean_over_first(values, draws, seed), long_name, units),
        f"{name}_sd": variable(dims, over_runs(values).sd, f"{long_name}, standard deviation over pairs", units),
    }


def group_coords(plan: Sequence[tuple[Site, Sequence[Sequence[int]]]], dim: str = "unit") -> dict[str, Coord]:
    """Coordinates of a flat dimension of groups of units: number, site, channel (-1 for a group), and the members."""
    prefix = "" if dim == "unit" else f"{dim}_"
    rows = [(site.name, group) for site, groups in plan for group in groups]
    coords: dict[str, Coord] = {
        dim: (dim, np.arange(len(rows))),
        f"{prefix}site": (dim, np.array([name for name, _ in rows], dtype=str)),
        f"{prefix}channel": (dim, np.array([group[0] if len(group) == 1 else -1 for _, group in rows])),
    }
    if any(len(group) > 1 for _, group in rows):
        coords[f"{prefix}members"] = (dim, np.array([" ".join(map(str, group)) for _, group in rows], dtype=str))
    return coords


def unit_coords(sites: Sequence[Site]) -> dict[str, Coord]:
    """Coordinates of the flat `unit` dimension: its number, its site, its channel there."""
    names = np.array([s.name for s in sites for _ in range(s.n_units)], dtype=str)
    channels = np.array([u for s in sites for u in range(s.n_units)], dtype=np.int64)
    return {
        "unit": ("unit", np.arange(len(channels))),
        "site": ("unit", names),
        "channel": ("unit", channels),
    }


def latent_coords(n: int) -> dict[str, Coord]:
    """Coordinate of the `latent` dimension."""
    return {"latent": ("latent", np.arange(n))}


def described(dataset: xr.Dataset, **attrs: str | int | float | Sequence[float] | Mapping[str, str]) -> xr.Dataset:
    """The data set with attributes; a mapping becomes one sentence per entry, so that it can be stored as text."""
    for name, value in attrs.items():
        if isinstance(value, Mapping):
            value = "; ".join(f"{k}: {v}" for k, v in value.items())
        dataset.attrs[name] = value
    return dataset
