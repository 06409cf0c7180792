"""Modularity after Ridgeway & Mozer: does each latent know of one factor only?

Not the circuit modularity of `metrics.causal`. A high value says nothing about how much is known: one latent that
knows a little of one factor is perfectly modular. Read it beside explicitness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.information import ADJUSTED, DLIB, information, informative
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, EXAMPLES, Part, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, Floats, Labels, checked, chosen, count

_FORM = "1 - (sum_f I_f^2 - max_f I_f^2) / (max_f I_f^2 (F - 1))"
CONVENTIONS = {
    "adjusted": (
        ADJUSTED,
        f"{_FORM}, mean over latents that know of some factor; equal-mass bins, information adjusted for chance",
    ),
    "dlib": (DLIB, f"{_FORM}, mean over all latents; disentanglement_lib: 20 bins of equal width"),
}


def modularity_score(
    codes: Codes,
    factors: Labels,
    *,
    convention: str = "adjusted",
    bins: int | None = None,
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Modularity of latents (Ridgeway & Mozer 2018, arXiv 1802.05312, Eq. 2).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    convention : one of `CONVENTIONS`
        `adjusted` averages over latents that know more of some factor than the best of all latents does in 99 % of
        permutations, and has no value when there is none. `dlib` averages over all, dead ones included; codes that
        know nothing then score about 0.7, see `null_mean`.
    bins : of each latent, in place of the convention's

    Returns
    -------
    Dataset with value, interval and null over metric ("modularity"); `by_latent` (latent), NaN for latents left out;
    `informative`, `dead` (latent); `information` (latent, factor) in nats.

    Raises
    ------
    DataError
        Fewer than two factors, or bad codes or factors.
    """
    estimator, says = CONVENTIONS[chosen(convention, CONVENTIONS)]
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    sample = checked(codes, factors, factor_names=factor_names, dead_variance=dead_variance, min_factors=2, seed=seed)
    estimator = estimator if bins is None else replace(estimator, bins=bins)
    found = information(sample, estimator, draws, null_draws, seed)
    kept = informative(found) if estimator.adjusted else np.ones(len(sample.dead), bool)
    unknowing = np.nan if estimator.adjusted else 0.0
    by_latent = np.where(kept, _modular(found.value, unknowing), np.nan)
    # Codes that know nothing have no adjusted score, so there is nothing to compare one with.
    null = None if estimator.adjusted else _mean(_modular(found.null, unknowing), kept)
    row = measured(
        float(_mean(by_latent, kept)),
        says,
        draws=_mean(_modular(found.draws, unknowing), kept) if draws else None,
        null=null,
    )
    parts = {
        "by_latent": Part(("latent",), by_latent, "modularity of each latent that counts"),
        "informative": Part(("latent",), kept, "counts in the mean"),
        "information": Part(("latent", "factor"), found.value, "mutual information", "nats"),
    }
    return outcome(
        {"modularity": row},
        sample,
        parts=parts,
        convention=convention,
        estimator=estimator.described(found.bins),
        bins=found.bins,
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        interval=EXAMPLES,
        null="none, codes that know nothing have no score" if estimator.adjusted else "factors permuted jointly",
        source="Ridgeway & Mozer 2018, arXiv 1802.05312, Eq. 2",
    )


def _modular(info: Floats, unknowing: float) -> Floats:
    """Modularity of each latent, shape (..., latent), from information (..., latent, factor)."""
    squared = info**2
    top = squared.max(-1)
    others = squared.sum(-1) - top
    rest = np.divide(others, top * (info.shape[-1] - 1), out=np.full_like(top, np.nan), where=top > 0)
    return np.where(top > 0, 1 - rest, unknowing)


def _mean(values: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Mean over the kept latents that have a value, shape (...); NaN where there is none."""
    defined = np.isfinite(values) & kept
    number = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.asarray(np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0))
