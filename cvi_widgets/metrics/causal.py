"""Causal metrics from measured effects: pure functions of arrays.

The published method (arXiv 2505.03530) leaves several definitions open; each function says which reading it takes.
Where the published form is unbounded or has no zero, a bounded or null-normalised form stands beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.metrics.statistics import Null, null_of

Floats = NDArray[np.float64]
ACTIVE_VARIANCE = 0.01
"""A latent is active when the variance of its mu over examples exceeds this (Burda et al. 2016)."""


class Modularity(NamedTuple):
    """Circuit modularity beside its permutation null."""

    value: float
    null: Null
    normalised: float
    """(M - M_null) / (1 - M_null): 0 as expected by chance, 1 for profiles with no correlation at all."""


def active_latents(mu: ArrayLike, threshold: float = ACTIVE_VARIANCE) -> NDArray[np.bool_]:
    """Which latents vary with the image: Var mu > threshold. `mu` has shape (example, latent)."""
    return np.asarray(np.asarray(mu, np.float64).var(axis=0) > threshold)


def ces_l2(l2: ArrayLike) -> Floats:
    """Causal effect strength CES(i) = E_x || D(z) - D(z; do(z_i = v)) ||_2, shape (latent,).

    Parameters
    ----------
    l2 : shape (example, latent)
        Norm over all pixels and channels, already averaged over the values v.
    """
    return np.asarray(np.asarray(l2, np.float64).mean(axis=0))


def ces_rms(l2: ArrayLike, pixels: int) -> Floats:
    """Causal effect strength per pixel, `ces_l2 / sqrt(pixels)`, comparable across image sizes; shape (latent,)."""
    return np.asarray(ces_l2(l2) / np.sqrt(pixels))


def specificity(energy: ArrayLike) -> Floats:
    """Bounded specificity 1 - H(p) / ln n along the last axis: 0 when effects are spread evenly, 1 when on one output.

    Parameters
    ----------
    energy : shape (..., n)
        Non-negative effect on each of n outputs (mean squared change of each pixel, or effect on each factor).
        Lines without any effect give NaN.
    """
    energy = np.asarray(energy)
    if energy.shape[-1] < 2:
        return np.full(energy.shape[:-1], np.nan)
    return np.asarray(1 - entropy(energy) / np.log(energy.shape[-1]))


def specificity_published(energy: ArrayLike, eps: float = 1e-6) -> Floats:
    """Specificity as published, 1 / (H(p) + eps), natural logarithm; unbounded, from 1 / ln n up to 1 / eps."""
    return np.asarray(1 / (entropy(energy) + eps))


def entropy(energy: ArrayLike) -> Floats:
    """Shannon entropy in nats of non-negative lines (last axis) scaled to sum 1; NaN for lines that sum to 0."""
    weights = np.asarray(energy)
    if weights.dtype not in (np.float32, np.float64):
        weights = weights.astype(np.float64)
    total = weights.sum(-1, keepdims=True)
    p = np.divide(weights, total, out=np.full_like(weights, np.nan), where=total > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p == 0, 0, p * np.log(p))
    return np.asarray(-terms.sum(-1), np.float64)


def polysemanticity(response: ArrayLike) -> Floats:
    """P1 = sum_f r_f / max_f r_f per unit: 1 for one factor only, |F| for equal response to all (Eq. 11's range).

    Parameters
    ----------
    response : shape (..., factor, unit)
        r_f = E |a(x~_f) - a(x)|. Units that respond to nothing give NaN: they are dead, not monosemantic.

    Examples
    --------
    >>> polysemanticity([[1.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    array([ 1.,  2., nan])
    """
    r = np.asarray(response, np.float64)
    top = r.max(-2)
    return np.asarray(np.divide(r.sum(-2), top, out=np.full(top.shape, np.nan), where=top > 0))


def polysemantic_fraction(response: ArrayLike, tau: float = 0.2) -> Floats:
    """Share of factors whose response reaches `tau` times the unit's largest; 1 / |F| means monosemantic."""
    r = np.asarray(response, np.float64)
    top = r.max(-2)
    share = (r >= tau * top[..., None, :]).mean(-2)
    return np.where(top > 0, share, np.nan)


def monosemantic(response: ArrayLike, tau: float = 0.2) -> Floats:
    """1 where exactly one factor reaches `tau` times the unit's largest response, 0 elsewhere, NaN for dead units."""
    r = np.asarray(response, np.float64)
    top = r.max(-2)
    single = (r >= tau * top[..., None, :]).sum(-2) == 1
    return np.where(top > 0, single.astype(np.float64), np.nan)


def circuit_modularity(profiles: ArrayLike) -> Floats:
    """M = 1 - mean over pairs i < j of |Pearson rho(profile_i, profile_j)|, for each leading index.

    Parameters
    ----------
    profiles : shape (..., K, n)
        One line per intervened variable: the change it causes in each of n units. Constant lines have no correlation
        with anything and are left out of the mean; NaN when fewer than two lines vary.

    Notes
    -----
    Random profiles score high: K = 10 independent Gaussian lines give 0.58 at n = 5 and 0.93 at n = 128. Read M only
    beside its null (`modularity`).
    """
    lines = np.asarray(profiles, np.float64)
    centred = lines - lines.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1, keepdims=True))
    # A constant line leaves rounding residue after centring; relative to its size that is no variation.
    varies = norm > 1e-9 * (np.sqrt((lines**2).sum(-1, keepdims=True)) + np.finfo(float).tiny)
    unit = np.where(varies, centred / np.where(varies, norm, 1), np.nan)
    rho = np.abs(unit @ np.swapaxes(unit, -1, -2))
    first, second = np.triu_indices(lines.shape[-2], k=1)
    chosen = rho[..., first, second]
    defined = np.isfinite(chosen)
    count = defined.sum(-1)
    total = np.where(defined, chosen, 0).sum(-1)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return np.asarray(1 - mean)


def modularity(profiles: ArrayLike, draws: int = 1000, seed: int = 0) -> Modularity:
    """Circuit modularity with the null in which every line is permuted over the units independently.

    Parameters
    ----------
    profiles : shape (K, n)

    Returns
    -------
    Modularity; p is the chance that permuted profiles are at least as modular as the observed ones.
    """
    lines = np.asarray(profiles, np.float64)
    value = float(circuit_modularity(lines))
    rng = np.random.default_rng(seed)
    block = max(1, 2**22 // lines.size)
    sample = [
        circuit_modularity(rng.permuted(np.broadcast_to(lines, (min(block, draws - k), *lines.shape)), axis=-1))
        for k in range(0, draws, block)
    ]
    null = null_of(np.concatenate(sample), value)
    return Modularity(value, null, normalised_modularity(value, null.mean))


def normalised_modularity(value: float, null_mean: float) -> float:
    """(M - M_null) / (1 - M_null); NaN when the null leaves no room above itself."""
    return (value - null_mean) / (1 - null_mean) if null_mean < 1 else float("nan")
