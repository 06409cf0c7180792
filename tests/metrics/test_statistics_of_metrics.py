from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvi_widgets.errors import ConfigError
from cvi_widgets.metrics import bootstrap, bootstrap_means, permutation_null
from cvi_widgets.metrics.statistics import bootstrap_weights, interval, null_of


def test_intervals_of_gaussian_means_cover_as_often_as_they_say():
    # 2000 experiments of 100 rows each, all columns of one call; binomial sd of the coverage is 0.005.
    rows = np.random.default_rng(0).normal(3, 2, (100, 2000))
    found = bootstrap(rows, draws=2000, seed=1)
    covered = ((found.low <= 3) & (found.high >= 3)).mean()
    assert 0.925 < covered < 0.965
    np.testing.assert_allclose(found.value, rows.mean(0))
    half = bootstrap(rows, draws=2000, seed=1, level=0.5)
    assert 0.46 < ((half.low <= 3) & (half.high >= 3)).mean() < 0.53


def test_intervals_are_those_of_scipy():
    rows = np.random.default_rng(0).exponential(size=80)
    ours = bootstrap(rows, draws=20_000)
    theirs = stats.bootstrap((rows,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_weights_are_resamples(rows, draws, seed):
    counts = bootstrap_weights(rows, draws, seed) * rows
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    np.testing.assert_allclose(counts.sum(1), rows, rtol=1e-5)
    np.testing.assert_array_equal(counts, bootstrap_weights(rows, draws, seed) * rows)


def test_undefined_rows_are_left_out_column_by_column():
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[50:, 1] = np.nan
    found = bootstrap(rows, seed=2)
    assert found.value[1] == pytest.approx(rows[:50, 1].mean())
    width = found.high - found.low
    assert 1.5 < width[1] / width[0] < 2.7
    empty = bootstrap(np.full((5, 1), np.nan))
    assert np.isnan([*empty.value, *empty.low, *empty.high]).all()
    assert np.isnan(bootstrap_means(np.full((5, 1), np.nan))).all()


def test_many_columns_are_done_in_blocks_with_the_same_result():
    rows = np.random.default_rng(0).normal(size=(10, 3))
    wide = bootstrap(np.tile(rows, (1, 20_000)), draws=200)
    narrow = bootstrap(rows, draws=200)
    np.testing.assert_allclose(wide.low.reshape(20_000, 3), np.tile(narrow.low, (20_000, 1)), rtol=1e-5)


def test_shapes_and_constants():
    found = bootstrap(np.ones((7, 2, 3)))
    assert found.value.shape == found.low.shape == (2, 3)
    np.testing.assert_allclose([found.value, found.low, found.high], 1, rtol=1e-6)
    assert bootstrap_means(np.ones((7, 2, 3)), draws=11).shape == (11, 2, 3)
    low, high = interval(np.array([np.nan, 1.0, 2.0, 3.0]), level=0.5)
    assert (float(low), float(high)) == (1.5, 2.5)


@pytest.mark.parametrize(("rows", "draws"), [(0, 10), (10, 0)])
def test_nothing_to_resample_gets_a_sentence(rows, draws):
    with pytest.raises(ConfigError, match=f"rows={rows} and draws={draws}"):
        bootstrap_weights(rows, draws)
    with pytest.raises(ConfigError, match="'level' is 1: it must lie between 0 and 1"):
        bootstrap([1.0, 2.0], level=1)


def test_permutation_null_is_uniform_when_there_is_nothing_and_small_when_there_is():
    rng = np.random.default_rng(0)
    a = rng.normal(size=60)

    def null_for(b, alternative="greater"):
        return permutation_null(
            lambda g: float(np.corrcoef(a, g.permutation(b))[0, 1]), np.corrcoef(a, b)[0, 1], 300, 1, alternative
        )

    p = np.array([null_for(rng.normal(size=60)).p for _ in range(40)])
    assert 0.35 < p.mean() < 0.65
    found = null_for(a + rng.normal(size=60))
    assert found.p == 1 / 301
    assert abs(found.mean) < 0.03
    assert found.sd == pytest.approx(1 / np.sqrt(59), rel=0.15)
    assert null_for(-a).p == 1
    assert null_for(-a, "less").p == 1 / 301
    assert null_for(-a, "two-sided").p == 2 / 301


def test_a_null_of_something_undefined_is_undefined():
    assert np.isnan(null_of([1.0, 2.0], np.nan)).all()
    assert np.isnan(null_of([1.0, np.nan], 1.0)).all()
