"""Unsupervised disentanglement ranking: do models that differ only in their seed find the same latents?

No factors are needed, so it can choose among trained models where nothing is known. Agreement is not truth: models that
collapse to the same latent agree as well, and one active latent each is enough for a perfect score.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from cvi_widgets.errors import DataError
from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.metrics.disentanglement.heldout import weights
from cvi_widgets.metrics.disentanglement.outcome import DRAWS, EXAMPLES, Part, measured
from cvi_widgets.metrics.disentanglement.sample import MIN_EXAMPLES, Floats, checked_codes, chosen, count
from cvi_widgets.metrics.rows import table

CONVENTIONS = {
    "spearman": "similarity is the absolute Spearman correlation of two latents",
    "lasso": "similarity is the absolute coefficient of Lasso(alpha=0.1) from one model's standardised latents to "
    "the other's",
}
ALPHA = 0.1


def udr(
    models: Sequence[ArrayLike],
    *,
    convention: str = "spearman",
    active: Sequence[ArrayLike] | None = None,
    draws: int = DRAWS,
    null_draws: int = DRAWS,
    seed: int = 0,
    dead_variance: float = ACTIVE_VARIANCE,
) -> xr.Dataset:
    """Unsupervised disentanglement ranking (Duan et al. 2020, arXiv 1905.12614, Eq. 2 and 3).

    With R the similarity of the active latents of two models and r its maximum along a line, the pair scores
    `(sum_a r_a^2 / sum_b R_ab + sum_b r_b^2 / sum_a R_ab) / (d_a + d_b)`; a model scores the median over its pairs.

    Parameters
    ----------
    models : one array of codes, shape (example, latent), per model, all of the same examples in the same order
    convention : `spearman` (UDR_S), or `lasso` (UDR_L), which is neither resampled nor permuted: every draw is a refit
    active
        Masks, shape (latent,), per model, for instance KL > 0.01 as published; else variance above `dead_variance`.

    Returns
    -------
    Dataset with value, interval and null over metric ("udr", the mean over models); `by_model`, `by_model_low`,
    `by_model_high`, `n_dead` (model); `pair` (model, other), NaN on the diagonal. A pair of which one has no active
    latent scores 0.

    Raises
    ------
    DataError
        Fewer than two models, different numbers of examples, NaN, or masks of another shape.
    """
    chosen(convention, CONVENTIONS)
    draws, null_draws = count("draws", draws), count("null_draws", null_draws)
    codes = [checked_codes(z, f"codes of model {m}") for m, z in enumerate(models)]
    if len(codes) < 2:
        raise DataError(f"models are {len(codes)}; at least 2 are needed.")
    lengths = {len(z) for z in codes}
    if len(lengths) > 1 or min(lengths) < MIN_EXAMPLES:
        raise DataError(
            f"models have {', '.join(str(len(z)) for z in codes)} examples; "
            f"all need the same ones, at least {MIN_EXAMPLES}."
        )
    alive = _active(codes, active, dead_variance)
    kept = [z[:, mask] for z, mask in zip(codes, alive, strict=True)]
    n, n_models = len(codes[0]), len(codes)
    refits = convention == "lasso"
    line_weights = weights(n, 0 if refits else draws, seed)
    rng = np.random.default_rng([seed, 6])
    shuffled = [] if refits else [rng.permutation(n) for _ in range(null_draws)]
    prepared = [_standard(z) if refits else _standard(rankdata(z, axis=0)) for z in kept]
    pair = np.full((len(line_weights), n_models, n_models), np.nan)
    chance = np.full((len(shuffled), n_models, n_models), np.nan)
    even = line_weights[:1]
    for a, b in combinations(range(n_models), 2):
        first, second = prepared[a], prepared[b]
        found = _lasso(first, second) if refits else _correlation(first, second, line_weights)
        pair[:, a, b] = pair[:, b, a] = _agreement(found)
        if shuffled:
            apart = np.concatenate([_correlation(first, second[p], even) for p in shuffled])
            chance[:, a, b] = chance[:, b, a] = _agreement(apart)
    by_model = np.nanmedian(pair, axis=2)
    row = measured(
        float(by_model[0].mean()),
        f"{CONVENTIONS[convention]}; median over pairs, mean over models",
        draws=by_model[1:].mean(1) if len(by_model) > 1 else None,
        null=np.nanmedian(chance, axis=2).mean(1) if len(chance) else None,
    )
    dataset = table(
        {"udr": row},
        {
            "n": n,
            "n_models": n_models,
            "convention": convention,
            "estimator": CONVENTIONS[convention],
            "bins": 0,
            "draws": len(line_weights) - 1,
            "null_draws": len(shuffled),
            "seed": seed,
            "dead_variance": dead_variance,
            "interval": "none, each resample would need another fit" if refits else EXAMPLES,
            "null": "none, each permutation would need another fit" if refits else "examples of one model permuted",
            "source": "Duan et al. 2020, arXiv 1905.12614, Eq. 2 and 3",
        },
    ).assign_coords(model=np.arange(n_models), other=np.arange(n_models))
    ends = [measured(float(v), "", draws=d) for v, d in zip(by_model[0], by_model[1:].T, strict=True)]
    parts = {
        "by_model": Part(("model",), by_model[0], "median over the model's pairs"),
        "by_model_low": Part(("model",), np.array([r.low for r in ends], np.float64), "lower end of the 95 % interval"),
        "by_model_high": Part(
            ("model",), np.array([r.high for r in ends], np.float64), "upper end of the 95 % interval"
        ),
        "n_dead": Part(("model",), [int((~mask).sum()) for mask in alive], "latents left out as dead", "latents"),
        "pair": Part(("model", "other"), pair[0], "score of two models"),
    }
    for name, part in parts.items():
        dataset[name] = xr.DataArray(
            np.asarray(part.values), dims=part.dims, attrs={"long_name": part.long_name, "units": part.units}
        )
    return dataset


def _active(
    codes: Sequence[Floats], active: Sequence[ArrayLike] | None, dead_variance: float
) -> list[NDArray[np.bool_]]:
    if active is None:
        return [(z.var(axis=0) > dead_variance) & (np.ptp(z, axis=0) > 0) for z in codes]
    masks = [np.asarray(mask) for mask in active]
    shapes = [mask.shape for mask in masks]
    if shapes != [(z.shape[1],) for z in codes] or any(mask.dtype != bool for mask in masks):
        raise DataError(
            f"active has masks of shapes {shapes}; one true or false for each latent of each model is needed."
        )
    # A latent that does not vary correlates with nothing, whatever the mask says.
    return [mask & (np.ptp(z, axis=0) > 0) for mask, z in zip(masks, codes, strict=True)]


def _standard(values: Floats) -> Floats:
    return np.asarray((values - values.mean(0)) / values.std(0))


def _correlation(first: Floats, second: Floats, line_weights: Floats) -> Floats:
    """Absolute correlation under each line of weights, (draw, latent, latent of the other)."""
    shape = (first.shape[1], second.shape[1])
    if 0 in shape:
        return np.zeros((len(line_weights), *shape))
    products = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    mean_a, mean_b = line_weights @ first, line_weights @ second
    cross = (line_weights @ products).reshape(-1, *shape) - mean_a[:, :, None] * mean_b[:, None, :]
    var_a, var_b = line_weights @ first**2 - mean_a**2, line_weights @ second**2 - mean_b**2
    size = np.sqrt(np.maximum(var_a, 0)[:, :, None] * np.maximum(var_b, 0)[:, None, :])
    return np.asarray(np.abs(np.divide(cross, size, out=np.zeros_like(cross), where=size > 0)))


def _lasso(first: Floats, second: Floats) -> Floats:
    """Absolute coefficients that predict the second model's latents from the first's, (1, latent, latent)."""
    if not first.shape[1] or not second.shape[1]:
        return np.zeros((1, first.shape[1], second.shape[1]))
    return np.abs([[Lasso(alpha=ALPHA).fit(first, target).coef_ for target in second.T]]).transpose(0, 2, 1)


def _agreement(similarity: Floats) -> Floats:
    """Score of a pair from (draw, latent, latent of the other), shape (draw,)."""
    if 0 in similarity.shape[1:]:
        return np.zeros(len(similarity))
    score = np.zeros(len(similarity))
    for axis in (1, 2):
        top, total = similarity.max(axis), similarity.sum(axis)
        score += np.divide(top**2, total, out=np.zeros_like(top), where=total > 0).sum(-1)
    return score / sum(similarity.shape[1:])
