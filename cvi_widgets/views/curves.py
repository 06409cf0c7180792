"""Lines, bars and bands: training, causal effect strength, position, polysemanticity and the known graph."""

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


def training_curves(dataset: xr.Dataset) -> hv.Overlay:
    """Reconstruction and loss against images seen: `/training` `reconstruction`, `loss` (step), logarithmic."""
    images = dataset["images"].values
    shown = [n for n in ("loss", "reconstruction") if n in dataset]
    curves = {
        name: hv.Curve(
            pd.DataFrame({"images": images, "value": dataset[name].values, "term": name}), "images", ["value", "term"]
        ).opts(
            color=colour, line_width=2, tools=["hover"], hover_tooltips=_step_rows("nats"), muted_alpha=0.2, backend="bokeh"
        )
        for name, colour in zip(shown, (BASE, ACCENT), strict=False)
    }
    return hv.NdOverlay(curves, "term").opts(
        **options(
            280,
            logy=True,
            title="Loss terms",
            xlabel="images seen",
            ylabel="nats per image",
            legend_position="top_right",
            show_grid=True,
            xformatter=_thousands(),
        )
    )


def kl_curves(dataset: xr.Dataset) -> hv.NdOverlay:
    """Information each latent carries against images seen: `/training` `kl_latent(step, latent)`, dead ones grey."""
    array = dataset["kl_latent"].transpose("step", "latent")
    images, final = dataset["images"].values, array.isel(step=-1).values
    order = np.argsort(-final)
    colours = {z: CATEGORICAL[i % len(CATEGORICAL)] for i, z in enumerate(order)}
    curves = {}
    for z in order:
        name = latent_name(array["latent"].values[z])
        frame = pd.DataFrame({"images": images, "value": array.values[:, z], "term": name})
        curves[name] = hv.Curve(frame, "images", ["value", "term"]).opts(
            color=colours[z] if final[z] > 0.1 else DEAD,
            line_dash="solid" if list(order).index(z) < len(CATEGORICAL) else "dashed",
            line_width=2 if final[z] > 0.1 else 1,
            tools=["hover"],
            hover_tooltips=_step_rows("nats"),
            backend="bokeh",
        )
    return hv.NdOverlay(curves, "latent", sort=False).opts(
        **options(
            280,
            title="KL of each latent",
            xlabel="images seen",
            ylabel="nats per image",
            legend_position="right",
            show_grid=True,
            xformatter=_thousands(),
        )
    )


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
            ylabel=label(array),
            xticks=list(enumerate(names)),
            show_grid=False,
            ylim=(0, 1.08 * float(np.nanmax(frame["high"])) if len(frame) and np.nanmax(frame["high"]) > 0 else 1),
        )
    )


def position_panel(dataset: xr.Dataset, readout: str, highlight: int = 3) -> hv.Overlay:
    """Shift of one image read-out against the value a latent is set to: `/effects/latent` `readout_shift`, `slope`.

    Bands are 95 % intervals. The `highlight` active latents with the steepest slopes are coloured and named, the others are grey lines.
    """
    array = dataset["readout_shift"].sel(readout=readout).transpose("latent", "value")
    low, high = (a.sel(readout=readout).transpose("latent", "value") for a in interval(dataset, "readout_shift"))
    alive = actives(dataset)
    slope = np.abs(np.nan_to_num(dataset["slope"].sel(readout=readout).values)) * alive
    order = np.argsort(-slope)
    lines: list[hv.Element] = []
    for rank in reversed(range(len(order))):
        z = int(order[rank])
        if not alive[z]:
            continue
        top = rank < highlight
        colour = CATEGORICAL[rank % len(CATEGORICAL)] if top else DEAD
        frame = pd.DataFrame(
            {
                "value": dataset["value"].values,
                "shift": array.values[z],
                "low": low.values[z],
                "high": high.values[z],
                "latent": latent_name(array["latent"].values[z]),
                "n": sample_size(dataset),
            }
        )
        if top:
            lines.append(
                hv.Area(frame, "value", ["low", "high"]).opts(
                    color=colour, alpha=0.22, line_color=None, backend="bokeh"
                )
            )
        lines.append(
            hv.Curve(frame, "value", ["shift", "low", "high", "latent", "n"], label=frame["latent"][0] if top else "").opts(
                color=colour,
                line_width=2.5 if top else 1,
                alpha=1.0 if top else 0.6,
                tools=["hover"],
                hover_tooltips=tooltips(
                    [
                        ("latent", "latent"),
                        ("value", "@value{0.0}"),
                        ("shift", "@shift{0.00}"),
                        ("95 % interval", "@low{0.00} to @high{0.00}"),
                        ("examples", "n"),
                    ]
                ),
                backend="bokeh",
            )
        )
    if not lines:
        return empty("No latent is active.")
    words = {"centroid_x": "shift to the right", "centroid_y": "shift downwards", "area": "change of area"}
    return hv.Overlay(lines).opts(
        **options(
            280,
            title=words.get(readout, plain(readout)).capitalize(),
            xlabel="value the latent is set to",
            ylabel=f"{words.get(readout, plain(readout))} (px)",
            legend_position="top_left",
            show_grid=True,
            show_legend=True,
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
            xticks=list(enumerate(frame["site"])),
            xrotation=0 if len(frame) < 5 else 30,
            show_grid=False,
        )
    )


def graph_effects(dataset: xr.Dataset) -> hv.Overlay:
    """Measured against known causal effects between factors, with intervals: `/effects/graph` (kind, cause, outcome)."""
    names = ["known", "measured", "measured_low", "measured_high"]
    frame = dataset[names].to_dataframe().reset_index().dropna(subset=["known", "measured"])
    frame = frame[frame["cause"] != frame["outcome"]]
    if frame.empty:
        return empty("No effect between factors was measured.")
    frame["cause"], frame["outcome"] = frame["cause"].map(plain), frame["outcome"].map(plain)
    ends = [float(frame[names].to_numpy().min()), float(frame[names].to_numpy().max())]
    layers: list[Any] = [
        hv.Curve([(e, e) for e in ends]).opts(color=DEAD, line_dash="dashed", line_width=1, backend="bokeh")
    ]
    for colour, (kind, part) in zip(CATEGORICAL, frame.groupby("kind", sort=False), strict=False):
        layers.append(
            hv.Segments((part["known"], part["measured_low"], part["known"], part["measured_high"])).opts(
                color=colour, line_width=2, alpha=0.7, backend="bokeh"
            )
        )
        layers.append(
            hv.Points(part, ["known", "measured"], ["kind", "cause", "outcome", *names[2:]], label=str(kind)).opts(
                color=colour,
                size=9,
                tools=["hover"],
                hover_tooltips=tooltips(
                    [
                        ("effect", "@cause on @outcome"),
                        ("kind", "kind"),
                        ("known", "@known{0.000}"),
                        ("measured", "@measured{0.000}"),
                        ("95 % interval", "@measured_low{0.000} to @measured_high{0.000}"),
                    ]
                ),
                backend="bokeh",
            )
        )
    return hv.Overlay(layers).opts(
        **options(
            340,
            title="Known and measured effects between factors",
            xlabel=f"known {label(dataset['known'])}",
            ylabel=f"measured {label(dataset['measured'])}",
            legend_position="top_left",
            show_grid=True,
        )
    )


def _step_rows(unit: str) -> list[tuple[str, str]]:
    return tooltips([("term", "term"), ("images", "@images{0,0}"), (unit, "@value{0.00}")])


def _thousands() -> Any:
    from bokeh.models import NumeralTickFormatter

    return NumeralTickFormatter(format="0a")
