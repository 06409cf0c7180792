"""Intervals cover, seeds reproduce, models and data sets do as well as arrays, and bad input gets one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score, roc_auc_score

from cvi_widgets import metrics
from cvi_widgets.data import FactorGrid
from cvi_widgets.errors import ConfigError, CviError, DataError
from cvi_widgets.metrics.disentanglement.explicitness import _mean_area, _null_areas
from cvi_widgets.metrics.disentanglement.heldout import weights
from cvi_widgets.metrics.disentanglement.information import ADJUSTED, Estimator, information
from cvi_widgets.metrics.disentanglement.outcome import centred
from cvi_widgets.metrics.disentanglement.sample import checked

ALL = [
    (metrics.mig, {}),
    (metrics.sap, {}),
    (metrics.sap, {"convention": "r2"}),
    (metrics.modularity_score, {}),
    (metrics.explicitness, {}),
    (metrics.irs, {}),
    (metrics.dci, {"resamples": 4, "null_draws": 3}),
    (metrics.dci, {"resamples": 4, "convention": "permuted"}),
    (metrics.infomec, {}),
    (metrics.factor_vae_score, {"points": 100}),
    (metrics.beta_vae_score, {"points": 100}),
]


@pytest.fixture(scope="module")
def noisy(planted):
    factors = planted.classes(600)
    return planted.graded(factors, 4, 0.2, 0.6, seed=1), factors


@pytest.mark.parametrize(("metric", "options"), ALL)
def test_every_metric_says_how_it_was_made_and_repeats_by_its_seed(metric, options, noisy):
    options = {"draws": 30, "null_draws": 10} | options
    found = metric(*noisy, seed=3, **options)
    assert {"value", "ci_low", "ci_high", "null_mean", "null_sd", "p", "dead"} <= set(found)
    assert {"convention", "estimator", "n", "bins", "seed", "source", "interval", "null", "n_dead"} <= set(found.attrs)
    assert all(isinstance(v, str | int | float) for v in found.attrs.values())
    assert all({"long_name", "units"} <= set(v.attrs) for v in found.data_vars.values())
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    assert (found["ci_high"] - found["ci_low"] > 0).all()
    xr.testing.assert_identical(found, metric(*noisy, seed=3, **options))
    assert not found.equals(metric(*noisy, seed=4, **options))


@pytest.mark.parametrize(
    ("metric", "options"), [(metrics.mig, {}), (metrics.irs, {}), (metrics.sap, {"convention": "r2"})]
)
def test_intervals_cover_what_many_examples_say(metric, options, planted):
    def noisy_levels(n, seed):
        factors = planted.classes(n, (3, 4), seed)
        return planted.levels(factors) + 0.5 * np.random.default_rng([seed, 1]).normal(size=factors.shape), factors

    truth = metric(*noisy_levels(60_000, 99), draws=0, null_draws=0, **options)["value"].item()
    covered = []
    for seed in range(30):
        found = metric(*noisy_levels(800, seed), draws=60, null_draws=0, **options)
        covered.append(found["ci_low"].item() <= truth <= found["ci_high"].item())
    assert np.mean(covered) >= 0.8


def test_centred_intervals_move_with_the_bias_of_resampling():
    low, high = centred(0.5, np.linspace(0.6, 0.8, 1001))
    assert (low, high) == pytest.approx((0.405, 0.595), abs=1e-3)
    assert centred(0.99, np.linspace(0.9, 1.0, 1001))[1] == 1
    assert np.isnan(centred(np.nan, np.ones(5))).all() and np.isnan(centred(0.5, np.full(3, np.nan))).all()


def test_information_is_scikit_learns(noisy):
    codes, factors = noisy
    sample = checked(codes, factors)
    plain = information(sample, Estimator("width", 7), 5, 5, seed=0)
    cut = np.stack([np.digitize(z, np.histogram(z, 7)[1][1:-1]) for z in codes.T], axis=1)
    expected = [[mutual_info_score(z, f) for f in factors.T] for z in cut.T]
    np.testing.assert_allclose(plain.value, expected, atol=1e-12)
    rows = np.random.default_rng(0).integers(0, 600, (5, 600))
    again = [[mutual_info_score(z[rows[2]], f[rows[2]]) for f in factors.T] for z in cut.T]
    np.testing.assert_allclose(plain.draws[2], again, atol=1e-12)
    assert plain.null.max() < plain.value.max() / 3
    found = information(sample, ADJUSTED, 0, 0, seed=0)
    ranks = np.argsort(np.argsort(codes[:, 0]))
    bins = np.floor((ranks + 0.5) * found.bins / 600).astype(int)
    # `min` normalises by the smaller entropy, which is the factor's.
    expected = adjusted_mutual_info_score(bins, factors[:, 0], average_method="min")
    assert found.value[0, 0] / found.entropy[0] == pytest.approx(expected, abs=1e-9)


def test_adjusted_information_of_unrelated_codes_is_zero_on_average(planted):
    factors = planted.classes(2000, (8, 40), seed=1)
    codes = np.random.default_rng(2).normal(size=(2000, 30))
    sample = checked(codes, factors)
    plain = information(sample, Estimator("mass", ADJUSTED.bins or 100), 0, 0, seed=0)
    adjusted = information(sample, ADJUSTED, 0, 0, seed=0)
    # Sparse tables of 100 x 40 cells share 0.8 nats by chance alone.
    assert plain.value[:, 1].mean() > 0.5
    assert adjusted.value[:, 1].mean() < 0.02


def test_areas_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    scores = rng.normal(size=(200, 3)) + (labels[:, None] == np.arange(3))
    scores[:, 2] = scores[:, 2].round()
    line_weights = weights(200, 4, seed=0)
    found = _mean_area(scores, labels, np.arange(3), line_weights)
    for line, value in zip(line_weights, found, strict=True):
        areas = [roc_auc_score(labels == k, scores[:, k], sample_weight=line) for k in range(3)]
        assert value == pytest.approx(np.mean(areas), abs=1e-9)
    assert _null_areas(scores, labels, np.arange(3), np.arange(200)[None])[0] == pytest.approx(found[0])


class Grid:
    """A factor data set without images."""

    def __init__(self) -> None:
        self.grid = FactorGrid({"shape": [0.0, 1.0, 2.0], "x": [0.0, 1.0, 2.0, 3.0]})
        self.encoded = 0

    @property
    def factor_names(self):
        return self.grid.names

    def sample(self, n, rng):
        return self.grid.sample(n, rng)

    def factors(self, index):
        return self.grid.factors(index)

    def represent(self, index):
        self.encoded += len(index)
        return self.grid.factors(index) * [1.0, -0.7]


@pytest.mark.parametrize("metric", [metrics.factor_vae_score, metrics.beta_vae_score, metrics.mig, metrics.infomec])
def test_a_model_and_a_data_set_do_as_well_as_arrays(metric):
    data = Grid()
    options = {"points": 200} if metric in (metrics.factor_vae_score, metrics.beta_vae_score) else {"null_draws": 20}
    found = metric(data.represent, data, draws=0, **options)
    assert found["value"].values[0] == pytest.approx(1, abs=0.01)
    assert found["factor"].values.tolist() == ["shape", "x"]
    assert data.encoded == 12, "every image of the grid is encoded once"


def test_groups_share_the_factor_they_hold(noisy):
    from cvi_widgets.metrics.disentanglement.votes import Groups

    groups = Groups(checked(*noisy))
    rng = np.random.default_rng(0)
    example, factor = rng.integers(0, 600, 50), rng.integers(0, 3, 50)
    rows = groups.sharing(example, factor, 16, rng)
    classes = noisy[1][rows, factor[:, None]]
    assert (classes == noisy[1][example, factor][:, None]).all()
    others = noisy[1][rows, (factor[:, None] + 1) % 3]
    assert all(len(np.unique(line)) > 1 for line in others)


def test_held_out_examples_may_be_given_and_names_are_kept(noisy):
    codes, factors = noisy
    named = xr.DataArray(factors * 10 - 5, dims=("example", "factor"), coords={"factor": ["a", "b", "c"]})
    found = metrics.explicitness(codes[:400], named[:400], test=(codes[400:], named[400:]))
    assert found["factor"].values.tolist() == ["a", "b", "c"]
    assert (found.attrs["n"], found.attrs["n_test"]) == (400, 200)
    plain = metrics.explicitness(codes[:400], factors[:400], test=(codes[400:], factors[400:]))
    np.testing.assert_array_equal(found["value"], plain["value"])


GOOD = np.random.default_rng(0).normal(size=(60, 2))
CLASSES = np.stack([np.arange(60) % 3, np.arange(60) % 4], axis=1)


@pytest.mark.parametrize(
    ("codes", "factors", "options", "sentence"),
    [
        (GOOD, np.zeros((60, 1), int), {}, "factor 'f0' is constant at 0; every factor needs at least 2 classes"),
        (GOOD, np.arange(60)[:, None], {}, "factor 'f0' has 60 classes in 60 examples; at most half as many"),
        (GOOD[:10], CLASSES[:10], {}, "codes have 10 examples; at least 20 are needed"),
        (GOOD[:50], CLASSES, {}, "codes have 50 examples and factors have 60"),
        (np.where(GOOD > 2, np.nan, GOOD), CLASSES, {}, "codes have NaN or infinite values in"),
        (GOOD[:, 0], CLASSES, {}, r"codes have shape \(60,\); \(example, latent\)"),
        (GOOD[:, :0], CLASSES, {}, r"codes have shape \(60, 0\)"),
        ([["a", "b"]] * 60, CLASSES, {}, "codes are no array of numbers"),
        (GOOD, CLASSES[:, 0], {}, r"factors have shape \(60,\); \(example, factor\)"),
        (GOOD, CLASSES / 2, {}, "factors have values of type float64; integer classes are needed"),
        (GOOD, CLASSES, {"factor_names": ["a"]}, "factor names are a; 2 different ones are needed"),
        (GOOD, CLASSES, {"bins": 1}, "setting 'bins' is 1: allowed are 2 to the number of examples, 60"),
        (GOOD, CLASSES, {"draws": -1}, "setting 'draws' is -1: it must be a whole number of at least 0"),
        (GOOD, CLASSES, {"dead_variance": -1.0}, "setting 'dead_variance' is -1.0"),
        (GOOD, CLASSES, {"convention": "dlip"}, "convention 'dlip' is unknown; .*did you mean dlib?"),
        (lambda index: GOOD, CLASSES, {}, "codes and factors do not belong together"),
    ],
)
def test_bad_input_gets_one_sentence(codes, factors, options, sentence):
    with pytest.raises(CviError, match=sentence) as caught:
        metrics.mig(codes, factors, **options)
    assert isinstance(caught.value, ConfigError if options and "factor_names" not in options else DataError)
    assert "\n" not in str(caught.value)


def test_bad_held_out_examples_get_one_sentence():
    with pytest.raises(DataError, match=r"test has codes \(5, 3\) and factors \(5, 2\); \(n, 2\) and \(n, 2\)"):
        metrics.sap(GOOD, CLASSES, test=(np.zeros((5, 3)), CLASSES[:5]))
    with pytest.raises(DataError, match="factor 'f1' has class 9 in test that no example to fit on has"):
        metrics.dci(GOOD, CLASSES, test=(GOOD[:12], np.add(CLASSES[:12], [0, 9])))
    with pytest.raises(DataError, match="factor 'f0' is constant in the 60 examples to fit on or in the 4 held out"):
        metrics.explicitness(GOOD, CLASSES, test=(GOOD[:4], CLASSES[:4] * [0, 1]))
    for metric in (metrics.dci, metrics.modularity_score, metrics.infomec, metrics.factor_vae_score):
        with pytest.raises(DataError, match="factors have 1 column; this metric tells factors apart and needs 2"):
            metric(GOOD, CLASSES[:, :1])
