"""Effects measured on images equal the known ones, and their intervals say what they promise."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from cvi_widgets import data
from cvi_widgets.data import BytePixels, CausalData, FactorGrid, GridData, Linear, Uniform
from cvi_widgets.errors import DataError

VARIANTS = ["linear", "nonlinear"]


@pytest.mark.parametrize("scm", VARIANTS)
def test_measured_effects_equal_the_known_ones_within_their_intervals(scm: str) -> None:
    causal = data.load("scm-dsprites", scm=scm)
    found = data.measure_effects(causal, n=1000, seed=0)
    apart = found.known.where(found.known.notnull())
    cells = found.known.notnull()
    inside = (apart >= found.simultaneous_low) & (apart <= found.simultaneous_high)
    assert bool((inside | ~cells).all())
    # a table of nothing but wide intervals would pass as well
    assert float((found.simultaneous_high - found.simultaneous_low).max()) < 1.5
    assert float(abs(found.known).max()) > 9
    strong = found.sel(kind="indirect", cause="orientation", outcome="posX")
    assert strong.measured_low * strong.measured_high > 0


@pytest.mark.parametrize("scm", VARIANTS)
def test_intervals_cover_as_often_as_they_say(scm: str) -> None:
    causal = data.load("scm-dsprites", scm=scm)
    runs = [data.measure_effects(causal, n=200, seed=seed) for seed in range(60)]
    moving = (runs[0].known != 0) & runs[0].known.notnull()
    pointwise = np.array([((r.known >= r.measured_low) & (r.known <= r.measured_high)).values[moving] for r in runs])
    together = [
        bool((((r.known >= r.simultaneous_low) & (r.known <= r.simultaneous_high)) | ~moving).all()) for r in runs
    ]
    # Each effect on its own: 60 independent seeds.
    fewest = stats.binom.ppf(1e-4 / pointwise.shape[1], 60, 0.95)
    assert pointwise.sum(axis=0).min() >= fewest
    # All of them: not exact either way. Effects of one cause share units, so the variance allows for 7 alike.
    assert abs(pointwise.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 * 7 / pointwise.size)
    assert sum(together) >= stats.binom.ppf(1e-4, 60, 0.95)


def test_what_has_no_path_is_measured_as_exactly_nothing() -> None:
    found = data.measure_effects(data.load("scm-dsprites"), n=64, seed=3)
    for cause in ("shape", "posX", "posY"):
        cell = found.sel(cause=cause)
        for name in ("known", "measured", "measured_low", "measured_high", "simultaneous_high"):
            assert float(abs(cell[name]).max()) == 0
    assert float(found.measured_high.sel(kind="direct", cause="orientation", outcome="posY")) == 0


def test_effects_are_read_off_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    causal = data.load("scm-dsprites")
    before = data.measure_effects(causal, n=100, seed=0)
    assert "centroid" in before.attrs["readout"]
    real = GridData.images

    def moved_right_when_large(self: GridData, index: np.ndarray, dtype: str = "uint8") -> np.ndarray:
        images = real(self, index, dtype)
        large = self.factors(index)[:, 1] >= 3
        return np.where(large[:, None, None, None], np.roll(images, 5, axis=-1), images)

    monkeypatch.setattr(GridData, "images", moved_right_when_large)
    after = data.measure_effects(causal, n=100, seed=0)
    shift = (after.measured - before.measured).sel(kind="total", cause="scale")
    assert float(shift.sel(outcome="posX")) > 4
    assert float(shift.sel(outcome="posY")) == 0


def test_the_table_says_what_it_holds() -> None:
    found = data.measure_effects(data.load("scm-dsprites", scm="nonlinear"), n=20, seed=0)
    assert found.known.dims == ("kind", "cause", "outcome")
    assert found.outcome.values.tolist() == ["scale", "posX", "posY"]
    assert found.cause.values.tolist() == ["shape", "scale", "orientation", "posX", "posY"]
    assert found.low.values.tolist() == [0, 1, 10, 8, 8]
    assert found.high.values.tolist() == [2, 4, 29, 23, 23]
    assert all({"long_name", "units"} <= set(v.attrs) for v in found.data_vars.values())
    assert np.isnan(found.known.sel(cause="posX", outcome="posX")).all()
    assert "orientation -> posX" in found.attrs["edges"]
    assert "posY = 21 - 0.6 scale^2 + 2.5 noise" in found.attrs["mechanisms"]
    assert found.identical(data.measure_effects(data.load("scm-dsprites", scm="nonlinear"), n=20, seed=0))
    with pytest.raises(DataError, match="n is 1; intervals need at least 2 units"):
        data.measure_effects(data.load("scm-dsprites"), n=1)


def test_any_grid_and_graph_can_be_measured_and_rare_changes_are_not_denied() -> None:
    grid = FactorGrid({"a": np.arange(3), "b": np.arange(9)})
    images = np.arange(27, dtype=np.uint8).reshape(27, 1, 1, 1)
    plain = GridData("toy", grid, BytePixels(images), provenance="Drawn in this test.", licence="CC0-1.0")
    # a raises b by exactly 4, except where the grid's end cuts it off: once in about 740 units
    mechanisms = {"a": Uniform(), "b": Linear(2, 0.5, {"a": 2})}
    causal = CausalData(plain, nx.DiGraph([("a", "b")]), mechanisms, name="toy-scm")
    found = data.measure_effects(causal, n=30, seed=0).sel(kind="total", cause="a", outcome="b")
    assert float(found.measured) == 4
    assert 3.9 < float(found.known) < 4
    assert float(found.measured_low) < float(found.known) < float(found.measured_high)
    assert "not read off pixels" in data.measure_effects(causal, n=30, seed=0).attrs["readout"]
