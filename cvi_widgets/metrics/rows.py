"""Rows of a metrics table: a value with its interval, null, convention and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.metrics.statistics import Floats, Null

NO_NULL = Null(np.nan, np.nan, np.nan)


class Row(NamedTuple):
    """One metric; numbers for a run, arrays over latents or sites."""

    value: float | Floats
    low: float | Floats
    high: float | Floats
    convention: str
    units: str
    null: Null | Sequence[Null] = NO_NULL


def row(measured: Sequence[float | Floats], convention: str, units: str) -> Row:
    """The row of one measured number."""
    value, low, high = (float(v) for v in measured)
    return Row(value, low, high, convention, units)


def joined(parts: Sequence[Mapping[str, Row]]) -> dict[str, Row]:
    """One row per metric from tables that each hold one number of it, in their order."""
    out = {}
    for name, first in parts[0].items():
        rows = [part[name] for part in parts]
        value, low, high = (np.array(column, np.float64) for column in zip(*(r[:3] for r in rows), strict=True))
        nulls = [r.null for r in rows if isinstance(r.null, Null)]
        out[name] = Row(value, low, high, first.convention, first.units, nulls)
    return out


def table(
    rows: Mapping[str, Row],
    attrs: Mapping[str, str | int | float],
    along: tuple[str, NDArray[np.generic]] | None = None,
) -> xr.Dataset:
    """Data set of rows over (metric) or, with `along` = (dimension, its coordinate), over (metric, dimension)."""
    dims = ("metric",) if along is None else ("metric", along[0])
    shape = () if along is None else (len(along[1]),)
    columns: dict[str, list[Floats]] = {k: [] for k in ("value", "ci_low", "ci_high", "null_mean", "null_sd", "p")}
    for row in rows.values():
        null = row.null if isinstance(row.null, Null) else Null(*np.array(row.null, np.float64).T)
        for key, number in zip(columns, (row.value, row.low, row.high, *null), strict=True):
            columns[key].append(np.broadcast_to(np.asarray(number, np.float64), shape))
    names = {
        "value": "value",
        "ci_low": "lower end of the 95 % interval",
        "ci_high": "upper end of the 95 % interval",
        "null_mean": "mean under the null",
        "null_sd": "standard deviation under the null",
        "p": "p value under the null",
    }
    variables = {
        key: xr.DataArray(np.stack(column), dims=dims, attrs={"long_name": names[key], "units": "see coordinate units"})
        for key, column in columns.items()
    }
    variables["p"].attrs["units"] = "1"
    coords: dict[str, tuple[str, NDArray[np.generic]]] = {
        "metric": ("metric", np.array(list(rows), dtype=str)),
        "convention": ("metric", np.array([r.convention for r in rows.values()], dtype=str)),
        "units": ("metric", np.array([r.units for r in rows.values()], dtype=str)),
    }
    if along is not None:
        coords[along[0]] = (along[0], along[1])
    return xr.Dataset(variables, coords, attrs=dict(attrs))
