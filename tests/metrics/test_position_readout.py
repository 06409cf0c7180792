from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvi_widgets.metrics import position_latent, r_squared, readouts
from cvi_widgets.metrics.position import r_squared_draws, slope


@given(st.integers(0, 5), st.integers(0, 9), st.floats(0.1, 1))
def test_one_lit_pixel_is_read_exactly(y, x, intensity):
    image = np.zeros((1, 6, 10))
    image[0, y, x] = intensity
    np.testing.assert_allclose(readouts(image), [x, y, intensity], rtol=1e-5)


def test_centroid_weighs_intensity_and_averages_channels():
    image = np.zeros((2, 1, 3))
    image[0, 0, 0], image[1, 0, 2] = 0.3, 0.9
    np.testing.assert_allclose(readouts(image), [1.5, 0, 0.6], rtol=1e-6)
    stack = readouts(np.stack([image, np.zeros_like(image)])[None])
    assert stack.shape == (1, 2, 3)
    assert np.isnan(stack[0, 1, :2]).all()
    assert stack[0, 1, 2] == 0


def test_slope_of_a_line_is_its_slope():
    values = np.array([-3.0, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(slope(values, 5 + np.outer([2.0, -0.5], values)), [2, -0.5])
    assert np.isnan(slope(values, [0.0, np.nan, 0.0, 0.0]))


def test_r_squared_is_that_of_numpy():
    rng = np.random.default_rng(0)
    mu, factor = rng.normal(size=(200, 3)), rng.normal(size=200)
    mu[:, 1] += factor
    mu[:, 2] = 4.0
    expected = [np.corrcoef(mu[:, i], factor)[0, 1] ** 2 for i in (0, 1)]
    np.testing.assert_allclose(r_squared(mu, factor), [*expected, 0], atol=1e-12)
    np.testing.assert_allclose(r_squared(mu, np.stack([factor, -factor]))[1], r_squared(mu, factor))


def test_the_position_latent_is_found_against_its_null():
    rng = np.random.default_rng(1)
    factor = rng.integers(0, 32, 400) / 31
    mu = rng.normal(size=(400, 10))
    mu[:, 7] = -3 * factor + rng.normal(size=400)
    found = position_latent(mu, factor, draws=500)
    assert found.latent == 7
    assert found.r2 == pytest.approx(np.corrcoef(mu[:, 7], factor)[0, 1] ** 2)
    assert found.null.p == 1 / 501
    # The best of ten chance correlations: E max of ten chi-square(1) / n is about 3.8 / 400.
    assert 0.006 < found.null.mean < 0.014
    nothing = position_latent(rng.normal(size=(400, 10)), factor, draws=500)
    assert nothing.null.p > 0.01


def test_draws_of_r_squared_are_those_of_resampled_examples():
    rng = np.random.default_rng(2)
    factor = rng.normal(size=300)
    mu = np.stack([1000 + factor + rng.normal(size=300), np.full(300, 0.1)], axis=1)
    drawn = r_squared_draws(mu, factor, draws=2000)
    again = [np.corrcoef(mu[i, 0], factor[i])[0, 1] ** 2 for i in rng.integers(0, 300, (2000, 300))]
    assert drawn.shape == (2000, 2)
    assert drawn[:, 0].mean() == pytest.approx(np.mean(again), abs=0.01)
    assert drawn[:, 0].std() == pytest.approx(np.std(again), rel=0.1)
    assert (drawn[:, 1] == 0).all()
