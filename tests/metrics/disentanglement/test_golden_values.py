"""`convention="dlib"` and its peers give what the other implementations gave on the same codes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier

from cvi_widgets import metrics
from cvi_widgets.metrics.disentanglement.dci import completeness, disentanglement

CASES = ("clean", "noisy", "rotated")
NO_DRAWS = {"draws": 0, "null_draws": 0}


def check(planted, metric, values, tolerance, held_out=False, **options):
    for case, value in zip(CASES, values, strict=True):
        test = {"test": planted.golden(case, "test")} if held_out else {}
        found = metric(*planted.golden(case, "train"), **test, **options, **NO_DRAWS)
        assert found["value"].item() == pytest.approx(value, abs=tolerance), case


@pytest.mark.parametrize(
    ("convention", "values"),
    [
        ("dlib", (0.8955, 0.5692, 0.5073)),
        ("dcf", (0.9950, 0.6102, 0.5325)),
        ("zaidi", (0.9977, 0.5587, 0.4462)),
        ("zaidi_discrete", (0.9912, 0.4563, 0.3638)),
    ],
)
def test_mig_of_four_implementations(planted, convention, values):
    check(planted, metrics.mig, values, 1e-4, convention=convention)


@pytest.mark.parametrize(("convention", "values"), [("dlib", (0.246, 0.238, 0.235)), ("r2", (0.9993, 0.9471, 0.7226))])
def test_sap_discrete_and_continuous(planted, convention, values):
    # The discrete ones are given to three digits, and liblinear stops at a tolerance of its own.
    tolerance = 1e-3 if convention == "dlib" else 2e-4
    check(planted, metrics.sap, values, tolerance, held_out=convention == "dlib", convention=convention)


def test_modularity(planted):
    check(planted, metrics.modularity_score, (0.8406, 0.8404, 0.8657), 1e-4, convention="dlib")


def test_explicitness(planted):
    check(planted, metrics.explicitness, (0.9809, 0.9368, 0.9733), 2e-4, held_out=True, convention="dlib")


def test_irs(planted):
    check(planted, metrics.irs, (0.494, 0.699, 0.679), 5e-4, convention="dlib")


@pytest.mark.parametrize("metric", [metrics.factor_vae_score, metrics.beta_vae_score])
def test_scores_that_saturate(planted, metric):
    check(planted, metric, (1.0, 1.0, 1.0), 1e-3, held_out=True, convention="dlib", points=1000)


# Importances of the reference for `noisy` with 2,000 examples; fitting them takes 40 s.
NOISY_IMPORTANCE = np.array(
    [
        [1.0, 0.00791, 0.062672, 0.060441, 0.057162],
        [0.0, 0.930955, 0.061291, 0.066045, 0.063084],
        [0.0, 0.005321, 0.423294, 0.059712, 0.055195],
        [0.0, 0.011829, 0.061913, 0.465712, 0.057737],
        [0.0, 0.007141, 0.066241, 0.055772, 0.475376],
        [0.0, 0.009114, 0.065548, 0.060902, 0.058797],
        [0.0, 0.007793, 0.064654, 0.058232, 0.058357],
        [0.0, 0.005599, 0.066236, 0.059861, 0.05662],
        [0.0, 0.007047, 0.067955, 0.055027, 0.060267],
        [0.0, 0.007291, 0.060197, 0.058297, 0.057406],
    ]
)


def test_dci_of_the_references_importances(planted):
    assert disentanglement(NOISY_IMPORTANCE) == pytest.approx(0.519, abs=1e-3)
    assert completeness(NOISY_IMPORTANCE) == pytest.approx(0.475, abs=2e-3)


def test_dci_of_the_reference_is_gradient_boosting_with_its_defaults(planted):
    factors = planted.classes(300, (2, 3), seed=3)
    codes = planted.graded(factors, 4, 0.3, 0.4, seed=3)
    codes[:, 3] *= 1e-3
    found = metrics.dci(codes[:200], factors[:200], test=(codes[200:], factors[200:]), convention="dlib")
    models = [GradientBoostingClassifier(random_state=0).fit(codes[:200], f) for f in factors[:200].T]
    importance = np.stack([model.feature_importances_ for model in models], axis=1)
    np.testing.assert_allclose(found["importance"], importance)
    mass = importance.sum(1) / importance.sum()
    d = sum(m * (1 - entropy(row + 1e-11, base=2)) for m, row in zip(mass, importance, strict=True))
    c = np.mean([1 - entropy(column + 1e-11, base=4) for column in importance.T])
    right = np.mean([model.score(codes[200:], f) for model, f in zip(models, factors[200:].T, strict=True)])
    np.testing.assert_allclose(found["value"], [d, c, right])
    # The reference knows no dead latents; ours are reported beside it.
    assert found["dead"].values.tolist() == [False, False, False, True]
    assert np.isnan(found["ci_low"].values[:2]).all() and np.isfinite(found["ci_low"].values[2])
