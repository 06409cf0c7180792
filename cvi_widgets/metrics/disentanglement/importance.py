"""Learners that say how much each latent matters for predicting a factor.

`reference` is disentanglement_lib's: scikit-learn's gradient boosting with its defaults, one small tree per class and
round, which takes minutes. `bagged` grows one decision tree on each of a number of resamples and averages what each
latent takes from the impurity; its resamples are those of a bootstrap, so one fit gives the interval as well. Both
give some importance to latents that only helped to learn the training examples by heart. `permuted` takes the trees of
`bagged` and asks held-out examples instead: how many more are wrong when a latent's values are dealt out anew? A loss
within 3 standard errors of 0 counts as none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from cvi_widgets.metrics.disentanglement.heldout import weights
from cvi_widgets.metrics.disentanglement.sample import Floats, Ints, Sample
from cvi_widgets.metrics.disentanglement.sap import leaf

SURE = 3.0
"""Standard errors by which the held-out accuracy lost must exceed 0 to count as importance in `permuted`."""
_BAGGED = "bagged scikit-learn DecisionTreeClassifier, leaves of 20 examples or half the smallest class"
ESTIMATORS = {
    "bagged": f"{_BAGGED}, impurity",
    "permuted": f"{_BAGGED}, loss of held-out accuracy when a latent is permuted",
    "reference": "scikit-learn GradientBoostingClassifier, its defaults, impurity",
}


class Importances(NamedTuple):
    """What the predictors of all factors say of the latents that are not dead."""

    value: Floats
    """Importance (latent, factor), never negative."""
    draws: Floats
    """The same of each resample, (draw, latent, factor); no line for the reference."""
    null: Floats
    """The same where the factors are permuted; `bagged` only, the others would have to be fitted again."""
    predicted: Ints
    """Predicted classes of the held-out examples, (example, factor)."""


def importances(
    train: Sample, held: Sample, estimator: str, *, resamples: int, draws: int, null_draws: int, seed: int
) -> Importances:
    """Fit one predictor per factor on the latents of `train` that are not dead, and score it on `held`."""
    n_latents, n_factors = train.alive.shape[1], len(train.names)
    if not n_latents:
        guess = np.array([np.bincount(column).argmax() for column in train.classes.T])
        nothing = np.zeros((0, 0, n_factors))
        return Importances(np.zeros((0, n_factors)), nothing, nothing, np.tile(guess, (len(held.codes), 1)))
    if estimator == "reference":
        return _reference(train, held, seed)
    grown = [_grown(train, k, resamples, seed) for k in range(n_factors)]
    predicted = np.stack([_votes(trees, held.alive).argmax(1) for trees in grown], axis=1)
    if estimator == "permuted":
        return _lost(grown, held, predicted, draws, seed)
    each = np.stack([[tree.feature_importances_ for tree in trees] for trees in grown], axis=-1)
    return Importances(each.mean(0), each, _null(train, null_draws, seed), predicted)


def _reference(train: Sample, held: Sample, seed: int) -> Importances:
    models = [
        GradientBoostingClassifier(random_state=seed).fit(train.alive, train.classes[:, k])
        for k in range(len(train.names))
    ]
    value = np.abs(np.stack([model.feature_importances_ for model in models], axis=1))
    predicted = np.stack([model.predict(held.alive) for model in models], axis=1).astype(np.int64)
    nothing = np.zeros((0, *value.shape))
    return Importances(value, nothing, nothing, predicted)


def _grown(train: Sample, k: int, resamples: int, seed: int) -> list[DecisionTreeClassifier]:
    """One tree per resample; the resamples are the same for every factor, so a draw is one resample of examples."""
    rng = np.random.default_rng(seed)
    trees = []
    for _ in range(resamples):
        rows = rng.integers(0, len(train.codes), len(train.codes))
        trees.append(_tree(train, k, seed).fit(train.alive[rows], train.classes[rows, k]))
    return trees


def _null(train: Sample, draws: int, seed: int) -> Floats:
    """Importances of single trees on resamples whose factors are permuted against the codes, (draw, latent, factor)."""
    rng = np.random.default_rng([seed, 1])
    out = np.zeros((draws, train.alive.shape[1], len(train.names)))
    for line in out:
        rows = rng.integers(0, len(train.codes), len(train.codes))
        broken = rng.permutation(rows)
        for k in range(len(train.names)):
            line[:, k] = _tree(train, k, seed).fit(train.alive[rows], train.classes[broken, k]).feature_importances_
    return out


def _lost(
    grown: list[list[DecisionTreeClassifier]], held: Sample, predicted: Ints, draws: int, seed: int
) -> Importances:
    """Accuracy lost on held-out examples when one latent is permuted, resampled over those examples."""
    rng = np.random.default_rng([seed, 2])
    n, n_latents = held.alive.shape
    line_weights = weights(n, draws, seed)
    each = np.zeros((len(line_weights), n_latents, predicted.shape[1]))
    for i in range(n_latents):
        without = held.alive.copy()
        without[:, i] = rng.permutation(without[:, i])
        for k, trees in enumerate(grown):
            changed = _votes(trees, without).argmax(1)
            fewer = _fewer(predicted[:, k], changed, held.classes[:, k])
            # What is left of noise after cutting at 0 is concentrated by chance, and would pass for disentanglement.
            if fewer.mean() > SURE * fewer.std() / np.sqrt(n):
                each[:, i, k] = line_weights @ fewer
    each = np.maximum(each, 0)
    return Importances(each[0], each[1:], each[:0], predicted)


def _fewer(before: Ints, after: Ints, labels: Ints) -> Floats:
    return np.asarray((before == labels).astype(np.float64) - (after == labels))


def _votes(trees: list[DecisionTreeClassifier], codes: Floats) -> NDArray[np.float64]:
    width = 1 + max(int(tree.classes_.max()) for tree in trees)
    votes = np.zeros((len(codes), width))
    for tree in trees:
        # A resample may lack a class.
        votes[:, tree.classes_] += tree.predict_proba(codes)
    return votes


def _tree(train: Sample, k: int, seed: int) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(min_samples_leaf=leaf(train, k), random_state=seed)
