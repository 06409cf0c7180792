"""beta-VAE score: can a linear classifier tell which factor a set of pairs shares, from how far apart their codes are?

It saturates: a rotated code with several mixed factors still scores 1. Never use it as the only measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import logistic, permuted, weights
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, Part, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, HeldOut, Ints, Labels, chosen, count, split
from cvi_widgets.metrics.disentanglement.votes import Points, difference_points

POINTS = 10_000
BATCH = 64
CONVENTIONS = {
    "active": "accuracy of logistic regression on standardised differences of the active latents, on points held out",
    "dlib": "accuracy of logistic regression on raw differences of all latents, on points held out",
}


def beta_vae_score(
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
    """beta-VAE score (Higgins et al. 2017, ICLR, section 3).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
        A point takes `batch` pairs that share their class of one factor from the examples given, with replacement.
    test : codes and factors from which the points to score on are drawn; else a random third of the examples
    convention : one of `CONVENTIONS`
    points : points to fit on; half as many are scored

    Returns
    -------
    Dataset with value, interval and null over metric ("beta_vae_score"); `by_factor` (factor); `dead` (latent). The
    chance level is 1 / F, which is also the score without any active latent.
    """
    chosen(convention, CONVENTIONS)
    points, batch = count("points", points, 10), count("batch", batch, 2)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    train, held = split(
        codes, factors, test, seed=seed, factor_names=factor_names, dead_variance=dead_variance, min_factors=2
    )
    dead = train.dead
    if convention == "dlib":
        train, held = (part._replace(dead=np.zeros(len(dead), bool)) for part in (train, held))
    rng = np.random.default_rng([seed, 4])
    fitted = difference_points(train, points, batch, rng)
    scored = difference_points(held, points // 2, batch, rng)
    predicted, converged = _predicted(fitted, scored, standardise=convention != "dlib")
    right = (predicted == scored.factor).astype(np.float64)
    found = weights(len(right), draws, seed) @ right
    row = measured(
        float(found[0]),
        CONVENTIONS[convention],
        draws=found[1:] if draws else None,
        null=(permuted(scored.factor, null_draws, seed) == predicted).mean(1),
    )
    shares = [right[scored.factor == k] for k in range(len(train.names))]
    parts = {
        "by_factor": Part(
            ("factor",),
            [share.mean() if len(share) else np.nan for share in shares],
            "share of the held-out points of the factor that are told right",
        )
    }
    return outcome(
        {"beta_vae_score": row},
        train._replace(dead=dead),
        parts=parts,
        convention=convention,
        estimator=f"scikit-learn LogisticRegression on {points} points of {batch} pairs, {points // 2} held out",
        bins=0,
        n_test=len(held.codes),
        unconverged_fits=int(not converged),
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        chance=1 / len(train.names),
        interval="95 % bootstrap over held-out points, which are drawn from held-out examples",
        null="shared factors permuted against the held-out points",
        source="Higgins et al. 2017, ICLR, section 3",
    )


def _predicted(fitted: Points, scored: Points, *, standardise: bool) -> tuple[Ints, bool]:
    if not fitted.features.shape[1]:
        return np.full(len(scored.factor), np.bincount(fitted.factor).argmax()), True
    predict, converged = logistic(fitted.features, fitted.factor, standardise=standardise, max_iter=1000)
    return np.unique(fitted.factor)[predict(scored.features).argmax(1)], converged
