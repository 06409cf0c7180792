"""Views draw the numbers they were given: read back from the elements, without pixels."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import HoverTool, LinearColorMapper, Title
from hypothesis import given, settings
from hypothesis import strategies as st

from cvi_widgets import views
from cvi_widgets.views.style import SCHEMES


@pytest.fixture(scope="session")
def groups(run: Any) -> Any:
    return lambda name: run.results[name].to_dataset()


def test_factor_by_latent_has_one_cell_per_pair_with_its_interval(groups: Any) -> None:
    dataset = groups("effects/input")
    frame = views.factor_by_latent(dataset).dframe()
    assert len(frame) == 5 * 10
    for _, cell in frame.iterrows():
        there = {"factor": cell["factor"], "latent": int(cell["latent"])}
        assert cell["value"] == pytest.approx(float(dataset["delta_mu"].sel(there)))
        assert cell["low"] == pytest.approx(float(dataset["delta_mu_low"].sel(there)))
        assert cell["high"] == pytest.approx(float(dataset["delta_mu_high"].sel(there)))
        assert cell["n"] == 64
    assert sorted(set((frame["x0"] + frame["x1"]) / 2)) == list(range(10))


def test_effect_on_factors_shows_what_was_read(groups: Any) -> None:
    dataset = groups("effects/latent")
    frame = views.effect_on_factors(dataset).dframe()
    # posY is not read: an empty row would look like no effect.
    assert set(frame["factor"]) == {"shape", "scale", "orientation", "posX"}
    assert len(frame) == 4 * 10
    cell = frame[(frame["factor"] == "scale") & (frame["latent"] == 3)].iloc[0]
    stored = dataset.sel(factor="scale", latent=3)
    assert cell["value"] == pytest.approx(float(stored["ces_factor"]))
    assert cell["high"] == pytest.approx(float(stored["ces_factor_high"]))


def test_factor_by_latent_marks_dead_latents(groups: Any) -> None:
    active = np.arange(10) % 2 == 0
    element = views.factor_by_latent(groups("effects/input").assign(active=("latent", active)))
    ticks = dict(hv.Store.lookup_options("bokeh", element, "plot").kwargs["xticks"])
    assert ticks[2] == "z2" and ticks[3] == "z3†"


def test_input_response_shows_shares_and_keeps_every_unit(groups: Any) -> None:
    dataset = groups("effects/input")
    frame = views.input_response(dataset, "encoder.conv1").dframe()
    assert sorted(frame[frame["factor"] == "posX"]["channel"]) == list(range(64))
    assert frame.groupby("channel")["value"].sum().to_numpy() == pytest.approx(np.ones(64))
    stored = dataset["response"].isel(unit=np.flatnonzero(dataset["site"].values == "encoder.conv1"))
    cell = frame[(frame["channel"] == 7) & (frame["factor"] == "scale")].iloc[0]
    assert cell["effect"] == pytest.approx(float(stored.sel(factor="scale").values[7]))


def test_input_response_groups_units_by_their_factor(groups: Any) -> None:
    frame = views.input_response(groups("effects/input"), "encoder.conv2").dframe().sort_values("x0")
    strongest = frame.loc[frame.groupby("x0")["value"].idxmax(), "factor"].to_list()
    changes = sum(a != b for a, b in itertools.pairwise(strongest))
    assert changes == len(set(strongest)) - 1


def test_dead_units_give_no_share_and_no_error(groups: Any) -> None:
    dataset = groups("effects/input").copy(deep=True)
    dataset["response"][:, :] = 0.0
    assert (views.input_response(dataset, "encoder.conv0").dframe()["value"] == 0).all()


def test_patching_map_ranks_units_within_sites(groups: Any) -> None:
    dataset = groups("effects/patching")
    frame = views.patching_map(dataset).dframe()
    assert len(frame) == dataset.sizes["unit"]
    for site, part in frame.groupby("site"):
        row = part.sort_values("x0")
        assert (np.diff(row["value"]) <= 0).all()
        assert row["x0"].min() == 0 and row["x1"].max() == pytest.approx(100)
        stored = dataset["transfer"].values[dataset["site"].values == site]
        assert sorted(row["value"]) == pytest.approx(sorted(stored))


def test_diverging_maps_are_centred_on_zero(groups: Any) -> None:
    for element in (
        views.patching_map(groups("effects/patching")),
        views.mediation_map(groups("effects/mediation"), "encoder.conv0"),
    ):
        low, high = hv.Store.lookup_options("bokeh", element, "plot").kwargs["clim"]
        assert low == -high < 0


def test_palettes_order_values_by_lightness_alone_and_rest_at_zero() -> None:
    for scheme in SCHEMES.values():
        assert abs(_luma(scheme["sequential"][0]) - _luma(scheme["diverging"][127])) < 3
    lightness = {name: [_luma(c) for c in s["sequential"]] for name, s in SCHEMES.items()}
    assert (np.diff(lightness["light"]) <= 1).all() and lightness["light"][-1] < 80 < 220 < lightness["light"][0]
    assert (np.diff(lightness["dark"]) >= -1).all() and lightness["dark"][0] < 60 < 200 < lightness["dark"][-1]


def _luma(colour: str) -> float:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_mediation_map_holds_signed_shares(groups: Any) -> None:
    dataset = groups("effects/mediation")
    frame = views.mediation_map(dataset, "latent.mu").dframe()
    here = dataset["site"].values == "latent.mu"
    assert sorted(frame["value"]) == pytest.approx(sorted(dataset["mediated"].values[here].ravel()))
    assert frame["n"].unique().tolist() == [64]


def test_ces_bars_go_from_strong_to_weak_and_grey_the_dead(groups: Any) -> None:
    dataset = groups("effects/latent")
    bars = views.ces_bars(dataset).get(0).dframe()
    assert (np.diff(bars["y1"]) <= 0).all()
    assert sorted(bars["y1"]) == pytest.approx(sorted(dataset["ces_l2"].values))
    dead = bars["latent"].str.endswith("†")
    assert dead.sum() == 5 and set(bars[dead]["colour"]).isdisjoint(bars[~dead]["colour"])
    whiskers = views.ces_bars(dataset).get(1).dframe()
    assert whiskers.iloc[:, 1].to_numpy() == pytest.approx(bars["low"].to_numpy())


def test_position_panel_names_only_what_moves(groups: Any) -> None:
    dataset = groups("effects/latent")
    overlay = views.position_panel(dataset, "centroid_x")
    labels = [e.label for e in overlay.traverse(lambda e: e, [hv.Curve]) if e.label]
    assert labels == ["z0"]
    curve = next(e for e in overlay.traverse(lambda e: e, [hv.Curve]) if e.label == "z0").dframe()
    assert curve["shift"].to_numpy() == pytest.approx(
        dataset["readout_shift"].sel(latent=0, readout="centroid_x").values
    )
    band = overlay.traverse(lambda e: e, [hv.Area])[0].dframe()
    assert (band["low"] <= curve["shift"]).all() and (curve["shift"] <= band["high"]).all()


def test_position_panel_without_active_latents_says_so(groups: Any) -> None:
    dead = groups("effects/latent").assign(active=("latent", np.zeros(10, bool)))
    assert "No latent is active" in str(views.position_panel(dead, "centroid_x").data)


def test_training_curves_carry_every_stored_point(groups: Any) -> None:
    dataset = groups("training")
    curves = {e.label: e.dframe() for e in views.training_curves(dataset).traverse(lambda e: e, [hv.Curve])}
    assert set(curves) == {"loss", "reconstruction"}
    assert curves["loss"]["value"].to_numpy() == pytest.approx(dataset["loss"].values)
    assert curves["loss"]["images"].to_list() == dataset["images"].values.tolist()


def test_kl_curves_name_only_latents_in_use(groups: Any) -> None:
    curves = views.kl_curves(groups("training")).traverse(lambda e: e, [hv.Curve])
    assert len(curves) == 10
    assert [c.label for c in curves if c.label] == ["z0", "z1", "z3", "z4", "z6"]


def test_site_bars_draw_values_and_nulls(groups: Any) -> None:
    dataset = groups("metrics/site").copy(deep=True)
    dataset["null_mean"][0, :] = 2.0
    overlay = views.site_bars(dataset, "polysemanticity")
    bars = overlay.get(0).dframe()
    assert bars["y1"].to_numpy() == pytest.approx(dataset["value"].sel(metric="polysemanticity").values)
    nulls = overlay.get(2).dframe()
    assert (nulls.iloc[:, 1] == 2.0).all()


def test_graph_effects_put_measured_beside_known(groups: Any) -> None:
    dataset = groups("effects/graph")
    points = views.graph_effects(dataset).traverse(lambda e: e, [hv.Points])
    assert {p.label for p in points} == {"total", "direct", "indirect"}
    total = next(p for p in points if p.label == "total").dframe().set_index("row")
    assert total.loc["shape on posX", "known"] == pytest.approx(0.94)
    assert total.loc["shape on posX", "measured"] == pytest.approx(
        float(dataset["measured"].sel(kind="total", cause="shape", outcome="posX"))
    )
    assert len(total) == 4


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(2, 9),
    st.integers(2, 9),
    st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_mosaic_puts_every_picture_in_its_place(r: int, c: int, channels: int, h: int, w: int, gap: int) -> None:
    images = np.random.default_rng(0).integers(2, 255, (r, c, channels, h, w)).astype(np.uint8)
    out = views.mosaic(images, gap)
    assert out.shape == (r * (h + gap) - gap, c * (w + gap) - gap, 4)
    assert (out[..., 3] == 255).sum() == r * c * h * w
    i, j = r - 1, c // 2
    tile = out[i * (h + gap) : i * (h + gap) + h, j * (w + gap) : j * (w + gap) + w, :3]
    assert np.array_equal(tile, np.moveaxis(np.broadcast_to(images[i, j], (3, h, w)), 0, -1))


def test_pictures_of_bits_floats_and_bytes_agree() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 1, 8, 8)).astype(np.uint8)
    assert np.array_equal(views.as_uint8(bits), views.as_uint8(bits.astype(np.float32)))
    assert np.array_equal(views.as_uint8(bits), views.as_uint8(bits * 255))


def test_traversal_grid_has_a_row_per_latent(groups: Any) -> None:
    dataset = groups("effects/latent")
    element = views.traversal_grid(dataset, shown=2)
    top = element.dimension_values("R", flat=False)
    frame = dataset["traversal"].isel(shown=2, latent=0, frame=0, channel=0).values
    # HoloViews gives rows from the bottom up.
    assert np.array_equal(top[::-1][:64, :64], frame)


def test_every_view_renders_titled_and_with_hovers(run: Any, synthetic: ModuleType, groups: Any) -> None:
    index = np.arange(4) * 1000
    codes = run.model.code(run.data.values(index))
    elements = [
        views.training_curves(groups("training")),
        views.kl_curves(groups("training")),
        views.ces_bars(groups("effects/latent")),
        views.factor_by_latent(groups("effects/input")),
        views.effect_on_factors(groups("effects/latent")),
        views.input_response(groups("effects/input"), "encoder.conv0"),
        views.patching_map(groups("effects/patching")),
        views.mediation_map(groups("effects/mediation"), "encoder.conv0"),
        views.position_panel(groups("effects/latent"), "centroid_y"),
        views.site_bars(groups("metrics/site"), "polysemanticity"),
        views.graph_effects(groups("effects/graph")),
    ]
    for element in elements:
        figure = hv.render(element, backend="bokeh")
        assert any(t.text for t in figure.select({"type": Title}))
        hovers = list(figure.select({"type": HoverTool}))
        assert hovers and any("value" in str(h.tooltips) or "95 %" in str(h.tooltips) for h in hovers)
    for element in (
        views.image_grid(run.data.images(index), run.model.decode(codes)),
        views.traversal_grid(groups("effects/latent")),
    ):
        assert hv.render(element, backend="bokeh").select({"type": Title})


def test_names_from_data_cannot_ask_bokeh_for_a_tex_renderer(groups: Any) -> None:
    dataset = groups("effects/input")
    renamed = dataset.assign_coords(factor=[f"$${f}$$" for f in dataset["factor"].values])
    figure = hv.render(views.factor_by_latent(renamed), backend="bokeh")
    assert "$$" not in str(figure.yaxis[0].major_label_overrides)
    assert any(isinstance(m, LinearColorMapper) for m in figure.select({"type": LinearColorMapper}))


def test_missing_intervals_fall_back_to_the_value() -> None:
    dataset = xr.Dataset({"ces_l2": ("latent", [2.0, 1.0])}, {"latent": [0, 1]})
    bars = views.ces_bars(dataset).get(0).dframe()
    assert (bars["low"] == bars["y1"]).all() and (bars["high"] == bars["y1"]).all()
