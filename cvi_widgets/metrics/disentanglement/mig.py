"""Mutual information gap: how far ahead of all others the latent is that knows most about a factor.

Do not read it as a measure of modularity: a latent may win for two factors and the gap stays high. It punishes a factor
that two latents share, wanted or not (an angle coded as sine and cosine).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.information import (
    ADJUSTED,
    DLIB,
    Estimator,
    information,
    top_two,
)
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, EXAMPLES, Part, centred, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, Floats, Labels, checked, chosen, count


@dataclass(frozen=True)
class _Convention:
    estimator: Estimator
    per: Literal["factor", "code"]
    says: str


_GAP = "(I_1 - I_2) / H(factor), mean over factors"
CONVENTIONS = {
    "adjusted": _Convention(
        ADJUSTED, "factor", f"{_GAP}; equal-mass bins, information adjusted for chance, active latents only"
    ),
    "dlib": _Convention(DLIB, "factor", f"{_GAP}; disentanglement_lib: 20 bins of equal width"),
    "dcf": _Convention(
        Estimator("width", 20, factor_bins=20), "factor", f"{_GAP}; factors cut to 20 bins of equal width like codes"
    ),
    "zaidi": _Convention(
        Estimator("width", 10, factor_bins=10), "code", "I_1 - I_2 with each I divided by H(code), 10 bins of both"
    ),
    "zaidi_discrete": _Convention(
        Estimator("width", 20), "code", "I_1 - I_2 with each I divided by H(code), 20 bins of codes, factors as given"
    ),
}
"""Conventions by name: ours, and those of disentanglement_lib, of Facebook's correlated-factors code, and of Zaidi et
al.'s code (Ubisoft, with factors declared continuous or discrete), which divides by the entropy of the code."""


def mig(
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
    """Mutual information gap (Chen et al. 2018, arXiv 1802.04942, Eq. 6).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    convention : one of `CONVENTIONS`
    bins : of each latent, in place of the convention's
    draws, null_draws : bootstrap resamples and permutations of the factors against the codes

    Returns
    -------
    Dataset with `value`, `ci_low`, `ci_high`, `null_mean`, `null_sd`, `p` over metric ("mig"); `by_factor`,
    `by_factor_low`, `by_factor_high` (factor); `information` (latent, factor) in nats; `dead` (latent).

    Examples
    --------
    >>> classes = np.random.default_rng(0).integers(0, 4, (400, 2))
    >>> round(mig(classes.astype(float), classes)["value"].item(), 3)
    1.0
    """
    how = CONVENTIONS[chosen(convention, CONVENTIONS)]
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    sample = checked(codes, factors, factor_names=factor_names, dead_variance=dead_variance, seed=seed)
    estimator = how.estimator if bins is None else replace(how.estimator, bins=bins)
    found = information(sample, estimator, draws, null_draws, seed)
    gaps = _gaps(found.value, found.entropy, found.code_entropy, how.per)
    resampled = _gaps(found.draws, found.draws_entropy, found.draws_code_entropy, how.per)
    permuted = _gaps(found.null, found.entropy, found.code_entropy, how.per)
    ends = np.array([centred(v, d) for v, d in zip(gaps, resampled.T, strict=True)])
    row = measured(float(gaps.mean()), how.says, draws=resampled.mean(1) if draws else None, null=permuted.mean(1))
    parts = {
        "by_factor": Part(("factor",), gaps, "gap of each factor"),
        "by_factor_low": Part(("factor",), ends[:, 0], "lower end of the 95 % interval"),
        "by_factor_high": Part(("factor",), ends[:, 1], "upper end of the 95 % interval"),
        "information": Part(("latent", "factor"), found.value, "mutual information", "nats"),
        "entropy": Part(("factor",), found.entropy, "entropy of the factor", "nats"),
    }
    return outcome(
        {"mig": row},
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
        null="examples of the factors permuted jointly against the codes",
        source="Chen et al. 2018, arXiv 1802.04942, Eq. 6",
    )


def _gaps(info: Floats, entropy: Floats, code_entropy: Floats, per: str) -> Floats:
    """Gap of each factor, shape (..., factor), from information (..., latent, factor)."""
    if per == "factor":
        first, second = top_two(info)
        return np.asarray((first - second) / entropy)
    scaled = info / np.where(code_entropy > 0, code_entropy, np.inf)[..., None]
    first, second = top_two(np.asarray(scaled))
    return np.asarray(first - second)
