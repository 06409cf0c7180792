"""Heat maps: factor by latent, input response, patching and mediation.

Every map is an `hv.Rectangles` over a plain frame with one row per cell, so that a test reads the numbers that are
drawn from `element.dframe()`. Cells carry value, interval and sample size for the hover.
"""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from cvi_widgets.views.style import (
    DIVERGING,
    SEQUENTIAL,
    actives,
    empty,
    from_zero,
    interval,
    label,
    latent_name,
    options,
    plain,
    sample_size,
    symmetric,
    tooltips,
)

_BOX = ["x0", "y0", "x1", "y1"]
_VALUES = [("value", "@value{0.000}"), ("95 % interval", "@low{0.000} to @high{0.000}"), ("n", "@n")]


def factor_by_latent(dataset: xr.Dataset) -> hv.Rectangles:
    """How far one change of a factor moves each latent: `/effects/input` `delta_mu(factor, latent)`.

    A dead latent is marked with a dagger where the data set says which are (`active(latent)`).
    """
    return _factors_by_latents(dataset, "delta_mu", "Change of each latent", "factor changed")


def effect_on_factors(dataset: xr.Dataset) -> hv.Rectangles:
    """How far setting each latent moves each factor, as read off the picture: `/effects/latent` `ces_factor`.

    Factors that are not read at all (NaN) are left out.
    """
    read = np.isfinite(dataset["ces_factor"].transpose("factor", "latent").values).all(axis=1)
    return _factors_by_latents(dataset.isel(factor=read), "ces_factor", "Change of each factor", "factor read")


def _factors_by_latents(dataset: xr.Dataset, name: str, title: str, ylabel: str) -> hv.Rectangles:
    array = dataset[name].transpose("factor", "latent")
    low, high = (a.transpose("factor", "latent") for a in interval(dataset, name))
    factors, latents = _names(array, "factor"), array["latent"].values
    row, column = np.indices(array.shape)
    frame = _cells(
        column.ravel(), row.ravel(), array.values.ravel(), low.values.ravel(), high.values.ravel(), gap=0.03
    ).assign(
        factor=np.array(factors)[row.ravel()],
        latent=latents[column.ravel()],
        n=sample_size(dataset),
    )
    ticks = [(i, latent_name(z, a)) for i, (z, a) in enumerate(zip(latents, actives(dataset), strict=True))]
    return _map(
        frame,
        ["factor", "latent"],
        [("factor", "factor"), ("latent", "z@latent")],
        title=f"{title} ({plain(array.attrs.get('units', '1'))})",
        clim=from_zero(frame["value"]),
        palette=SEQUENTIAL,
        height=60 + 38 * len(factors),
        xlabel="latent",
        ylabel=ylabel,
        xticks=ticks,
        yticks=list(enumerate(factors)),
    )


def input_response(dataset: xr.Dataset, site: str) -> hv.Rectangles:
    """Which factors the units of `site` answer to: `/effects/input` `response(factor, unit)`.

    Colour is a unit's share `r_f / sum_f r_f`, since units differ in scale; the hover also holds `r_f` itself with its
    interval. Units stand in the order of the factor that moves them most, the most selective first.
    """
    array = dataset["response"].transpose("factor", "unit")
    here = array["site"].values.astype(str) == site
    values = array.values[:, here]
    low, high = (a.transpose("factor", "unit").values[:, here] for a in interval(dataset, "response"))
    total = values.sum(axis=0)
    share = np.divide(values, total, out=np.zeros_like(values, dtype=float), where=total > 0)
    order = np.lexsort((-share.max(axis=0), share.argmax(axis=0)))
    factors = _names(array, "factor")
    return _unit_map(
        share[:, order],
        values[:, order],
        low[:, order],
        high[:, order],
        factors=factors,
        channel=array["channel"].values[here][order],
        n=sample_size(dataset),
        title=f"{plain(site)}, {int(here.sum())} units",
        clim=(0.0, float(max(share.max(initial=0.0), 1e-9))),
        palette=SEQUENTIAL,
        hover=label(array),
    )


def mediation_map(dataset: xr.Dataset, site: str) -> hv.Rectangles:
    """What part of a factor's total effect on the code goes through each unit of `site`.

    `/effects/mediation` `mediated(unit, factor)`; zero is the middle of the colours, one is all of the effect. Units
    stand in the order of the factor that they carry most of.
    """
    array = dataset["mediated"].transpose("factor", "unit")
    here = array["site"].values.astype(str) == site
    values = array.values[:, here]
    low, high = (a.transpose("factor", "unit").values[:, here] for a in interval(dataset, "mediated"))
    strength = np.abs(np.nan_to_num(values))
    order = np.lexsort((-strength.max(axis=0), strength.argmax(axis=0)))
    return _unit_map(
        values[:, order],
        values[:, order],
        low[:, order],
        high[:, order],
        factors=_names(array, "factor"),
        channel=array["channel"].values[here][order],
        n=sample_size(dataset),
        title=f"{plain(site)}, {int(here.sum())} units",
        clim=symmetric(values),
        palette=DIVERGING,
        hover=label(array),
    )


def patching_map(dataset: xr.Dataset) -> hv.Rectangles:
    """How much of the way to the source's code one swapped unit goes: `/effects/patching` `transfer(unit)`.

    One row per site, in the order of computation; within a row the units stand from the largest transfer to the
    smallest and share the width, so that rows of 32 and 128 units compare. Colours end at the largest transfer before
    the code, which itself would leave them pale.
    """
    array = dataset["transfer"]
    low, high = interval(dataset, "transfer")
    if not array.size:
        return empty("No unit was swapped.")
    frame = pd.DataFrame(
        {
            "site": array["site"].values.astype(str),
            "channel": array["channel"].values,
            "value": array.values.astype(float),
            "low": low.values.astype(float),
            "high": high.values.astype(float),
        }
    )
    sites = list(dict.fromkeys(frame["site"]))
    inside = ~frame["site"].str.startswith("latent.")
    frame["y"] = frame["site"].map({s: len(sites) - 1 - i for i, s in enumerate(sites)})
    frame["rank"] = frame.groupby("site")["value"].rank(ascending=False, method="first").astype(int)
    units = frame.groupby("site")["value"].transform("size")
    frame = frame.assign(
        x0=100 * (frame["rank"] - 1) / units,
        x1=100 * frame["rank"] / units,
        y0=frame["y"] - 0.42,
        y1=frame["y"] + 0.42,
        units=units,
        n=sample_size(dataset),
        site=frame["site"].map(plain),
    )
    return _map(
        frame,
        ["site", "channel", "rank", "units"],
        [("unit", "@site[@channel]"), ("rank", "@rank of @units")],
        title="Transfer of one swapped unit",
        clim=symmetric(frame["value"][inside] if inside.any() else frame["value"]),
        palette=DIVERGING,
        height=70 + 40 * len(sites),
        xlabel="units of the site, largest transfer first (%)",
        ylabel="",
        xticks=[0, 25, 50, 75, 100],
        yticks=[(len(sites) - 1 - i, plain(s)) for i, s in enumerate(sites)],
    )


def sites_of(dataset: xr.Dataset) -> list[str]:
    """Names of the sites in a data set with a `unit` dimension, in the order of computation."""
    return list(dict.fromkeys(dataset["site"].values.astype(str)))


def _unit_map(
    colour: Any,
    values: Any,
    low: Any,
    high: Any,
    *,
    factors: list[str],
    channel: Any,
    n: int,
    hover: str,
    **look: Any,
) -> hv.Rectangles:
    if not colour.size:
        return empty("This site has no units.")
    row, column = (i.ravel() for i in np.indices(colour.shape))
    frame = _cells(column, row, colour.ravel(), low.ravel(), high.ravel(), gap=0.0).assign(
        factor=np.array(factors)[row], channel=channel[column], effect=values.ravel(), n=n
    )
    return _map(
        frame,
        ["factor", "channel", "effect"],
        [("factor", "factor"), ("unit", "channel"), (hover, "@effect{0.0000}")],
        values=[("colour", "@value{0.000}"), ("95 % interval", "@low{0.0000} to @high{0.0000}"), ("n", "@n")],
        height=34 + 21 * len(factors),
        xlabel="",
        ylabel="",
        xticks=0,
        yticks=list(enumerate(factors)),
        **look,
    )


def _cells(x: Any, y: Any, value: Any, low: Any, high: Any, gap: float) -> pd.DataFrame:
    half = 0.5 - gap
    return pd.DataFrame(
        {"x0": x - half, "y0": y - half, "x1": x + half, "y1": y + half, "value": value, "low": low, "high": high}
    )


def _map(
    frame: pd.DataFrame,
    names: list[str],
    rows: list[tuple[str, str]],
    *,
    title: str,
    clim: tuple[float, float],
    palette: list[str],
    height: int,
    xlabel: str,
    ylabel: str,
    xticks: Any,
    yticks: Any,
    values: list[tuple[str, str]] = _VALUES,
) -> hv.Rectangles:
    columns = ["value", "low", "high", "n", *names]
    element = hv.Rectangles(frame[_BOX + columns], kdims=_BOX, vdims=columns)
    return element.opts(
        **options(
            height,
            color="value",
            cmap=palette,
            clim=clim,
            line_color=None,
            colorbar=True,
            colorbar_position="right",
            clabel="",
            tools=["hover"],
            hover_tooltips=tooltips([*rows, *values]),
            title=title,
            xlabel=xlabel,
            ylabel=ylabel,
            xaxis="bottom" if xticks else None,
            xticks=xticks,
            yticks=yticks,
            invert_yaxis=names[0] == "factor",
            padding=0,
        )
    )


def _names(array: xr.DataArray, dim: str) -> list[str]:
    return [plain(v) for v in array[dim].values]
