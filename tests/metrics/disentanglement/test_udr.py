from __future__ import annotations

import numpy as np
import pytest

from cvi_widgets import metrics
from cvi_widgets.errors import DataError


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).normal(size=(1500, 4))


@pytest.mark.parametrize("convention", ["spearman", "lasso"])
def test_models_that_agree_up_to_order_sign_and_scale_score_one(codes, convention):
    other = codes[:, [3, 1, 0, 2]] * [-2, 1, -1, 3]
    found = metrics.udr([codes, other, codes], convention=convention)
    # Sample correlations of independent latents, about 0.02 each, are counted against the pair; Lasso shrinks by 0.1.
    low, high = (0.9, 1.0) if convention == "spearman" else (0.88, 0.92)
    assert low < found["value"].item() <= high
    assert np.isnan(np.diag(found["pair"])).all()
    np.testing.assert_allclose(found["pair"], found["pair"].values.T)


def test_unrelated_models_score_as_their_null(codes):
    others = [np.random.default_rng(seed).normal(size=(1500, 4)) for seed in (1, 2)]
    found = metrics.udr([codes, *others])
    assert found["value"].item() < 0.05
    assert abs(found["value"] - found["null_mean"]).item() < 4 * found["null_sd"].item()
    assert metrics.udr([codes, *others], convention="lasso")["value"].item() < 0.01
    alike = metrics.udr([codes, codes])
    assert alike["p"].item() == 1 / 201


def test_rotated_models_agree_less_than_aligned_ones(codes):
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    assert metrics.udr([codes, codes @ turn])["value"].item() < 0.6


def test_score_of_a_pair_by_hand(planted):
    """Two by two similarities, all sums written out."""
    rng = np.random.default_rng(4)
    first = rng.normal(size=(5000, 2))
    second = np.stack([first[:, 0], first[:, 0] + first[:, 1]], axis=1)
    r = np.abs(np.corrcoef(np.argsort(np.argsort(np.hstack([first, second]), axis=0), axis=0).T)[:2, 2:])
    by_hand = sum(line.max() ** 2 / line.sum() for line in (*r, *r.T)) / 4
    assert metrics.udr([first, second])["value"].item() == pytest.approx(by_hand, abs=1e-9)


def test_dead_latents_are_left_out_and_the_odd_model_is_found(codes):
    dead = np.hstack([codes, np.full((1500, 2), 0.1)])
    found = metrics.udr([codes, dead, codes, np.random.default_rng(5).normal(size=(1500, 4))])
    assert found["n_dead"].values.tolist() == [0, 2, 0, 0]
    assert found["pair"].values[0, 1] == found["pair"].values[0, 2]
    assert (found["by_model"].values[:3] > 0.9).all() and found["by_model"].values[3] < 0.05
    assert (found["by_model_low"] <= found["by_model"]).all() and (found["by_model"] <= found["by_model_high"]).all()
    masked = metrics.udr([codes, dead], active=[[True, False, False, False], [True, False, False, False, True, False]])
    assert masked["n_dead"].values.tolist() == [3, 5] and masked["value"].item() == pytest.approx(1)
    assert metrics.udr([codes, np.zeros((1500, 3))])["value"].item() == 0


def test_what_udr_cannot_compare_gets_a_sentence(codes):
    with pytest.raises(DataError, match="models are 1; at least 2 are needed"):
        metrics.udr([codes])
    with pytest.raises(DataError, match="models have 1500, 1499 examples; all need the same ones"):
        metrics.udr([codes, codes[1:]])
    with pytest.raises(DataError, match="codes of model 1 have NaN or infinite values in 1 of 1500 examples"):
        metrics.udr([codes, np.where(np.arange(6000).reshape(1500, 4) == 7, np.nan, codes)])
    with pytest.raises(DataError, match="one true or false for each latent"):
        metrics.udr([codes, codes], active=[[True] * 4, [True] * 3])
