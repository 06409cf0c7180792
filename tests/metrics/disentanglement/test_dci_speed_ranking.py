"""The fast DCI orders representations as the reference does."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from cvi_widgets import metrics

# D, C and I of `convention="dlib"` for the codes below, fitted once: 48 s, where the bagged trees take 2 s.
REFERENCE = np.array(
    [
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.9903, 0.9877, 0.985],
        [0.8318, 0.7883, 0.8692],
        [0.5677, 0.5283, 0.6592],
        [0.276, 0.2463, 0.51],
        [1.0, 1.0, 1.0],
        [0.9992, 0.9987, 0.9992],
        [0.9671, 0.9338, 0.9767],
        [0.7916, 0.736, 0.85],
        [0.5125, 0.4566, 0.6658],
        [0.2892, 0.2609, 0.4967],
        [0.7588, 0.7464, 0.9783],
        [0.982, 0.8911, 0.9925],
        [0.6086, 0.6718, 0.925],
        [0.5194, 0.5388, 0.825],
        [0.4787, 0.4118, 0.6792],
        [0.2496, 0.2234, 0.4992],
        [0.7888, 0.7394, 0.9542],
        [0.4987, 0.5717, 0.9642],
        [0.3156, 0.3144, 0.8792],
        [0.4708, 0.4749, 0.8075],
        [0.3619, 0.3094, 0.66],
        [0.0855, 0.0891, 0.475],
        [0.6083, 0.6496, 0.9833],
        [0.3852, 0.3651, 0.9117],
        [0.6495, 0.4959, 0.9242],
        [0.3507, 0.2911, 0.7842],
        [0.2209, 0.1877, 0.62],
        [0.1406, 0.1154, 0.4783],
        [0.2469, 0.3044, 0.885],
        [0.3683, 0.3224, 0.8675],
        [0.2641, 0.2377, 0.8408],
        [0.2851, 0.2113, 0.7858],
        [0.2854, 0.2446, 0.6283],
        [0.103, 0.0984, 0.4942],
    ]
)


def codes_of_grade(planted, k):
    """800 examples to fit on and 400 held out, six latents, factors of 3, 4 and 5 classes."""
    factors = planted.classes(1200, (3, 4, 5), 100 + k)
    codes = planted.graded(factors, 6, *planted.GRADES[k], seed=k)
    return {"codes": codes[:800], "factors": factors[:800], "test": (codes[800:], factors[800:])}


def test_bagged_trees_rank_36_codes_as_gradient_boosting_does(planted):
    """`tests/benchmarks/bench_metrics.py` does it for ten latents and more classes, and times both."""
    assert len(planted.GRADES) == len(REFERENCE) == 36
    fast = np.array(
        [metrics.dci(**codes_of_grade(planted, k), resamples=10, draws=0, null_draws=0)["value"] for k in range(36)]
    )
    for k in range(3):
        assert np.ptp(REFERENCE[:, k]) > 0.5
        assert spearmanr(fast[:, k], REFERENCE[:, k])[0] >= 0.95


def test_the_reference_is_what_it_was_when_the_ranking_was_stored(planted):
    found = metrics.dci(**codes_of_grade(planted, 20), convention="dlib", draws=0, null_draws=0)
    np.testing.assert_allclose(found["value"], REFERENCE[20], atol=2e-3)
