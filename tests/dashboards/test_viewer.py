"""What the viewer does, without a browser."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import panel as pn
import pytest
from bokeh.models import ColumnDataSource

from cvi_widgets.dashboards import dashboard
from cvi_widgets.dashboards.viewer import scrubber


def _images(view: Any) -> list[np.ndarray]:
    panes = view.select(pn.pane.Bokeh)
    sources = [next(iter(p.object.select({"type": ColumnDataSource}))) for p in panes]
    return [np.array(s.data["image"][0]) for s in sources]


def test_pictures_are_the_models_own(run: Any) -> None:
    view = scrubber(run)
    edited, _original, untouched, difference = _images(view)
    own = run.results["posterior"]["mu"].values[:1]
    assert untouched[::-1] == pytest.approx(run.model.decode(own.astype(np.float32))[0, 0], abs=1e-6)
    assert edited == pytest.approx(untouched, abs=1e-4) and np.abs(difference).max() < 1e-4
    slider = next(s for s in view.select(pn.widgets.FloatSlider) if s.label == "z0")
    slider.value = -2.0
    z = own.astype(np.float32).copy()
    z[0, 0] = -2.0
    edited, _, untouched_now, difference = _images(view)
    assert edited[::-1] == pytest.approx(run.model.decode(z)[0, 0], abs=1e-4)
    assert np.array_equal(untouched, untouched_now)
    assert difference == pytest.approx(edited - untouched, abs=1e-6)
    assert "z0 edited" in view.select(pn.pane.HTML)[-1].object


def test_a_discrete_code_has_no_sliders_and_says_why(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(run.model), "discrete", True, raising=False)
    view = scrubber(run)
    assert not view.select(pn.widgets.FloatSlider)
    assert "/effects/code" in view.object


def test_reset_and_example_bring_the_sliders_back(run: Any) -> None:
    view = scrubber(run)
    sliders = view.select(pn.widgets.FloatSlider)
    sliders[0].value = 2.5
    view.select(pn.widgets.Button)[0].clicks += 1
    codes = run.results["posterior"]["mu"].values
    assert sliders[0].value == pytest.approx(codes[0, 0], abs=1e-6)
    view.select(pn.widgets.IntSlider)[0].value = 5
    by_name = {s.label.rstrip("†"): s.value for s in sliders}
    assert [by_name[f"z{i}"] for i in range(10)] == pytest.approx(codes[5], abs=1e-6)
    assert "Nothing edited" in view.select(pn.pane.HTML)[-1].object


def test_dead_latents_are_folded_away_and_marked(run: Any) -> None:
    card = scrubber(run).select(pn.Card)[0]
    assert card.title == "5 dead latents" and card.collapsed
    assert {s.label for s in card.select(pn.widgets.FloatSlider)} == {"z2†", "z5†", "z7†", "z8†", "z9†"}


def test_tabs_hold_what_the_store_has(run: Any) -> None:
    tabs = dashboard(run).select(pn.Tabs)[0]
    assert tabs._names == ["Latents", "Strength", "Factors", "Patching", "Mediation", "Training", "Known graph"]


def test_setup_loads_once_and_inline() -> None:
    """In a process of its own: loading changes the state of Panel and HoloViews for good."""
    code = (
        "import panel as pn, holoviews as hv\n"
        "from cvi_widgets.dashboards import setup\n"
        "setup(); setup()\n"
        "assert pn.config.inline and hv.Store.current_backend == 'bokeh'\n"
        "print('ready')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("ready")
