"""Separated attribute predictability: how much better the best latent predicts a factor than the second best.

A one-dimensional linear classifier cannot pick a middle class of an ordered factor, so the published discrete form
gives a perfect code of 40 positions less than 0.1; `tree` can, and is scaled so that guessing is 0 and perfection 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import balanced, permuted, weights
from cvi_widgets.metrics.disentanglement.information import top_two
from cvi_widgets.metrics.disentanglement.outcome import (
    DRAWS,
    EXAMPLES,
    HELD_OUT,
    Part,
    centred,
    measured,
    outcome,
)
from cvi_widgets.metrics.disentanglement.sample import (
    Codes,
    Floats,
    HeldOut,
    Labels,
    Sample,
    checked,
    chosen,
    count,
    split,
)

CONVENTIONS = {
    "tree": "best minus second latent, balanced accuracy of a decision tree on one latent, guessing 0 and perfect 1",
    "r2": "best minus second latent, squared correlation with the class number (factors taken as continuous)",
    "dlib": "best minus second latent, accuracy of LinearSVC(C=0.01, class_weight='balanced') on one latent",
}
SOURCE = "Kumar, Sattigeri & Balakrishnan 2018, arXiv 1711.00848, section 3"


def sap(
    codes: Codes,
    factors: Labels,
    *,
    test: HeldOut | None = None,
    convention: str = "tree",
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Separated attribute predictability (Kumar et al. 2018, arXiv 1711.00848), mean over factors.

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    test : codes and factors of held-out examples; else a random third is held out. `r2` fits nothing and takes all
    convention : one of `CONVENTIONS`

    Returns
    -------
    Dataset with value, interval and null over metric ("sap"); `by_factor`, `by_factor_low`, `by_factor_high` (factor);
    `score` (latent, factor); `dead` (latent). Dead latents predict nothing, except in `dlib`.
    """
    chosen(convention, CONVENTIONS)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    if convention == "r2":
        train = checked(codes, factors, seed=seed, factor_names=factor_names, dead_variance=dead_variance)
        held, scores, chance = train, *_correlations(train, draws, null_draws, seed)
    else:
        train, held = split(codes, factors, test, seed=seed, factor_names=factor_names, dead_variance=dead_variance)
        scores, chance = _accuracies(train, held, convention, draws, null_draws, seed)
    gaps = np.subtract(*top_two(scores))
    ends = np.array([centred(v, d) for v, d in zip(gaps[0], gaps[1:].T, strict=True)])
    null = np.subtract(*top_two(chance)).mean(1)
    row = measured(float(gaps[0].mean()), CONVENTIONS[convention], draws=gaps[1:].mean(1) if draws else None, null=null)
    parts = {
        "by_factor": Part(("factor",), gaps[0], "gap of each factor"),
        "by_factor_low": Part(("factor",), ends[:, 0], "lower end of the 95 % interval"),
        "by_factor_high": Part(("factor",), ends[:, 1], "upper end of the 95 % interval"),
        "score": Part(("latent", "factor"), scores[0], "score of one latent alone"),
    }
    return outcome(
        {"sap": row},
        train,
        parts=parts,
        convention=convention,
        estimator=CONVENTIONS[convention].partition(", ")[2],
        bins=0,
        n_test=len(held.codes),
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        interval=EXAMPLES if convention == "r2" else HELD_OUT,
        null="factors permuted jointly against the codes" + ("" if convention == "r2" else ", of held-out examples"),
        source=SOURCE,
    )


def leaf(sample: Sample, factor: int, most: int = 20) -> int:
    """Examples that a leaf of a tree must hold: `most`, or half of the smallest class where that is fewer."""
    smallest = int(np.bincount(sample.classes[:, factor]).min())
    return max(1, min(most, smallest // 2))


def _accuracies(
    train: Sample, held: Sample, convention: str, draws: int, null_draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Score of each latent alone, (1 + draw, latent, factor), and for held-out factors permuted."""
    n_latents = len(train.dead)
    line_weights = weights(len(held.codes), draws, seed)
    shuffled = permuted(np.arange(len(held.codes)), null_draws, seed)
    even = line_weights[:1]
    shape = (n_latents, len(train.names))
    scores, chance = np.zeros((len(line_weights), *shape)), np.zeros((null_draws, *shape))
    used = np.ones(n_latents, bool) if convention == "dlib" else ~train.dead
    for k in range(shape[1]):
        labels = held.classes[:, k]
        guess = (
            np.stack([_predicted(train, held, int(i), k, convention, seed) for i in np.flatnonzero(used)], axis=-1)
            if (used.any())
            else np.empty((len(labels), 0), np.int64)
        )
        right = guess == labels[:, None]
        if convention == "dlib":
            scores[:, used, k] = line_weights @ right
            for line, p in zip(chance, shuffled, strict=True):
                line[used, k] = (guess == labels[p, None]).mean(0)
        else:
            scores[:, used, k] = balanced(right, labels, line_weights)
            for line, p in zip(chance, shuffled, strict=True):
                line[used, k] = balanced(guess == labels[p, None], labels[p], even)[0]
    return np.clip(scores, 0, 1), np.clip(chance, 0, 1)


def _predicted(train: Sample, held: Sample, i: int, k: int, convention: str, seed: int) -> NDArray[np.int64]:
    if convention == "dlib":
        model = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
    else:
        model = DecisionTreeClassifier(min_samples_leaf=leaf(train, k), class_weight="balanced", random_state=seed)
    fitted = model.fit(train.codes[:, [i]], train.classes[:, k])
    return np.asarray(fitted.predict(held.codes[:, [i]]), np.int64)


def _correlations(sample: Sample, draws: int, null_draws: int, seed: int) -> tuple[Floats, Floats]:
    """Squared correlation of each latent with each class number, (1 + draw, latent, factor), and permuted."""
    z, y = sample.codes - sample.codes.mean(0), (sample.classes - sample.classes.mean(0)).astype(np.float64)
    products = (z[:, :, None] * y[:, None, :]).reshape(len(z), -1)
    line_weights = weights(len(z), draws, seed)
    mean_z, mean_y = line_weights @ z, line_weights @ y
    cross = (line_weights @ products).reshape(-1, z.shape[1], y.shape[1]) - mean_z[:, :, None] * mean_y[:, None, :]
    var_z, var_y = line_weights @ z**2 - mean_z**2, line_weights @ y**2 - mean_y**2
    size = np.where(sample.dead, np.inf, var_z)[:, :, None] * var_y[:, None, :]
    shuffled = permuted(np.arange(len(z)), null_draws, seed)
    apart = np.array([z.T @ y[p] / len(z) for p in shuffled]).reshape(-1, z.shape[1], y.shape[1])
    return np.asarray(cross**2 / size), np.asarray(apart**2 / size[:1])
