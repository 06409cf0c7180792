"""The first viewer: latents on sliders with a live decode, and the stored maps beside them.

Pictures are updated through Bokeh column data sources, which is the fastest of the live paths; maps are drawn when
their tab is first opened.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, Protocol

import holoviews as hv
import numpy as np
import panel as pn
import xarray as xr
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.plotting import figure
from numpy.typing import NDArray

from cvi_widgets import views
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import FactorData
from cvi_widgets.errors import CviError
from cvi_widgets.views.style import DIVERGING, actives, latent_name

EXAMPLES = 64
"""Held-out images that can be chosen."""
_LARGE, _SMALL = 424, 200
_STYLE = "font: 14px/1.5 system-ui, sans-serif; margin: 0"


class RunLike(Protocol):
    """The members of a run that the viewer needs; `model` has `decode(z)`."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def results(self) -> xr.DataTree: ...
    @property
    def data(self) -> FactorData: ...
    @property
    def model(self) -> Any: ...


def dashboard(run: RunLike) -> pn.viewable.Viewable:
    """A viewer of `run`: shown inline as a cell's last value, or served by `cvi_widgets.dashboards.serve`."""
    scrub = _or_message(lambda: scrubber(run), "The latent scrubber")
    return pn.Column(
        pn.pane.HTML(
            f"<h2 style='{_STYLE}; font-size: 20px'>{escape(str(getattr(run, 'run_id', run.config.run_id)))}</h2>"
        ),
        pn.Tabs(("Latents", scrub), *_map_tabs(run.results), dynamic=True, sizing_mode="stretch_width"),
        sizing_mode="stretch_width",
        max_width=1160,
        margin=(12, 24),
    )


def scrubber(run: RunLike) -> pn.viewable.Viewable:
    """Sliders for every latent of a held-out image; untouched, edited and difference follow each move."""
    if getattr(run.model, "discrete", False):
        return _message(
            "This model's code is discrete: a slider would move what the quantiser snaps back. "
            "What exchanging codes does is stored in /effects/code."
        )
    posterior = run.results["posterior"].to_dataset()
    index = run.results["observations"].to_dataset()["index"].values[:EXAMPLES]
    codes = posterior["mu"].transpose("example", "latent").values[: len(index)].astype(np.float32)
    alive = _active(run.results, posterior)
    settings = run.config.intervention
    edited, original = _Screen("edited", _LARGE), _Screen("original")
    untouched, difference = _Screen("untouched"), _Screen("difference", signed=True)
    chooser = pn.widgets.IntSlider(label="Example", start=0, end=len(index) - 1, value=0, width=300)
    sliders = [
        pn.widgets.FloatSlider(
            label=latent_name(z, bool(a)),
            start=min(settings.low, float(np.floor(codes[:, i].min()))),
            end=max(settings.high, float(np.ceil(codes[:, i].max()))),
            step=0.05,
            value=float(codes[0, i]),
            format="0.00",
            width=300,
            stylesheets=[] if a else [":host { opacity: 0.55 }"],
        )
        for i, (z, a) in enumerate(zip(posterior["latent"].values, alive, strict=True))
    ]
    reset = pn.widgets.Button(label="Reset", width=110)
    telling = pn.pane.HTML("", min_height=24, sizing_mode="stretch_width")
    state = {"silent": False}

    def draw(*_: object) -> None:
        if state["silent"]:
            return
        own = codes[chooser.value]
        z = np.array([s.value for s in sliders], dtype=np.float32)
        base, now = _decode(run.model, np.stack([own, z]))
        edited.show(now)
        untouched.show(base)
        difference.show(now - base)
        # Sliders hold decimals, the code does not: what no one can see is no edit.
        touched = [s.label for s, v, o in zip(sliders, z, own, strict=True) if abs(v - o) > 0.006]
        far = float(np.sqrt(((now - base) ** 2).sum()))
        telling.object = (
            f"<p style='{_STYLE}'>{', '.join(touched) or 'Nothing'} edited. Distance from the untouched picture: "
            f"{far:.1f}.</p>"
        )

    def choose(*_: object) -> None:
        state["silent"] = True
        try:
            for slider, value in zip(sliders, codes[chooser.value], strict=True):
                slider.value = float(value)
        finally:
            state["silent"] = False
        original.show(run.data.images(index[[chooser.value]], dtype="float32")[0])
        draw()

    for slider in sliders:
        slider.param.watch(draw, "value")
    chooser.param.watch(choose, "value")
    reset.on_click(choose)
    choose()
    used = [s for s, a in zip(sliders, alive, strict=True) if a]
    unused = [s for s, a in zip(sliders, alive, strict=True) if not a]
    controls = pn.Column(chooser, *used, reset)
    if unused:
        few = f"{len(unused)} dead latent{'s' if len(unused) > 1 else ''}"
        controls.append(pn.Card(*unused, title=few, collapsed=True, width=320))
    others = pn.Column(pn.Row(original.pane, untouched.pane), difference.pane)
    return pn.Row(controls, pn.Column(pn.Row(edited.pane, others), telling), margin=(16, 0))


class _Screen:
    """A picture on a Bokeh figure whose pixels are exchanged without drawing the figure anew."""

    def __init__(self, title: str, side: int = _SMALL, *, signed: bool = False) -> None:
        self._signed = signed
        self._source = ColumnDataSource({"image": [np.zeros((2, 2), np.float32)], "dw": [1], "dh": [1]})
        plot = figure(width=side, height=side + 24, title=title, tools="", toolbar_location=None)
        plot.axis.visible = False
        plot.grid.visible = False
        plot.x_range.range_padding = plot.y_range.range_padding = 0
        glyph = {"image": "image", "x": 0, "y": 0, "dw": "dw", "dh": "dh", "source": self._source}
        if signed:
            mapper = LinearColorMapper(palette=DIVERGING, low=-1, high=1)
        else:
            mapper = LinearColorMapper(palette=[f"#{i:02x}{i:02x}{i:02x}" for i in range(256)], low=0, high=1)
        self._grey = plot.image(color_mapper=mapper, **glyph)
        self._colour = plot.image_rgba(**glyph)
        self._colour.visible = False
        self.pane = pn.pane.Bokeh(plot)

    def show(self, image: NDArray[np.float32]) -> None:
        """Exchange the picture for (channel, y, x): values in [0, 1], or in [-1, 1] on a signed screen."""
        # Bokeh draws rows from the bottom up.
        pixels = np.asarray(image, np.float32)[:, ::-1]
        rgb = len(pixels) == 3 and not self._signed
        self._grey.visible, self._colour.visible = not rgb, rgb
        if rgb:
            opaque = np.full((*pixels.shape[1:], 4), 255, np.uint8)
            opaque[..., :3] = np.rint(np.clip(np.moveaxis(pixels, 0, -1), 0, 1) * 255)
            array: NDArray[Any] = opaque.view(np.uint32)[..., 0]
        else:
            array = np.ascontiguousarray(pixels.mean(0))
        self._source.data = {"image": [array], "dw": [1], "dh": [1]}


def _map_tabs(results: xr.DataTree) -> list[tuple[str, pn.viewable.Viewable]]:
    """A tab per kind of stored effect; a group that is missing is said to be."""
    kinds: dict[str, tuple[str, Callable[[xr.Dataset], list[hv.Dimensioned]]]] = {
        "Strength": ("effects/latent", _strength),
        "Factors": ("effects/input", lambda d: _inputs(d, alive)),
        "Patching": ("effects/patching", lambda d: [views.patching_map(d)]),
        "Mediation": ("effects/mediation", lambda d: [views.mediation_map(d, s) for s in views.sites_of(d)]),
        "Training": ("training", lambda d: [views.training_curves(d), views.kl_curves(d)]),
        "Known graph": ("effects/graph", lambda d: [views.graph_effects(d)]),
    }
    alive = results["effects/latent"].to_dataset().get("active") if "/effects/latent" in results.groups else None
    tabs = []
    for title, (group, make) in kinds.items():
        try:
            dataset = results[group].to_dataset()
        except KeyError:
            if group != "effects/graph":
                tabs.append((title, _message(f"The run's store has no /{group}.")))
            continue
        tabs.append((title, _or_message(lambda d=dataset, m=make: _column(m(d)), title)))  # type: ignore[misc]
    return tabs


def _strength(dataset: xr.Dataset) -> list[hv.Dimensioned]:
    moved = [r for r in dataset["readout"].values.astype(str) if r.startswith("centroid")]
    return [views.ces_bars(dataset), *(views.position_panel(dataset, r) for r in moved)]


def _inputs(dataset: xr.Dataset, alive: xr.DataArray | None) -> list[hv.Dimensioned]:
    if alive is not None:
        dataset = dataset.assign(active=("latent", alive.values))
    return [views.factor_by_latent(dataset), *(views.input_response(dataset, s) for s in views.sites_of(dataset))]


def _column(elements: list[hv.Dimensioned]) -> pn.Column:
    panes = [pn.pane.HoloViews(e, backend="bokeh", sizing_mode="stretch_width", linked_axes=False) for e in elements]
    return pn.Column(*panes, sizing_mode="stretch_width")


def _active(results: xr.DataTree, posterior: xr.Dataset) -> NDArray[np.bool_]:
    try:
        return actives(results["effects/latent"].to_dataset())
    except KeyError:
        return np.asarray(posterior["mu"].var("example").values > 0.01)


def _decode(model: Any, z: NDArray[np.float32]) -> NDArray[np.float32]:
    out = model.decode(z)
    return np.asarray(out.detach().cpu().numpy() if hasattr(out, "detach") else out, dtype=np.float32)


def _or_message(make: Callable[[], pn.viewable.Viewable], what: str) -> pn.viewable.Viewable:
    """What `make` gives, or, where the run lacks something, a sentence in its place; defects still raise."""
    try:
        return make()
    except KeyError as error:
        return _message(f"{what} cannot be shown: the run's store has no {error.args[0]!s}.")
    except CviError as error:
        return _message(f"{what} cannot be shown: {error}")


def _message(text: str) -> pn.pane.HTML:
    return pn.pane.HTML(
        f"<p role='note' style='{_STYLE}; padding: 12px 16px; border-left: 3px solid #b4541a'>{escape(text)}</p>",
        sizing_mode="stretch_width",
    )
