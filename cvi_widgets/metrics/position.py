"""Reading position: from an image (its centroid), and from a code (the latent that follows a factor best)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.metrics.statistics import Null, bootstrap_means, null_of

Floats = NDArray[np.float64]
READOUTS = ("centroid_x", "centroid_y", "area")


class PositionLatent(NamedTuple):
    """The latent whose mu follows a factor best."""

    latent: int
    r2: float
    null: Null
    """Best R^2 over the same latents when the factor's values are permuted over examples."""


def readouts(images: ArrayLike) -> NDArray[np.float32]:
    """Centroid and area of images, shape (..., 3) in the order of `READOUTS`, all in pixels.

    Parameters
    ----------
    images : shape (..., channel, y, x), values in [0, 1]

    Notes
    -----
    The centroid is the intensity-weighted mean of pixel coordinates (0 is the centre of the first pixel), the area the
    summed intensity, both of the mean over channels. An image without any intensity has no centroid: NaN.
    """
    grey = np.asarray(images, np.float32).mean(axis=-3)
    height, width = grey.shape[-2:]
    area = grey.sum((-2, -1))
    along_x = grey.sum(-2) @ np.arange(width, dtype=np.float32)
    along_y = grey.sum(-1) @ np.arange(height, dtype=np.float32)
    lit = area > 0
    safe = np.where(lit, area, np.float32(1))
    x = np.where(lit, along_x / safe, np.float32(np.nan))
    y = np.where(lit, along_y / safe, np.float32(np.nan))
    return np.stack([x, y, area], axis=-1)


def slope(values: ArrayLike, readout: ArrayLike) -> Floats:
    """Least-squares slope of a read-out against the value set, along the last axis; NaN where a value is undefined.

    Parameters
    ----------
    values : shape (value,)
    readout : shape (..., value)
    """
    v = np.asarray(values, np.float64)
    centred = v - v.mean()
    return np.asarray(np.asarray(readout, np.float64) @ centred / (centred**2).sum())


def r_squared(mu: ArrayLike, factor: ArrayLike) -> Floats:
    """Squared Pearson correlation of each latent's mu with a factor, shape (latent,); 0 for constant columns.

    Parameters
    ----------
    mu : shape (example, latent)
    factor : shape (example,) or (draw, example); the latter gives shape (draw, latent)
    """
    code = np.asarray(mu, np.float64)
    target = np.asarray(factor, np.float64)
    code = code - code.mean(0)
    target = target - target.mean(-1, keepdims=True)
    scale = np.sqrt((target**2).sum(-1))[..., None] * np.sqrt((code**2).sum(0))
    rho = np.divide(target @ code, scale, out=np.zeros(scale.shape), where=scale > 0)
    return np.asarray(rho**2)


def r_squared_draws(mu: ArrayLike, factor: ArrayLike, draws: int = 1000, seed: int = 0) -> Floats:
    """Bootstrap draws over examples of `r_squared`, shape (draw, latent).

    Parameters
    ----------
    mu : shape (example, latent)
    factor : shape (example,)
    """
    a, b = (_standard(np.asarray(v, np.float64)) for v in (mu, np.asarray(factor)[:, None]))
    moments = bootstrap_means(np.concatenate([a, a * a, a * b, b, b * b], axis=1), draws, seed).astype(np.float64)
    k = a.shape[1]
    mean_a, square_a, product = (moments[:, part * k : (part + 1) * k] for part in range(3))
    mean_b, square_b = moments[:, 3 * k, None], moments[:, 3 * k + 1, None]
    scale = (square_a - mean_a**2) * (square_b - mean_b**2)
    covariance = product - mean_a * mean_b
    return np.asarray(np.divide(covariance**2, scale, out=np.zeros_like(scale), where=scale > 1e-9))


def position_latent(mu: ArrayLike, factor: ArrayLike, draws: int = 1000, seed: int = 0) -> PositionLatent:
    """The latent most like a factor, by R^2 of its mu, with the null of picking the best of as many by chance.

    Parameters
    ----------
    mu : shape (example, latent)
    factor : shape (example,)
        The factor's values.
    """
    observed = r_squared(mu, factor)
    best = int(observed.argmax())
    rng = np.random.default_rng(seed)
    target = np.asarray(factor, np.float64)
    block = max(1, 2**21 // len(target))
    sample = [
        r_squared(mu, rng.permuted(np.broadcast_to(target, (min(block, draws - k), len(target))), axis=-1)).max(-1)
        for k in range(0, draws, block)
    ]
    return PositionLatent(best, float(observed[best]), null_of(np.concatenate(sample), float(observed[best])))


def _standard(columns: Floats) -> Floats:
    """Columns with mean 0 and standard deviation 1, constant ones 0: single precision then suffices for moments."""
    centred = columns - columns.mean(0)
    sd = centred.std(0)
    out: Floats = np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 0)
    return out
