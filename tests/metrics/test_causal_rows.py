"""Rows of a run from data sets whose answer is known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cvi_widgets.metrics.causal_rows import (
    decoder_rows,
    factor_rows,
    latent_factor_rows,
    mediation_rows,
    posterior_grid_rows,
    product_row,
)
from cvi_widgets.metrics.rows import Row
from cvi_widgets.metrics.standard import disentanglement_rows

ACTIVE = np.array([True, True, True, False])


def latents(effect, units=None):
    """40 examples whose latents have these effects (latent, factor), with noise of a hundredth."""
    rng = np.random.default_rng(0)
    per_example = np.asarray(effect, float)[None] * (1 + 0.01 * rng.normal(size=(40, 1, 1)))
    mean = per_example.mean(0)
    found = xr.Dataset(
        {
            "factor_example": (("example", "latent", "factor"), per_example),
            **{name: (("latent", "factor"), mean) for name in ("ces_factor", "ces_factor_low", "ces_factor_high")},
            "reader_r2": ("factor", [0.9, 0.8, 0.7]),
            "l2": (("example", "latent"), np.tile([3.0, 2.0, 1.0, 50.0], (40, 1))),
        },
        {"factor": ["a", "b", "c"]},
        {"n_pixels": 4},
    )
    if units is not None:
        found["unit_change_example"] = (("example", "latent", "unit"), np.tile(units, (40, 1, 1)))
        found = found.assign_coords(site=("unit", ["decoder.fc0"] * len(units[0])))
    return found


def test_a_latent_of_one_factor_is_specific_and_one_of_all_is_not():
    effect = [[1.0, 0, 0], [0, 2.0, 0], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0]]
    row = factor_rows(latents(effect), ACTIVE, 100, 0)["specificity_factor_mean"]
    # The dead latent, which would pull the mean down, is not in it.
    assert row.value == pytest.approx(2 / 3)
    assert "a 0.90, b 0.80, c 0.70" in row.convention
    per_latent = latent_factor_rows(latents(effect), 100, 0)
    np.testing.assert_allclose(per_latent["specificity_factor"].value, [1, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(per_latent["ces_b"].value, [0, 2, 1, 9], rtol=0.02)


def test_factors_that_are_not_read_are_not_counted():
    found = latents([[1.0, 0, 0], [1.0, 0, 0], [1.0, 1.0, 0], [0, 0, 0]])
    found["factor_example"][..., 2] = np.nan
    row = factor_rows(found, ACTIVE, 100, 0)["specificity_factor_mean"]
    assert row.value == pytest.approx(2 / 3)
    assert "of the 2 that are read at all" in row.convention
    assert factor_rows(found.drop_vars("factor_example"), ACTIVE, 100, 0) == {}


def test_separate_pathways_in_the_decoder_are_modular():
    apart = np.eye(4, 8)
    together = np.tile(np.arange(8.0), (4, 1))
    rows = [decoder_rows(latents(np.ones((4, 3)), u), ACTIVE, "decoder.fc0", 50, 0) for u in (apart, together)]
    # Three different unit vectors of eight correlate at -1/7.
    assert rows[0]["modularity"].value == pytest.approx(1 - 1 / 7)
    assert rows[1]["modularity"].value == pytest.approx(0, abs=1e-9)
    assert "pairs of latents" in rows[0]["modularity"].convention


def test_the_posterior_grid_counts_active_latents_only():
    rows = posterior_grid_rows(latents(np.ones((4, 3))), ACTIVE, 50, 0)
    assert rows["ces_l2_posterior_mean"].value == pytest.approx(2)
    assert rows["ces_rms_posterior_mean"].value == pytest.approx(1)
    assert posterior_grid_rows(latents(np.ones((4, 3))), np.zeros(4, bool), 50, 0) == {}


def test_mediators_are_those_that_survive():
    mediated = np.array([[0.9, 0.0], [0.1, 0.2], [0.0, 0.6], [1.0, 1.0]])
    q = np.array([[0.01, 1.0], [0.2, 0.3], [1.0, 0.04], [0.01, 0.01]])
    found = xr.Dataset(
        {
            "mediated": (("unit", "factor"), mediated),
            "mediated_low": (("unit", "factor"), mediated - 0.1),
            "mediated_high": (("unit", "factor"), mediated + 0.1),
            "mediated_q": (("unit", "factor"), q),
        },
        {"site": ("unit", ["encoder.fc0"] * 3 + ["latent.mu"]), "factor": ["a", "b"]},
    )
    rows = mediation_rows(found)
    assert rows["mediated_largest"].value == pytest.approx(0.75)
    assert rows["mediated_largest"].low == pytest.approx(0.65)
    assert rows["mediators"].value == 2
    found["mediated"][:, 1] = np.nan
    assert mediation_rows(found)["mediated_largest"].value == pytest.approx(0.9)


def test_the_product_is_of_the_two_rows():
    m, s = Row(0.5, 0.4, 0.6, "", "1"), Row(4.0, 3.0, 5.0, "", "intensity")
    row = product_row(m, s)["modularity_mu_x_ces_l2"]
    assert (row.value, row.low, row.high) == (2.0, pytest.approx(1.2), pytest.approx(3.0))
    assert product_row(None, s) == {}


def test_disentanglement_of_a_run_says_what_it_is_or_why_it_is_not():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (600, 3))
    aligned = disentanglement_rows(classes.astype(float), classes, ["a", "b", "c"], 100, 0)
    assert {"mig", "sap", "dci_disentanglement", "modularity_score", "explicitness"} <= set(aligned)
    assert aligned["mig"].value > 0.9
    assert aligned["mig"].null.p < 0.02
    assert "600 held-out images" in aligned["mig"].convention
    refused = disentanglement_rows(classes.astype(float), np.zeros((600, 3), int), ["a", "b", "c"], 100, 0)
    assert np.isnan(refused["mig"].value)
    assert refused["mig"].convention.startswith("not measured: ")
