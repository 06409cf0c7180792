"""Bars and dots with intervals: causal effect strength, metrics by site, and the known graph."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from cvi_widgets.views.style import (
    ACCENT,
    BASE,
    CATEGORICAL,
    DEAD,
    TEXT,
    actives,
    empty,
    interval,
    label,
    latent_name,
    options,
    plain,
    sample_size,
    tooltips,
)

_ONLY_Y = {"xgrid_line_color": None}


def ces_bars(dataset: xr.Dataset, measure: str = "ces_l2") -> hv.Overlay:
    """Causal effect strength of every latent with 95 % intervals: `/effects/latent` `ces_l2(latent)`.

    Bars stand from the strongest to the weakest; dead latents are grey and marked.
    """
    array, (low, high) = dataset[measure], interval(dataset, measure)
    alive = actives(dataset)
    order = np.argsort(-array.values)
    rank = np.arange(len(order), dtype=float)
    names = [latent_name(array["latent"].values[i], alive[i]) for i in order]
    frame = pd.DataFrame(
        {
            "x0": rank - 0.36,
            "y0": 0.0,
            "x1": rank + 0.36,
            "y1": array.values[order],
            "latent": names,
            "low": low.values[order],
            "high": high.values[order],
            "n": sample_size(dataset),
            "colour": np.where(alive[order], BASE, DEAD),
        }
    )
    bars = hv.Rectangles(frame, ["x0", "y0", "x1", "y1"], ["latent", "low", "high", "n", "colour"]).opts(
        color="colour",
        line_color=None,
        alpha=0.85,
        tools=["hover"],
        hover_tooltips=tooltips(
            [
                ("latent", "latent"),
                ("effect", "@y1{0.00}"),
                ("95 % interval", "@low{0.00} to @high{0.00}"),
                ("examples", "n"),
            ]
        ),
        backend="bokeh",
    )
    whiskers = hv.Segments((rank, frame["low"], rank, frame["high"])).opts(color=TEXT, line_width=2, backend="bokeh")
    return (bars * whiskers).opts(
        **options(
            260,
            title="Causal effect strength",
            xlabel="latent, strongest first",
            ylabel="L2 norm over pixels" if measure == "ces_l2" else label(array, units=False),
            xticks=list(enumerate(names)),
            show_grid=True,
            gridstyle=_ONLY_Y,
            ylim=(0, 1.08 * float(np.nanmax(frame["high"])) if len(frame) and np.nanmax(frame["high"]) > 0 else 1),
        )
    )


def site_bars(dataset: xr.Dataset, metric: str) -> hv.Overlay:
    """One metric at every site with its interval and, where stored, its null: `/metrics/site` (metric, site)."""
    row = dataset.sel(metric=metric)
    sites = [plain(s) for s in row["site"].values]
    keep = np.isfinite(row["value"].values)
    rank = np.arange(int(keep.sum()), dtype=float)
    low, high = row.get("ci_low", row["value"]).values[keep], row.get("ci_high", row["value"]).values[keep]
    null = row["null_mean"].values[keep] if "null_mean" in row else np.full(len(rank), np.nan)
    frame = pd.DataFrame(
        {
            "x0": rank - 0.34,
            "y0": 0.0,
            "x1": rank + 0.34,
            "y1": row["value"].values[keep],
            "site": [s for s, k in zip(sites, keep, strict=True) if k],
            "low": low,
            "high": high,
            "null": null,
        }
    )
    bars = hv.Rectangles(frame, ["x0", "y0", "x1", "y1"], ["site", "low", "high", "null"]).opts(
        color=BASE,
        alpha=0.85,
        line_color=None,
        tools=["hover"],
        hover_tooltips=tooltips(
            [
                ("site", "site"),
                ("value", "@y1{0.000}"),
                ("95 % interval", "@low{0.000} to @high{0.000}"),
                ("null", "@null{0.000}"),
            ]
        ),
        backend="bokeh",
    )
    layers: list[Any] = [bars, hv.Segments((rank, low, rank, high)).opts(color=TEXT, line_width=2, backend="bokeh")]
    if np.isfinite(null).any():
        layers.append(
            hv.Segments((rank - 0.34, null, rank + 0.34, null)).opts(
                color=ACCENT, line_width=2, line_dash="dashed", backend="bokeh"
            )
        )
    unit = str(row["units"].values) if "units" in row.coords else ""
    name = plain(metric.replace("_", " "))
    return hv.Overlay(layers).opts(
        **options(
            240,
            title=name.capitalize(),
            xlabel="site",
            ylabel=plain(unit) if unit not in ("", "1") else name,
            xticks=list(enumerate(_short(list(frame["site"])))),
            xrotation=0 if len(frame) < 8 else 45,
            show_grid=True,
            gridstyle=_ONLY_Y,
        )
    )


def graph_effects(dataset: xr.Dataset) -> hv.Overlay:
    """Measured beside known causal effects between factors: `/effects/graph` (kind, cause, outcome).

    One row per cause and outcome, the largest known total effect on top; in it one dot with its 95 % interval per kind,
    and a grey tick at the known value.
    """
    names = ["known", "measured", "measured_low", "measured_high"]
    frame = dataset[names].to_dataframe().reset_index().dropna(subset=["known", "measured"])
    frame = frame[frame["cause"] != frame["outcome"]].copy()
    if frame.empty:
        return hv.Overlay([empty("No effect between factors was measured.")])
    frame["row"] = frame["cause"].map(plain) + " on " + frame["outcome"].map(plain)
    size = frame["known"].abs().groupby(frame["row"]).max().sort_values()
    kinds = list(dict.fromkeys(frame["kind"]))
    frame["y"] = frame["row"].map({row: i for i, row in enumerate(size.index)}) - 0.24 * (
        frame["kind"].map(kinds.index) - (len(kinds) - 1) / 2
    )
    layers: list[Any] = [hv.VLine(0).opts(color=DEAD, line_width=1, line_dash="dashed", backend="bokeh")]
    for colour, kind in zip(CATEGORICAL, kinds, strict=False):
        part = frame[frame["kind"] == kind]
        layers.append(
            hv.Segments((part["measured_low"], part["y"], part["measured_high"], part["y"])).opts(
                color=colour, line_width=3, alpha=0.55, backend="bokeh"
            )
        )
        layers.append(
            hv.Points(part, ["measured", "y"], ["kind", "row", "known", *names[2:]], label=plain(kind)).opts(
                color=colour,
                size=7,
                tools=["hover"],
                hover_tooltips=tooltips(
                    [
                        ("effect", "row"),
                        ("kind", "kind"),
                        ("known", "@known{0.000}"),
                        ("measured", "@measured{0.000}"),
                        ("95 % interval", "@measured_low{0.000} to @measured_high{0.000}"),
                    ]
                ),
                backend="bokeh",
            )
        )
    layers.append(
        hv.Segments((frame["known"], frame["y"] - 0.13, frame["known"], frame["y"] + 0.13), label="known").opts(
            color=TEXT, line_width=2.5, backend="bokeh"
        )
    )
    return hv.Overlay(layers).opts(
        **options(
            90 + 34 * len(size),
            title="Effects between factors",
            xlabel=label(dataset["measured"]),
            ylabel="",
            yticks=list(enumerate(size.index)),
            ylim=(-0.6, len(size) - 0.4),
            legend_position="right",
            show_grid=True,
            gridstyle={"ygrid_line_color": None},
        )
    )


def _short(sites: list[str]) -> list[str]:
    """Last parts of site names, where those tell the sites apart; the hover has them whole."""
    last = [s.rpartition(".")[2] for s in sites]
    return last if len(set(last)) == len(last) else sites
