"""Interventional robustness: how little a latent moves when one factor is held and all others change.

From observed groups, as disentanglement_lib has it: holding a factor is selecting examples, which equals intervening
only where factors are independent. For effects of real interventions use the causal metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.information import cut_into
from cvi_widgets.metrics.disentanglement.outcome import EXAMPLES, Part, centred, measured, outcome
from cvi_widgets.metrics.disentanglement.sample import Codes, Floats, Ints, Labels, checked, chosen, count

QUANTILE = 0.99
CONVENTIONS = {
    "quantile": "1 - (99 % deviation with a factor held / 99 % deviation), best factor, mean over active latents",
    "dlib": "1 - (99 % deviation with a factor held / largest deviation), best factor, mean over latents that vary at "
    "all weighted by their largest deviation; factors cut to 20 bins of equal width",
}


def irs(
    codes: Codes,
    factors: Labels,
    *,
    convention: str = "quantile",
    draws: int = 100,
    null_draws: int = 50,
    seed: int = 0,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Interventional robustness score (Suter et al. 2019, arXiv 1811.00007, section 4).

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index to codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    convention : one of `CONVENTIONS`
        `quantile` takes one quantile above and below the line, so that a latent that follows no factor scores 0;
        with the largest deviation below it scores about 0.35 for Gaussian noise and 10,000 examples.

    Returns
    -------
    Dataset with value, interval and null over metric ("irs"); `robustness` (latent, factor); `by_latent`,
    `by_latent_low`, `by_latent_high`, `dead` (latent). NaN without any latent that counts.
    """
    chosen(convention, CONVENTIONS)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    sample = checked(codes, factors, factor_names=factor_names, dead_variance=dead_variance, seed=seed)
    dlib = convention == "dlib"
    used = np.ptp(sample.codes, axis=0) > 0 if dlib else ~sample.dead
    z, classes = sample.codes[:, used], sample.classes
    if dlib:
        classes = np.stack([cut_into(column, 20, "width") for column in classes.T.astype(np.float64)], axis=1)
    rng = np.random.default_rng([seed, 5])
    n = len(z)
    robust, scale = _robustness(z, classes, dlib)
    resamples = (rng.integers(0, n, n) for _ in range(draws))
    drawn = [_robustness(z[rows], classes[rows], dlib) for rows in resamples]
    null = [_score(*_robustness(z, classes[rng.permutation(n)], dlib), dlib) for _ in range(null_draws)]
    row = measured(
        _score(robust, scale, dlib),
        CONVENTIONS[convention],
        draws=[_score(*pair, dlib) for pair in drawn] if draws else None,
        null=null if used.any() else None,
    )
    full = np.full((3, len(used)), np.nan)
    matrix = np.full((len(used), len(sample.names)), np.nan)
    matrix[used] = robust
    full[0, used] = robust.max(1)
    each = np.array([pair[0].max(1) for pair in drawn]).reshape(draws, int(used.sum()))
    for place, value, draw in zip(np.flatnonzero(used), robust.max(1), each.T, strict=True):
        full[1:, place] = centred(value, draw)
    parts = {
        "robustness": Part(("latent", "factor"), matrix, "robustness of the latent with the factor held"),
        "by_latent": Part(("latent",), full[0], "robustness for its best factor"),
        "by_latent_low": Part(("latent",), full[1], "lower end of the 95 % interval"),
        "by_latent_high": Part(("latent",), full[2], "upper end of the 95 % interval"),
    }
    return outcome(
        {"irs": row},
        sample,
        parts=parts,
        convention=convention,
        estimator="99 % quantile of |z - mean of its group|",
        bins=20 if dlib else 0,
        draws=draws,
        null_draws=null_draws,
        seed=seed,
        dead_variance=dead_variance,
        interval=EXAMPLES,
        null="factors permuted jointly against the codes",
        source="Suter et al. 2019, arXiv 1811.00007, section 4",
    )


def _robustness(z: Floats, classes: Ints, dlib: bool) -> tuple[Floats, Floats]:
    """Robustness (latent, factor) and the deviation of each latent that it is relative to, (latent,)."""
    away = np.abs(z - z.mean(0))
    scale = away.max(0) if dlib else np.quantile(away, QUANTILE, axis=0)
    moved = np.zeros((z.shape[1], classes.shape[1]))
    for k, column in enumerate(classes.T):
        order = np.argsort(column, kind="stable")
        groups = np.split(z[order], np.flatnonzero(np.diff(column[order])) + 1)
        moved[:, k] = np.mean([np.quantile(np.abs(g - g.mean(0)), QUANTILE, axis=0) for g in groups], axis=0)
    ratio = np.divide(moved, scale[:, None], out=np.ones_like(moved), where=scale[:, None] > 0)
    # A group may by chance reach further than all examples together do.
    return np.maximum(0, 1 - ratio), scale


def _score(robust: Floats, scale: Floats, dlib: bool) -> float:
    if not len(robust):
        return float("nan")
    return float(np.average(robust.max(1), weights=scale if dlib and scale.sum() > 0 else None))
