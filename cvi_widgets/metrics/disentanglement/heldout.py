"""Scores of fitted predictors on held-out examples, resampled without fitting again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cvi_widgets.metrics.disentanglement.sample import Floats, Ints
from cvi_widgets.metrics.statistics import bootstrap_weights


def weights(n: int, draws: int, seed: int) -> Floats:
    """Bootstrap weights, shape (1 + draw, example): the first line weighs all examples alike, each sums to 1."""
    plain = np.full((1, n), 1 / n)
    return plain if not draws else np.concatenate([plain, bootstrap_weights(n, draws, seed).astype(np.float64)])


def permuted(values: Ints, draws: int, seed: int) -> Ints:
    """`values`, shape (example, ...), with its lines permuted, shape (draw, example, ...)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(values) for _ in range(draws)]) if draws else np.empty((0, *values.shape), int)


def balanced(correct: NDArray[np.bool_], labels: Ints, line_weights: Floats) -> Floats:
    """Balanced accuracy scaled so that guessing is 0, shape (draw, column), from correctness (example, column).

    The mean over the classes present of the share predicted right, `a`, becomes `(a - 1/K) / (1 - 1/K)`.
    """
    n_classes = int(labels.max()) + 1
    present = labels[:, None] == np.arange(n_classes)
    mass = line_weights @ present
    hits = np.stack([line_weights @ (correct & mine[:, None]) for mine in present.T], axis=1)
    seen = (mass > 0).sum(axis=1, keepdims=True)
    share = np.divide(hits, mass[..., None], out=np.zeros_like(hits), where=mass[..., None] > 0).sum(1) / seen
    return np.asarray((share - 1 / n_classes) / (1 - 1 / n_classes))


def logistic(
    codes: Floats, labels: Ints, *, standardise: bool = True, **options: Any
) -> tuple[Callable[[Floats], Floats], bool]:
    """Class probabilities of scikit-learn's logistic regression as a function of codes, and whether it converged."""
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(codes)
    with warnings.catch_warnings():
        # Whether it converged is returned, so that the result can say so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(**options).fit(scaler.transform(codes), labels)
    converged = bool((model.n_iter_ < model.max_iter).all())
    return lambda z: np.asarray(model.predict_proba(scaler.transform(z)), np.float64), converged
