"""Lines and bands: training, information per latent, and what setting a latent does to the picture's position."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import NumeralTickFormatter

from cvi_widgets.views.style import (
    ACCENT,
    BASE,
    CATEGORICAL,
    DEAD,
    actives,
    empty,
    interval,
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
    curves = [
        _step_curve(images, dataset[name].values, name).opts(color=colour, line_width=2, backend="bokeh")
        for name, colour in zip(shown, (BASE, ACCENT), strict=False)
    ]
    return hv.Overlay(curves).opts(
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


def kl_curves(dataset: xr.Dataset) -> hv.Overlay:
    """Information each latent carries against images seen: `/training` `kl_latent(step, latent)`.

    Latents that end below 0.1 nats are grey and not in the legend.
    """
    array = dataset["kl_latent"].transpose("step", "latent")
    images, final = dataset["images"].values, array.values[-1]
    order = np.argsort(-final)
    curves = []
    for rank, z in enumerate(order):
        alive = final[z] > 0.1
        name = latent_name(array["latent"].values[z])
        curves.append(
            _step_curve(images, array.values[:, z], name, legend=bool(alive)).opts(
                color=CATEGORICAL[rank % len(CATEGORICAL)] if alive else DEAD,
                line_dash="solid" if rank < len(CATEGORICAL) or not alive else "dashed",
                line_width=2 if alive else 1,
                backend="bokeh",
            )
        )
    return hv.Overlay(curves).opts(
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


def position_panel(dataset: xr.Dataset, readout: str, highlight: int = 3) -> hv.Overlay:
    """Shift of one image read-out against the value a latent is set to: `/effects/latent` `readout_shift`, `slope`.

    Bands are 95 % intervals. The `highlight` active latents with the steepest slopes are coloured and named, as far as
    they reach a tenth of the steepest; the others are grey lines.
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
        top = rank < highlight and slope[z] >= 0.1 * slope[order[0]]
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
            hv.Curve(
                frame, "value", ["shift", "low", "high", "latent", "n"], label=frame["latent"][0] if top else ""
            ).opts(
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
    rising = float(np.nan_to_num(dataset["slope"].sel(readout=readout).values[order[0]])) >= 0
    words = {"centroid_x": "shift to the right", "centroid_y": "shift downwards", "area": "change of area"}
    return hv.Overlay(lines).opts(
        **options(
            280,
            title=words.get(readout, plain(readout)).capitalize(),
            xlabel="value the latent is set to",
            ylabel=f"{words.get(readout, plain(readout))} (px)",
            legend_position="top_left" if rising else "top_right",
            show_grid=True,
            show_legend=True,
        )
    )


def _step_curve(images: Any, values: Any, name: str, legend: bool = True) -> hv.Curve:
    frame = pd.DataFrame({"images": images, "value": values, "term": name})
    return hv.Curve(frame, "images", ["value", "term"], label=name if legend else "").opts(
        tools=["hover"],
        hover_tooltips=tooltips([("term", "term"), ("images", "@images{0,0}"), ("nats", "@value{0.00}")]),
        backend="bokeh",
    )


def _thousands() -> NumeralTickFormatter:
    return NumeralTickFormatter(format="0a")
