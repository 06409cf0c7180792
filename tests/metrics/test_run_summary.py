from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cvi_widgets.errors import StoreError
from cvi_widgets.metrics import summarise

FACTORS = ("shape", "posX", "posY")
VALUES = {"shape": np.arange(3.0), "posX": np.linspace(0, 1, 8), "posY": np.linspace(0, 1, 8)}


@pytest.fixture
def stored() -> dict[str, xr.Dataset]:
    """Data sets of a run in which latent 0 is posX, latent 1 posY, latent 2 noise, latent 3 dead."""
    rng = np.random.default_rng(0)
    n, pairs, examples = 600, 60, 50
    classes = np.stack([rng.integers(0, len(VALUES[f]), n) for f in FACTORS], axis=1)
    mu = rng.normal(size=(n, 4)) * [0.3, 0.6, 1, 0.01]
    mu[:, 0] += 3 * VALUES["posX"][classes[:, 1]]
    mu[:, 1] += 3 * VALUES["posY"][classes[:, 2]]
    delta = rng.normal(size=(3, pairs, 4)) * [0.05, 0.05, 0.05, 0.001]
    delta[1, :, 0] += 2
    delta[2, :, 1] -= 2
    delta[0, :, 2] += 1
    response = np.abs(rng.normal(size=(3, pairs, 5))) * 0.01
    response[0, :, 0] += 1
    response[:, :, 1] += 1
    response[:, :, 2] = 0
    l2 = np.abs(rng.normal(5, 0.5, (examples, 4))) * [1, 1, 1, 0]
    slopes = rng.normal(0, 0.1, (examples, 4, 3))
    slopes[:, 0, 0] -= 8
    energy = np.zeros((4, 4, 4))
    energy[:3, 0, 0], energy[1], energy[3] = 1, 1, 1
    ces = {"ces_l2": l2.mean(0), "ces_rms": l2.mean(0) / 4, "specificity": np.array([1.0, 0, 1, 0])}
    latent = {
        f"{name}{end}": (("latent",), value + shift)
        for name, value in ces.items()
        for end, shift in (("", 0), ("_low", -0.1), ("_high", 0.1))
    }
    latent |= {
        "l2": (("example", "latent"), l2),
        "slope_example": (("example", "latent", "readout"), slopes),
        "energy": (("latent", "y", "x"), energy),
    }
    return {
        "observations": xr.Dataset(
            {"index": ("example", np.arange(n)), "factor_class": (("example", "factor"), classes)},
            {"factor": list(FACTORS)},
        ),
        "posterior": xr.Dataset(
            {
                "mu": (("example", "latent"), mu),
                "logvar": (("example", "latent"), np.zeros((n, 4))),
                "reconstruction": ("example", rng.normal(75, 10, n)),
                "kl": (("example", "latent"), np.abs(rng.normal(2, 0.2, (n, 4)))),
            }
        ),
        "effects/input": xr.Dataset(
            {
                "delta_mu_pair": (("factor", "pair", "latent"), delta),
                "response_pair": (("factor", "pair", "unit"), response),
                "sd_mu": ("latent", mu.std(0)),
            },
            {
                "factor": list(FACTORS),
                "site": ("unit", ["encoder.conv0"] * 3 + ["latent.mu"] * 2),
                "channel": ("unit", [0, 1, 2, 0, 1]),
            },
        ),
        "effects/latent": xr.Dataset(
            latent, {"readout": ["centroid_x", "centroid_y", "area"]}, attrs={"n_pixels": 16, "seed": 0}
        ),
    }


@pytest.fixture
def tables(stored) -> dict[str, xr.Dataset]:
    return summarise(stored, VALUES, draws=300)


def test_headline_values_are_those_planted(tables, stored):
    metrics = tables["metrics/run"]
    value = {str(m): float(metrics["value"].sel(metric=m)) for m in metrics["metric"].values}
    assert value["reconstruction_nats"] == pytest.approx(float(stored["posterior"]["reconstruction"].mean()))
    assert value["kl_nats"] == pytest.approx(float(stored["posterior"]["kl"].sum("latent").mean()))
    assert value["active_latents"] == 3
    # The dead latent has effect 0 and would pull the mean down by a quarter.
    l2 = stored["effects/latent"]["l2"].values
    assert value["ces_l2_mean"] == pytest.approx(l2[:, :3].mean())
    assert value["ces_rms_mean"] == pytest.approx(l2[:, :3].mean() / 4)
    assert value["specificity_mean"] == pytest.approx(2 / 3)
    assert 0.85 < value["position_r2_posX"] < 0.95
    assert value["position_r2_posY"] < value["position_r2_posX"]
    assert value["position_r2"] == value["position_r2_posX"]
    assert value["position_shift_px"] == pytest.approx(8, abs=0.1)
    assert value["monosemantic_share"] == pytest.approx(0.5)
    assert value["dead_units"] == 1
    assert metrics.attrs["dead_latents"] == "3"


def test_every_value_has_an_interval_a_convention_and_units(tables):
    for path, table in tables.items():
        assert set(table.data_vars) == {"value", "ci_low", "ci_high", "null_mean", "null_sd", "p"}, path
        assert all(len(str(c)) > 10 for c in table["convention"].values)
        assert all(str(u) for u in table["units"].values)
        defined = table["ci_low"].notnull()
        slack = 1e-3 * np.abs(table["value"]) + 1e-6
        held = (table["ci_low"] <= table["value"] + slack) & (table["value"] <= table["ci_high"] + slack)
        # Correlations of noisy profiles are biased away from zero in resamples, so M may leave its percentile interval.
        held = held.where(~table["metric"].str.startswith("modularity"), True)
        assert held.where(defined, True).all(), path
        assert table.attrs["n_examples"] == 600
        assert table.attrs["n_pairs"] == 60
    headline = tables["metrics/run"]
    without = {str(m) for m in headline["metric"].values[headline["ci_low"].isnull().values]}
    assert without == {"dead_units"}


def test_nulls_stand_where_they_mean_something(tables):
    metrics = tables["metrics/run"]
    with_null = {str(m) for m in metrics["metric"].values[metrics["p"].notnull().values]}
    assert with_null == {
        "dci_disentanglement",
        "dci_completeness",
        "dci_informativeness",
        "mig",
        "sap",
        "explicitness",
        "modularity_mu",
        "modularity_mu_normalised",
        "position_r2_posX",
        "position_r2_posY",
        "position_r2",
    }
    assert float(metrics["p"].sel(metric="position_r2")) == pytest.approx(1 / 301)
    assert float(metrics["null_mean"].sel(metric="position_r2")) < 0.02
    m, null = (float(metrics[v].sel(metric="modularity_mu")) for v in ("value", "null_mean"))
    assert float(metrics["value"].sel(metric="modularity_mu_normalised")) == pytest.approx((m - null) / (1 - null))


def test_metrics_of_latents_and_sites(tables, stored):
    latent, site = tables["metrics/latent"], tables["metrics/site"]
    np.testing.assert_allclose(latent["value"].sel(metric="active"), [1, 1, 1, 0])
    np.testing.assert_allclose(latent["value"].sel(metric="variance"), stored["posterior"]["mu"].values.var(0))
    assert int(latent["value"].sel(metric="r2_posX").argmax("latent")) == 0
    assert int(latent["value"].sel(metric="r2_posY").argmax("latent")) == 1
    assert float(latent["value"].sel(metric="specificity_published", latent=1)) == pytest.approx(
        1 / np.log(16), rel=1e-4
    )
    assert site["site"].values.tolist() == ["encoder.conv0", "latent.mu"]
    conv0 = site["value"].sel(site="encoder.conv0")
    mean = stored["effects/input"]["response_pair"].mean("pair").values
    np.testing.assert_allclose(
        conv0.sel(metric="polysemanticity"), (mean[:, :2] / mean[:, :2].max(0)).sum(0).mean(), rtol=1e-5
    )
    assert float(conv0.sel(metric="monosemantic_share")) == pytest.approx(0.5)
    assert float(conv0.sel(metric="dead_units")) == 1


def test_all_dead_latents_leave_nan_rather_than_an_average(stored):
    stored["posterior"]["mu"] = stored["posterior"]["mu"] * 1e-3
    metrics = summarise(stored, VALUES, draws=100)["metrics/run"]["value"]
    assert float(metrics.sel(metric="active_latents")) == 0
    for name in ("ces_rms_mean", "specificity_mean", "modularity_mu"):
        assert np.isnan(metrics.sel(metric=name)), name


def test_data_without_positions_has_no_position_metrics(stored):
    names = summarise(stored, {"shape": VALUES["shape"]}, draws=100)["metrics/run"]["metric"].values.tolist()
    assert not [n for n in names if n.startswith("position")]


def test_the_same_seed_gives_the_same_tables(stored):
    first, again = summarise(stored, VALUES, draws=100), summarise(stored, VALUES, draws=100)
    for path in first:
        xr.testing.assert_identical(first[path], again[path])
    other = summarise(stored, VALUES, draws=100, seed=1)
    assert not other["metrics/run"]["ci_low"].equals(first["metrics/run"]["ci_low"])


def test_a_missing_data_set_is_named(stored):
    del stored["effects/latent"]
    with pytest.raises(StoreError, match="metrics need /effects/latent"):
        summarise(stored, VALUES)
