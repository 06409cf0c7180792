"""Explicitness after Ridgeway & Mozer: can each class of each factor be read from the whole code by a linear rule?

A rotated code is as explicit as an aligned one, and a middle class of an ordered factor is not separable linearly:
a perfect one-dimensional code of 40 positions does not reach 1. Not a measure of disentanglement by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import logistic, permuted, weights
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, HELD_OUT, Part, centred, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, Floats, HeldOut, Ints, Labels, chosen, count, split

CONVENTIONS = {
    "scaled": "2 AUC - 1 of logistic regression, one class against the rest, on held-out examples; active latents",
    "dlib": "AUC of logistic regression, one class against the rest, on held-out examples; from 0.5 to 1, all latents",
}


def explicitness(
    codes: Codes,
    factors: Labels,
    *,
    test: HeldOut | None = None,
    convention: str = "scaled",
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Explicitness of codes (Ridgeway & Mozer 2018, arXiv 1802.05312, section 3), mean over classes, then factors.

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    test : codes and factors of held-out examples; else a random third is held out
    convention : one of `CONVENTIONS`

    Returns
    -------
    Dataset with value, interval and null over metric ("explicitness"); `by_factor`, `by_factor_low`, `by_factor_high`
    (factor); `dead` (latent). Without any latent that is not dead the value is that of guessing.
    """
    chosen(convention, CONVENTIONS)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    train, held = split(codes, factors, test, seed=seed, factor_names=factor_names, dead_variance=dead_variance)
    used = ~train.dead if convention == "scaled" else np.ones(len(train.dead), bool)
    line_weights = weights(len(held.codes), draws, seed)
    shuffled = permuted(np.arange(len(held.codes)), null_draws, seed)
    areas, null, unconverged = [], [], 0
    for k in range(len(train.names)):
        labels = held.classes[:, k]
        if used.any():
            predict, converged = logistic(train.codes[:, used], train.classes[:, k])
            unconverged += not converged
            scores = predict(held.codes[:, used])
            present = np.unique(train.classes[:, k])
        else:
            present = np.unique(train.classes[:, k])
            scores = np.zeros((len(labels), len(present)))
        areas.append(_mean_area(scores, labels, present, line_weights))
        null.append(_null_areas(scores, labels, present, shuffled))
    found, chance = np.stack(areas, axis=1), np.stack(null, axis=1)
    if convention == "scaled":
        found, chance = 2 * found - 1, 2 * chance - 1
    bounds = (-1.0, 1.0) if convention == "scaled" else (0.0, 1.0)
    ends = np.array([centred(v, d, bounds) for v, d in zip(found[0], found[1:].T, strict=True)])
    row = measured(
        float(found[0].mean()),
        CONVENTIONS[convention],
        draws=found[1:].mean(1) if draws else None,
        null=chance.mean(1),
        within=bounds,
    )
    parts = {
        "by_factor": Part(("factor",), found[0], "explicitness of each factor"),
        "by_factor_low": Part(("factor",), ends[:, 0], "lower end of the 95 % interval"),
        "by_factor_high": Part(("factor",), ends[:, 1], "upper end of the 95 % interval"),
    }
    return outcome(
        {"explicitness": row},
        train,
        parts=parts,
        convention=convention,
        estimator="scikit-learn LogisticRegression, its defaults, on standardised codes",
        bins=0,
        n_test=len(held.codes),
        unconverged_fits=unconverged,
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        interval=HELD_OUT,
        null="held-out factors permuted jointly against the predictions",
        source="Ridgeway & Mozer 2018, arXiv 1802.05312, section 3",
    )


def _mean_area(scores: Floats, labels: Ints, present: Ints, line_weights: Floats) -> Floats:
    """Area under the curve of each class against the rest, mean over classes, shape (draw,).

    The weighted share of (member, other) pairs that are ranked right, ties counted half. Classes that a resample lacks
    are left out of its mean.
    """
    areas = []
    for column, klass in enumerate(present):
        member = labels == klass
        if not member.any() or member.all():
            continue
        areas.append(_area(scores[:, column], member, line_weights))
    stacked = np.stack(areas)
    defined = np.isfinite(stacked)
    return np.asarray(np.where(defined, stacked, 0).sum(0) / np.maximum(defined.sum(0), 1))


def _area(score: Floats, member: Ints, line_weights: Floats) -> Floats:
    values, tie = np.unique(score, return_inverse=True)
    inside = line_weights[:, member]
    if len(values) == len(score):
        order = np.argsort(score)
        others = np.where(member[order], 0, line_weights[:, order])
        below = np.cumsum(others, axis=1) - others / 2
        rank = np.empty(len(score), np.int64)
        rank[order] = np.arange(len(score))
        right = (inside * below[:, rank[member]]).sum(1)
        total = others.sum(1)
    else:
        mass = np.stack([np.bincount(tie, np.where(member, 0, line), len(values)) for line in line_weights])
        below = np.cumsum(mass, axis=1) - mass / 2
        right = (inside * below[:, tie[member]]).sum(1)
        total = mass.sum(1)
    pairs = inside.sum(1) * total
    # Rounded, so that scores that are all alike give exactly one half.
    return np.asarray(np.round(np.divide(right, pairs, out=np.full_like(right, np.nan), where=pairs > 0), 12))


def _null_areas(scores: Floats, labels: Ints, present: Ints, shuffled: Ints) -> Floats:
    """Mean area for labels permuted against the scores, shape (draw,), by the rank sum."""
    total = np.zeros(len(shuffled))
    classes = 0
    for column, klass in enumerate(present):
        members = int((labels == klass).sum())
        if not 0 < members < len(labels):
            continue
        _, tie, counts = np.unique(scores[:, column], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[tie]
        mine = (labels == klass)[shuffled]
        total += ((mine @ ranks) - members * (members + 1) / 2) / (members * (len(labels) - members))
        classes += 1
    return np.asarray(total / max(classes, 1))
