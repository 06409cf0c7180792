from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cvi_widgets.errors import DataError
from cvi_widgets.metrics import benjamini_hochberg, compare, correlate, holm, over_runs


def test_spread_over_seeds_is_the_t_interval():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [4.0, 5.5]])
    found = over_runs(values)
    low, high = stats.t.interval(0.95, 2, values[:, 0].mean(), values[:, 0].std(ddof=1) / np.sqrt(3))
    np.testing.assert_allclose([found.mean[0], found.low[0], found.high[0]], [7 / 3, low, high])
    assert found.n.tolist() == [3, 2]
    assert found.mean[1] == 5.25
    one = over_runs([[3.0]])
    assert one.mean[0] == 3
    assert np.isnan([one.sd[0], one.low[0]]).all()


def test_t_intervals_cover():
    rng = np.random.default_rng(0)
    found = over_runs(rng.normal(size=(3, 4000)))
    assert 0.935 < ((found.low < 0) & (found.high > 0)).mean() < 0.965


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=18)
    y = x + rng.normal(size=18)
    found = correlate(x, y)
    assert found.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.pearson.p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.01)
    assert found.pearson.low < found.pearson.value < found.pearson.high


def test_three_runs_never_show_a_correlation_without_its_p_value():
    # Three points in order: one of six orders and its reverse are as extreme.
    found = correlate([1.0, 2.0, 3.0], [1.0, 2.1, 2.9])
    assert found.pearson.p == pytest.approx(1 / 3)
    assert np.isnan([found.pearson.low, found.spearman.high]).all()
    for text in (str(found), repr(found), f"{found}"):
        assert "p = 0.33" in text
        assert "n = 3 runs; too few runs for an interval" in text


def test_p_values_of_unrelated_metrics_are_uniform():
    rng = np.random.default_rng(1)
    p = [correlate(*rng.normal(size=(2, 6)), draws=10).pearson.p for _ in range(100)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_bootstrap_interval_of_a_correlation_covers():
    rng = np.random.default_rng(2)
    inside = 0
    for k in range(60):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        found = correlate(x, y, draws=300, seed=k).pearson
        inside += found.low < 0.6 < found.high
    assert inside >= 51


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([1.0, 2.0], [1.0, 2.0], "over 2 runs means nothing"),
        ([1.0, 2.0, np.nan], [1.0, 2.0, 3.0], "over 2 runs means nothing"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "x is the same in all 3 runs"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "one number of each per run"),
    ],
)
def test_correlations_that_mean_nothing_are_refused(x, y, said):
    with pytest.raises(DataError, match=said):
        correlate(x, y)


def test_contrasts_are_welch_with_holm_over_all_pairs():
    groups = {"vae": [1.0, 1.1, 0.9], "beta": [2.0, 2.2, 1.9], "factor": [1.0, 1.3, np.nan, 1.2]}
    table = compare(groups)
    assert list(table.index) == [("vae", "beta"), ("vae", "factor"), ("beta", "factor")]
    twin = stats.ttest_ind(groups["vae"], groups["beta"], equal_var=False)
    assert table.loc[("vae", "beta"), "p"] == pytest.approx(twin.pvalue)
    assert table.loc[("vae", "beta"), "difference"] == pytest.approx(-1.0333, abs=1e-3)
    smallest = table["p"].min()
    assert table["p_holm"].min() == pytest.approx(3 * smallest)
    with pytest.raises(DataError, match="group 'b' has 1 runs"):
        compare({"a": [1.0, 2.0], "b": [1.0]})


def test_corrections_keep_shape_and_leave_nan_out():
    p = np.array([[0.01, 0.04], [np.nan, 0.03]])
    np.testing.assert_allclose(benjamini_hochberg(p), [[0.03, 0.04], [np.nan, 0.04]])
    np.testing.assert_allclose(holm(p), [[0.03, 0.06], [np.nan, 0.06]])
    assert np.isnan(holm([np.nan])).all()
