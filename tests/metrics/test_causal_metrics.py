from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cvi_widgets.metrics import (
    active_latents,
    ces_l2,
    ces_rms,
    circuit_modularity,
    modularity,
    monosemantic,
    polysemantic_fraction,
    polysemanticity,
    specificity,
    specificity_published,
)
from cvi_widgets.metrics.causal import entropy, normalised_modularity

responses = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(0, 1e6))


def test_effect_strength_and_its_size_per_pixel():
    l2 = np.array([[3.0, 0.0], [5.0, 2.0]])
    np.testing.assert_allclose(ces_l2(l2), [4, 1])
    np.testing.assert_allclose(ces_rms(l2, 64 * 64), [4 / 64, 1 / 64])


def test_specificity_floors_and_ceilings():
    even = np.ones(4096)
    single = np.eye(4096)[0]
    np.testing.assert_allclose(specificity([even, single]), [0, 1], atol=1e-12)
    np.testing.assert_allclose(specificity_published(even), 1 / np.log(4096), rtol=1e-5)
    assert specificity_published(even) == pytest.approx(0.120, abs=5e-4)
    assert specificity_published(np.ones(5)) == pytest.approx(0.621, abs=5e-4)
    assert specificity_published(single) == pytest.approx(1e6)
    assert np.isnan(specificity(np.zeros(4)))
    assert np.isnan(specificity(np.ones((3, 1)))).all()


@given(st.integers(2, 50), st.integers(1, 50))
def test_effect_on_k_of_n_outputs(n, k):
    k = min(k, n)
    energy = np.concatenate([np.full(k, 2.5), np.zeros(n - k)])
    assert float(specificity(energy)) == pytest.approx(1 - np.log(k) / np.log(n), abs=1e-9)
    assert float(entropy(energy.astype(np.float32))) == pytest.approx(np.log(k), abs=1e-5)


@given(responses)
def test_polysemanticity_runs_from_one_to_the_number_of_factors(response):
    p1 = polysemanticity(response)
    dead = response.max(0) == 0
    assert (np.isnan(p1) == dead).all()
    assert ((p1[~dead] >= 1 - 1e-12) & (p1[~dead] <= len(response) + 1e-9)).all()
    single = monosemantic(response)
    fraction = polysemantic_fraction(response)
    assert (np.isnan(single) == dead).all()
    np.testing.assert_array_equal(single[~dead] == 1, np.isclose(fraction[~dead], 1 / len(response)))


def test_polysemanticity_of_known_units():
    response = np.array([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.3], [0.0, 1.0, 0.0, 0.1]])
    np.testing.assert_allclose(polysemanticity(response), [1, 3, np.nan, 1.4])
    np.testing.assert_allclose(polysemantic_fraction(response, tau=0.2), [1 / 3, 1, np.nan, 2 / 3])
    np.testing.assert_allclose(polysemantic_fraction(response, tau=0.05), [1 / 3, 1, np.nan, 1])
    np.testing.assert_allclose(monosemantic(response, tau=0.5), [1, 0, np.nan, 1])
    stacked = polysemanticity(np.stack([response, response[::-1]]))
    np.testing.assert_allclose(stacked[0], stacked[1])


@pytest.mark.parametrize(("n", "expected"), [(5, 0.58), (10, 0.725), (128, 0.928)])
def test_random_profiles_score_high(n, expected):
    rng = np.random.default_rng(0)
    value = circuit_modularity(rng.normal(size=(400, 10, n))).mean()
    assert value == pytest.approx(expected, abs=0.006)
    found = modularity(rng.normal(size=(10, n)), draws=400)
    assert found.null.mean == pytest.approx(expected, abs=0.015)
    assert found.null.p > 0.005
    assert abs(found.normalised) < 0.35


def test_modularity_of_known_profiles():
    same = np.tile(np.arange(6.0), (4, 1))
    assert float(circuit_modularity(same)) == pytest.approx(0)
    assert modularity(same, draws=100).null.p == 1
    signs = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], float)
    assert float(circuit_modularity(signs)) == pytest.approx(1)
    one_hot = np.eye(4, 8)
    # Disjoint units still correlate at -1/7, since each is high where the others are low.
    assert float(circuit_modularity(one_hot)) == pytest.approx(1 - 1 / 7)
    assert modularity(one_hot, draws=300).normalised > 0
    assert normalised_modularity(0.9, 0.8) == pytest.approx(0.5)
    assert np.isnan(normalised_modularity(1.0, 1.0))


def test_constant_profiles_are_left_out_of_modularity():
    lines = np.array([[1.0, 2, 3], [3.0, 3, 3], [1.0, 2, 3]])
    assert float(circuit_modularity(lines)) == pytest.approx(0)
    assert np.isnan(circuit_modularity(lines[:2]))
    assert np.isnan(modularity(lines[:2], draws=10).null.p)


@given(arrays(np.float64, (3, 6), elements=st.floats(-5, 5)), st.floats(0.1, 10), st.floats(-3, 3))
def test_modularity_ignores_the_scale_and_offset_of_a_profile(lines, scale, offset):
    changed = lines.copy()
    changed[0] = scale * lines[0] + offset
    before, after = circuit_modularity(lines), circuit_modularity(changed)
    if (np.ptp(lines, axis=1) > 0.1).all():
        assert float(after) == pytest.approx(float(before), abs=1e-7)
        assert 0 <= float(before) <= 1


def test_dead_latents_are_not_active():
    mu = np.random.default_rng(0).normal(size=(500, 3)) * np.array([1.0, 0.05, 0.2])
    assert active_latents(mu).tolist() == [True, False, True]
