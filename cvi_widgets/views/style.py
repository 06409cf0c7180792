"""What all views share: colours that colour-blind readers can tell apart, options, and words for labels.

Marks use mid-tones that reach a contrast of 3:1 on white and on near-black, backgrounds are transparent and text is
grey, so that a page can change its scheme under a plot; `SCHEMES` holds the palettes for either one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import holoviews as hv
import holoviews.plotting.bokeh  # registers the backend that every view's options are written for
import numpy as np
import xarray as xr
from bokeh.models import Axis, BasicTicker, ColorBar, Grid, HoverTool, Legend, Plot, Title
from bokeh.palettes import interp_palette

CATEGORICAL = ("#2a7fc4", "#d2691e", "#1a936f", "#b8609a", "#a3841a", "#6f6fd0")
"""Told apart under deuteranopia, protanopia and tritanopia; after Okabe and Ito, at one lightness."""
BASE, ACCENT, DEAD, TEXT = CATEGORICAL[0], CATEGORICAL[1], "#8a8f98", "#6b7280"

Scheme = Literal["light", "dark"]
SCHEMES: Mapping[Scheme, Mapping[str, list[str]]] = {
    "light": {
        "sequential": list(interp_palette(("#f1efe9", "#c3d8ec", "#74aadb", "#2a77ba", "#0a3a73"), 256)),
        "diverging": list(interp_palette(("#174f8c", "#7fb0dc", "#f1efe9", "#e6a274", "#9c4310"), 256)),
    },
    "dark": {
        "sequential": list(interp_palette(("#20242c", "#1f4a72", "#2f7ab6", "#74b5ea", "#dceffd"), 256)),
        "diverging": list(interp_palette(("#8cc4f7", "#2f6ca6", "#20242c", "#a15f30", "#f6ad78"), 256)),
    },
}
"""Zero is the colour nearest to the page in both schemes. The sequential map has one hue and lightness that only rises
or only falls; the diverging one goes from blue to orange, which no common colour blindness confuses."""

SEQUENTIAL, DIVERGING = SCHEMES["light"]["sequential"], SCHEMES["light"]["diverging"]


def options(height: int, **more: Any) -> dict[str, Any]:
    """Options of one figure: as wide as its place, `height` px high, no toolbar, no tool that catches a scroll."""
    return {
        "responsive": True,
        "height": height,
        "toolbar": None,
        "default_tools": [],
        "bgcolor": None,
        "shared_axes": False,
        "show_frame": False,
        "show_grid": False,
        "hooks": [finish],
        "backend": "bokeh",
        **more,
    }


def finish(plot: Any, element: Any) -> None:
    """HoloViews hook: transparent backgrounds, system fonts, hairline axes and the nearest mark's hover only."""
    figure = plot.state
    if not isinstance(figure, Plot):
        return
    font = "system-ui, sans-serif"
    figure.update(
        background_fill_color=None, border_fill_color=None, outline_line_color=None, min_border_right=12, min_width=0
    )
    for axis in figure.select({"type": Axis}):
        axis.update(
            axis_label_text_font=font,
            axis_label_text_font_style="normal",
            axis_label_text_font_size="12px",
            axis_label_text_color=TEXT,
            major_label_text_font=font,
            major_label_text_font_size="11.5px",
            major_label_text_color=TEXT,
            axis_line_color=None,
            major_tick_line_color=None,
            minor_tick_line_color=None,
        )
    for grid in figure.select({"type": Grid}):
        grid.grid_line_alpha = 0.22
    for title in figure.select({"type": Title}):
        title.update(text_font=font, text_font_size="13px", text_font_style="bold", text_color=TEXT)
    for legend in figure.select({"type": Legend}):
        legend.update(
            label_text_font=font,
            label_text_font_size="12px",
            label_text_color=TEXT,
            background_fill_color=None,
            border_line_color=None,
            spacing=0,
            padding=2,
        )
    for bar in figure.select({"type": ColorBar}):
        bar.update(
            background_fill_color=None,
            bar_line_color=None,
            major_tick_line_color=None,
            major_label_text_font=font,
            major_label_text_color=TEXT,
            major_label_text_font_size="11px",
            ticker=BasicTicker(desired_num_ticks=4),
            title_text_font=font,
            title_text_font_style="normal",
            title_text_font_size="11.5px",
            title_text_color=TEXT,
            width=9,
            padding=4,
        )
    for hover in figure.select({"type": HoverTool}):
        hover.update(point_policy="follow_mouse", attachment="vertical")


def plain(text: object) -> str:
    """Text from data for a plot's canvas; `$$` would make Bokeh fetch a TeX renderer."""
    return str(text).replace("$$", "$ $")


def label(array: xr.DataArray, units: bool = True) -> str:
    """`long_name (units)` of a variable, or its name."""
    name = str(array.attrs.get("long_name") or array.name).strip()
    unit = str(array.attrs.get("units", ""))
    return plain(f"{name} ({unit})" if units and unit not in ("", "1") else name)


def latent_name(latent: object, active: bool = True) -> str:
    """How a latent is written in every plot, dead ones said to be so."""
    return f"z{latent}" if active else f"z{latent}†"


def interval(dataset: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Low and high end of the 95 % interval of `name`; the value itself where none is stored."""
    value = dataset[name]
    return dataset.get(f"{name}_low", value), dataset.get(f"{name}_high", value)


def actives(dataset: xr.Dataset) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which latents are in use, shape (latent,): the stored flag, else all of them."""
    if "active" in dataset:
        return np.asarray(dataset["active"].values, dtype=bool)
    return np.ones(dataset.sizes["latent"], dtype=bool)


def sample_size(dataset: xr.Dataset) -> int:
    """How many pairs or examples the means of a data set are over; 0 when it does not say."""
    for name in ("pair", "example"):
        if f"n_{name}s" in dataset.attrs:
            return int(dataset.attrs[f"n_{name}s"])
        if name in dataset.sizes:
            return int(dataset.sizes[name])
    return 0


def symmetric(values: Any) -> tuple[float, float]:
    """Colour limits centred on zero."""
    finite = np.abs(np.asarray(values, dtype=float))
    top = float(np.nanmax(finite)) if np.isfinite(finite).any() else 1.0
    return (-(top or 1.0), top or 1.0)


def from_zero(values: Any) -> tuple[float, float]:
    """Colour limits of a quantity that cannot be negative."""
    finite = np.asarray(values, dtype=float)
    top = float(np.nanmax(finite)) if np.isfinite(finite).any() else 1.0
    return (0.0, top or 1.0)


def tooltips(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Hover rows; the names of columns are those of the view's own frame, never text from data."""
    return [(name, f"@{{{column}}}" if "@" not in column else column) for name, column in rows]


def empty(message: str, height: int = 120) -> hv.Text:
    """A sentence in place of a plot that has nothing to show."""
    return hv.Text(0.5, 0.5, message).opts(
        **options(height, xaxis=None, yaxis=None, xlim=(0, 1), ylim=(0, 1), color=TEXT)
    )
