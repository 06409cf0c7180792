"""InfoM, InfoE and InfoC: modularity, explicitness and compactness of a code, all from information.

InfoC calls it a fault when a factor takes two latents, like DCI's completeness and MIG. InfoE asks a linear predictor
of the class probabilities, so middle classes of an ordered factor are hard for it, as they are for explicitness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import logistic, permuted, weights
from cvi_widgets.metrics.disentanglement.information import ADJUSTED, DLIB, information, informative
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, EXAMPLES, HELD_OUT, Part, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import (
    SAMPLE,
    Codes,
    FactorSource,
    Floats,
    HeldOut,
    Labels,
    SplitSample,
    checked,
    chosen,
    count,
    drawn,
    split,
)

CONVENTIONS = {"adjusted": ADJUSTED, "histogram": DLIB}
_NULLS = {"adjusted": "none, codes that know nothing have no score", "histogram": "factors permuted jointly"}
_FLOOR = 1e-12


def infomec(
    codes: Codes,
    factors: Labels,
    *,
    test: HeldOut | None = None,
    convention: str = "adjusted",
    bins: int | None = None,
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """InfoMEC (Hsu, Dorrell, Whittington, Wu & Finn 2023, arXiv 2305.18378, section 5).

    With NMI_ij = I(z_i; s_j) / H(s_j): InfoM is the mean over latents of (max_j NMI / sum_j NMI - 1/F) / (1 - 1/F),
    InfoC the same over factors with latents in the sum, and InfoE the mean over factors of 1 - H_V(s|z) / H_V(s) with
    logistic regression as the family V, cross-entropies on held-out examples.

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    test : codes and factors of held-out examples for InfoE; else a random third is held out from its fit
    convention : `adjusted` for information adjusted for chance in equal-mass bins, `histogram` for 20 equal-width bins
        Both leave out dead latents; `adjusted` also latents that know of no factor more than chance would.
    bins : of each latent, in place of the convention's

    Returns
    -------
    Dataset with value, interval and null over metric (infom, infoe, infoc); `information` (latent, factor) in nats;
    `infom_by_latent`, `informative`, `dead` (latent); `infoe_by_factor`, `infoc_by_factor` (factor). InfoM and InfoC
    are NaN without any latent that counts, and InfoE is then 0.
    """
    estimator = CONVENTIONS[chosen(convention, CONVENTIONS)]
    estimator = estimator if bins is None else replace(estimator, bins=bins)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    if callable(codes) and isinstance(factors, FactorSource):
        # Drawn once for both parts, so that nothing is encoded twice.
        factor_names = factor_names or factors.factor_names
        codes, factors = drawn(codes, factors, SAMPLE, seed)
    options: dict[str, Any] = {
        "factor_names": factor_names,
        "dead_variance": dead_variance,
        "min_factors": 2,
        "seed": seed,
    }
    sample = checked(codes, factors, **options)
    parts_of = split(codes, factors, test, **options)
    found = information(sample, estimator, draws, null_draws, seed)
    kept = ~sample.dead & (informative(found) if estimator.adjusted else True)
    scaled = [
        info / entropy[..., None, :]
        for info, entropy in (
            (found.value, found.entropy),
            (found.draws, found.draws_entropy),
            (found.null, found.entropy),
        )
    ]
    by_latent, by_factor = _share(scaled[0], kept, over="factor"), _share(scaled[0], kept, over="latent")
    explicit, explicit_draws, explicit_null, unconverged = _explicit(parts_of, draws, null_draws, seed)
    rows = {}
    told: tuple[tuple[str, Literal["factor", "latent"], str], ...] = (
        ("infom", "factor", "largest share of NMI over factors, chance 0, mean over latents that count"),
        ("infoc", "latent", "largest share of NMI over latents that count, chance 0, mean over factors"),
    )
    for name, over, says in told:
        value, boot = (_mean(_share(s, kept, over)) for s in scaled[:2])
        # Codes that know nothing have no adjusted score, so there is nothing to compare one with.
        null = None if estimator.adjusted else _mean(_share(scaled[2], kept, over))
        rows[name] = measured(float(value), says, draws=boot if draws else None, null=null)
    rows["infoe"] = measured(
        float(explicit.mean()),
        "1 - H(s|z) / H(s), logistic regression on held-out examples, not below 0, mean over factors",
        draws=explicit_draws.mean(1) if draws else None,
        null=explicit_null.mean(1),
    )
    parts = {
        "infom_by_latent": Part(("latent",), by_latent, "modularity of each latent that counts"),
        "infoc_by_factor": Part(("factor",), by_factor, "compactness of each factor"),
        "infoe_by_factor": Part(("factor",), explicit, "explicitness of each factor"),
        "informative": Part(("latent",), kept, "counts in InfoM and InfoC"),
        "information": Part(("latent", "factor"), found.value, "mutual information", "nats"),
    }
    return outcome(
        {name: rows[name] for name in ("infom", "infoe", "infoc")},
        sample,
        parts=parts,
        convention=convention,
        estimator=f"{estimator.described(found.bins)}; logistic regression (C=100) on standardised codes",
        bins=found.bins,
        n_test=len(parts_of.test.codes),
        unconverged_fits=unconverged,
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        interval=f"InfoM, InfoC: {EXAMPLES}; InfoE: {HELD_OUT}",
        null=f"InfoM, InfoC: {_NULLS[convention]}; InfoE: held-out factors permuted against the predictions",
        source="Hsu et al. 2023, arXiv 2305.18378, section 5",
    )


def _share(scaled: Floats, kept: NDArray[np.bool_], over: Literal["factor", "latent"]) -> Floats:
    """(max / sum - 1/n) / (1 - 1/n) over factors for each latent, or over the kept latents for each factor.

    NaN for latents that are not kept and for lines without any information; one line of one is 1.
    """
    counted = np.where(kept[:, None], scaled, 0)
    axis = -1 if over == "factor" else -2
    n = scaled.shape[-1] if over == "factor" else int(kept.sum())
    top, total = counted.max(axis), counted.sum(axis)
    share = np.divide(top, total, out=np.full_like(total, np.nan), where=total > 0)
    return np.asarray((share - 1 / n) / (1 - 1 / n) if n > 1 else share)


def _mean(values: Floats) -> Floats:
    defined = np.isfinite(values)
    number = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.asarray(np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0))


def _explicit(parts: SplitSample, draws: int, null_draws: int, seed: int) -> tuple[Floats, Floats, Floats, int]:
    """InfoE of each factor, (factor); its resamples and permutations, (draw, factor); fits that did not converge."""
    train, held = parts
    n_factors = len(train.names)
    line_weights = weights(len(held.codes), draws, seed)
    shuffled = permuted(np.arange(len(held.codes)), null_draws, seed)
    found, chance = np.zeros((len(line_weights), n_factors)), np.zeros((null_draws, n_factors))
    if train.dead.all():
        return found[0], found[1:], chance, 0
    unconverged = 0
    rows = np.arange(len(held.codes))
    for k in range(n_factors):
        labels = held.classes[:, k]
        # A class that no example to fit on has is as unlikely as a predictor can say.
        share = np.maximum(np.bincount(train.classes[:, k], minlength=labels.max() + 1) / len(train.codes), _FLOOR)
        predict, converged = logistic(train.alive, train.classes[:, k], C=100.0, max_iter=500)
        unconverged += not converged
        logs = np.full((len(labels), len(share)), np.log(_FLOOR))
        logs[:, np.unique(train.classes[:, k])] = np.log(np.maximum(predict(held.alive), _FLOOR))
        without = -np.log(share)[labels]
        found[:, k] = 1 - (line_weights @ -logs[rows, labels]) / (line_weights @ without)
        chance[:, k] = [1 + logs[rows, labels[p]].mean() / without.mean() for p in shuffled]
    found, chance = np.maximum(found, 0), np.maximum(chance, 0)
    return found[0], found[1:], chance, unconverged
