"""Disentanglement, completeness and informativeness (DCI) from how much each latent matters for each factor.

Every score moves with the learner and with the number of examples: compare only what one convention gave for equal n.
Completeness calls it a fault when a factor takes two latents, also where one cannot hold it (an angle on a circle).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy import stats

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import permuted, weights
from cvi_widgets.metrics.disentanglement.importance import ESTIMATORS, Importances, importances
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, HELD_OUT, Part, measured, outcome, over_latents
from cvi_widgets.metrics.disentanglement.sample import Codes, Floats, HeldOut, Labels, chosen, count, split
from cvi_widgets.metrics.rows import Row

RESAMPLES = 30
NULL_REFITS = 20
CONVENTIONS = {"bagged": "bagged", "permuted": "permuted", "dlib": "reference"}
_INTERVALS = {
    "bagged": "95 % t interval over the resamples' single trees, wider than that of their mean",
    "permuted": HELD_OUT,
    "dlib": "none, each resample would need another fit",
}
_NULLS = {
    "bagged": "single trees fitted to permuted factors",
    "permuted": "none, each permutation would need another fit",
    "dlib": "none, each permutation would need another fit",
}
_SAYS = {
    "dci_disentanglement": "1 - H(importance over factors) / ln F, mean over latents weighted by importance",
    "dci_completeness": "1 - H(importance over latents) / ln L, mean over factors weighted by importance",
    "dci_informativeness": "accuracy on held-out examples, mean over factors",
}


def dci(
    codes: Codes,
    factors: Labels,
    *,
    test: HeldOut | None = None,
    convention: str = "bagged",
    resamples: int = RESAMPLES,
    draws: int = DRAWS,
    null_draws: int = NULL_REFITS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018, ICLR, section 2).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    test : codes and factors of held-out examples; else a random third is held out
    convention : one of `CONVENTIONS`
        `bagged` ranks codes as the reference does and is far faster. `permuted` counts only what helps on held-out
        examples, so noise on an aligned code lowers informativeness and not disentanglement, and codes that know
        nothing have no D and C. `dlib` is the reference: it takes minutes for 10,000 examples and 100 classes, and
        fits and counts dead latents, which the others do not.
    resamples : trees per factor of `bagged` and `permuted`, each on a resample of the examples
    draws : resamples of the held-out examples
    null_draws : refits to permuted factors, `bagged` only; 0 also leaves out the null of informativeness

    Returns
    -------
    Dataset over metric (dci_disentanglement, dci_completeness, dci_informativeness); `importance` (latent, factor);
    `disentanglement` (latent); `completeness`, `informativeness` (factor); `dead` (latent). D and C are NaN without any
    latent that matters, and informativeness is then that of guessing the most frequent class.
    """
    estimator = CONVENTIONS[chosen(convention, CONVENTIONS)]
    resamples, draws = count("resamples", resamples, 2), count("draws", draws)
    null_draws = count("null_draws", null_draws)
    train, held = split(
        codes, factors, test, seed=seed, factor_names=factor_names, dead_variance=dead_variance, min_factors=2
    )
    dead = train.dead
    if convention == "dlib":
        # The reference knows no dead latents; the mask is reported all the same.
        train, held = (part._replace(dead=np.zeros(len(dead), bool)) for part in (train, held))
    found = importances(train, held, estimator, resamples=resamples, draws=draws, null_draws=null_draws, seed=seed)
    rows = {
        "dci_disentanglement": _row(disentanglement, found, "dci_disentanglement", convention),
        "dci_completeness": _row(completeness, found, "dci_completeness", convention),
    }
    correct = (found.predicted == held.classes).astype(np.float64)
    right = weights(len(correct), draws, seed) @ correct.mean(1)
    rows["dci_informativeness"] = measured(
        float(right[0]),
        _SAYS["dci_informativeness"],
        draws=right[1:] if draws else None,
        null=(permuted(held.classes, DRAWS if null_draws else 0, seed) == found.predicted).mean((1, 2)),
    )
    parts = {
        "importance": Part(
            ("latent", "factor"), over_latents(found.value, train), "importance of the latent for the factor"
        ),
        "disentanglement": Part(("latent",), over_latents(one_of_many(found.value), train), "of each latent"),
        "completeness": Part(("factor",), one_of_many(found.value.T), "of each factor"),
        "informativeness": Part(("factor",), correct.mean(0), "held-out accuracy for each factor"),
    }
    return outcome(
        rows,
        train._replace(dead=dead),
        parts=parts,
        convention=convention,
        estimator=ESTIMATORS[estimator],
        bins=0,
        n_test=len(held.codes),
        resamples=0 if convention == "dlib" else resamples,
        draws=draws,
        null_draws=len(found.null),
        seed=seed,
        dead_variance=dead_variance,
        interval=f"disentanglement and completeness: {_INTERVALS[convention]}; informativeness: {HELD_OUT}",
        null=f"disentanglement and completeness: {_NULLS[convention]}; informativeness: held-out factors permuted",
        source="Eastwood & Williams 2018, ICLR, section 2",
    )


def one_of_many(importance: Floats) -> Floats:
    """1 - H(p) / ln n of each line of non-negative numbers, p its shares; (..., line) from (..., line, n).

    disentanglement_lib adds 1e-11 to every entry, so a line of zeros scores 0; so does this.
    """
    if not importance.shape[-1]:
        return np.full(importance.shape[:-1], np.nan)
    weight = importance + 1e-11
    p = weight / weight.sum(-1, keepdims=True)
    return np.asarray(1 + (p * np.log(p)).sum(-1) / np.log(max(2, importance.shape[-1])))


def disentanglement(importance: Floats) -> Floats:
    """Mean of the latents' disentanglement, weighted by importance; (...) from (..., latent, factor)."""
    mass = importance.sum(-1)
    total = mass.sum(-1)
    score = (one_of_many(importance) * mass).sum(-1)
    return np.asarray(np.divide(score, total, out=np.full_like(total, np.nan), where=total > 0))


def completeness(importance: Floats) -> Floats:
    """Mean of the factors' completeness, weighted by importance; (...) from (..., latent, factor)."""
    return disentanglement(np.swapaxes(importance, -1, -2))


def _row(score: Callable[[Floats], Floats], found: Importances, name: str, convention: str) -> Row:
    value, draws, null = float(score(found.value)), score(found.draws), score(found.null)
    null = null[np.isfinite(null)]
    if convention != "bagged":
        return measured(value, _SAYS[name], draws=draws if len(draws) else None, null=null)
    row = measured(value, _SAYS[name], null=null)
    each = draws[np.isfinite(draws)]
    if len(each) < 2:
        return row
    half = float(stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1))
    return row._replace(low=max(0.0, value - half), high=min(1.0, value + half))
