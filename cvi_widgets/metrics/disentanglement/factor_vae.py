"""FactorVAE score: does the latent that varies least tell which factor was held?

It saturates: a rotated code with several mixed factors still scores 1. Never use it as the only measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import permuted, weights
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, Part, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, HeldOut, Ints, Labels, chosen, count, split
from cvi_widgets.metrics.disentanglement.votes import variance_points

POINTS = 10_000
BATCH = 64
DLIB_DEAD_VARIANCE = 0.05**2
CONVENTIONS = {
    "active": "accuracy of the majority vote from the least varying of the active latents, on votes held out",
    "dlib": "accuracy of the majority vote from the least varying latent, those with sd < 0.05 pruned",
}


def factor_vae_score(
    codes: Codes,
    factors: Labels,
    *,
    test: HeldOut | None = None,
    convention: str = "active",
    points: int = POINTS,
    batch: int = BATCH,
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """FactorVAE score (Kim & Mnih 2018, arXiv 1802.05983, section 4).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
        A vote takes `batch` examples of one class of one factor from those given, with replacement.
    test : codes and factors from which the votes to score on are drawn; else a random third of the examples
    convention : `active`, or `dlib`, which takes a latent for dead below a standard deviation of 0.05
    points : votes to fit on; half as many are scored

    Returns
    -------
    Dataset with value, interval and null over metric ("factor_vae_score"); `votes` (latent, factor), counts of the
    fitted votes; `by_factor` (factor); `dead` (latent). The chance level is 1 / F; without any active latent the
    score is 0.
    """
    chosen(convention, CONVENTIONS)
    points, batch = count("points", points, 10), count("batch", batch, 2)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    dead_variance = DLIB_DEAD_VARIANCE if convention == "dlib" else dead_variance
    train, held = split(
        codes, factors, test, seed=seed, factor_names=factor_names, dead_variance=dead_variance, min_factors=2
    )
    rng = np.random.default_rng([seed, 3])
    n_factors, alive = len(train.names), np.flatnonzero(~train.dead)
    votes = np.zeros((len(train.dead), n_factors), np.int64)
    right = np.zeros(max(1, points // 2))
    factor = rng.integers(0, n_factors, len(right))
    predicted: Ints = np.full(len(right), -1)
    if len(alive):
        fitted = variance_points(train, points, batch, rng)
        np.add.at(votes, (alive[fitted.features.argmin(1)], fitted.factor), 1)
        scored = variance_points(held, points // 2, batch, rng)
        factor, predicted = scored.factor, votes.argmax(1)[alive[scored.features.argmin(1)]]
        right = (predicted == factor).astype(np.float64)
    found = weights(len(right), draws, seed) @ right
    row = measured(
        float(found[0]),
        CONVENTIONS[convention],
        draws=found[1:] if draws else None,
        null=(permuted(factor, null_draws, seed) == predicted).mean(1),
    )
    by_factor = [right[factor == k].mean() if (factor == k).any() else np.nan for k in range(n_factors)]
    parts = {
        "votes": Part(("latent", "factor"), votes, "votes of the latent for the factor", "votes"),
        "by_factor": Part(("factor",), by_factor, "share of the held-out votes on the factor that are right"),
    }
    return outcome(
        {"factor_vae_score": row},
        train,
        parts=parts,
        convention=convention,
        estimator=f"majority vote of {points} votes of {batch} examples, {points // 2} held out",
        bins=0,
        n_test=len(held.codes),
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        chance=1 / n_factors,
        interval="95 % bootstrap over held-out votes, which are drawn from held-out examples",
        null="held factors permuted against the held-out votes",
        source="Kim & Mnih 2018, arXiv 1802.05983, section 4",
    )
