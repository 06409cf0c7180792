"""Latent interventions: do(z_i = v) over a grid of values, and what happens to the picture.

Source: arXiv 2505.03530, equations 3-4: delta x_i(v) = D(z with z_i = v) - D(z), each latent swept from -3 to 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import batches
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.metrics import causal
from cvi_widgets.metrics.position import READOUTS, readouts, slope
from cvi_widgets.metrics.statistics import Interval, bootstrap_weights, interval

Floats = NDArray[np.float32]


class _Sweep(NamedTuple):
    """One latent set to every value in turn."""

    l2: Floats
    """(example, value)"""
    change: Floats
    """(value, y, x): mean over examples and channels"""
    shift: Floats
    """(example, value, readout)"""
    energy: Floats
    """(example, y * x): squared change, summed over channels and averaged over values"""


def intervene_latent(
    model: Model,
    x: Images,
    values: ArrayLike | None = None,
    *,
    shown: int = 8,
    frames: int = 13,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Set one latent to each of `values`, hold the others at the mu of the images `x`, decode.

    Parameters
    ----------
    x : images (example, channel, y, x)
    values : increasing values v, in units of z; None for seven from -3 to 3
    shown, frames : how many examples and how many values (evenly spaced over the same range) the stored traversals have

    Returns
    -------
    Dataset
        `l2` (example, latent), the L2 norm over pixels and channels averaged over values, and its means `ces_l2` and
        `ces_rms` (latent); `change` (latent, value, y, x); `readout_shift` (latent, value, readout), mean shift of the
        image's centroid and area; `slope_example` (example, latent, readout) and `slope`, read-out shift per unit of z;
        `energy` (latent, y, x), mean squared change; `specificity` (latent); `traversal`
        (shown, latent, frame, channel, y, x), uint8; `active` (latent). Means have `_low` and `_high`.

    Raises
    ------
    ConfigError
        When there are fewer than two values, or they do not increase.
    """
    grid = np.linspace(-3, 3, 7) if values is None else np.asarray(values, np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all() or not (np.diff(grid) > 0).all():
        raise ConfigError(f"values are {grid.tolist()}; they must be at least two increasing numbers.")
    mu = model.encode(x).mu
    base = model.decode(mu)
    n, (channels, height, width) = len(mu), model.image_shape
    weights = bootstrap_weights(n, draws, seed)
    sweeps, specificity = [], []
    for latent in range(model.n_latents):
        sweep = _sweep(model, mu, base, latent, grid)
        specificity.append(_specificity(sweep.energy, weights))
        # Kept as a mean from here on, so that memory does not grow with the number of latents.
        sweeps.append(sweep._replace(energy=sweep.energy.mean(0, keepdims=True)))

    l2 = np.stack([s.l2.mean(1) for s in sweeps], axis=1)
    shift = np.stack([s.shift for s in sweeps], axis=1)
    slopes = slope(grid, np.moveaxis(shift, 2, -1)).astype(np.float32)
    ces = effects.mean_over_first(l2, draws, seed)
    root = np.sqrt(channels * height * width)
    rms = Interval(ces.value / root, ces.low / root, ces.high / root)
    frame_values = np.linspace(grid[0], grid[-1], frames)
    code = mu.cpu().numpy()
    per_latent = ("latent",)
    variables = {
        "l2": effects.variable(
            ("example", "latent"), l2, "L2 norm over pixels of the change of the image, mean over values", "intensity"
        ),
        **effects.with_interval("ces_l2", per_latent, ces, "causal effect strength, L2 norm over pixels", "intensity"),
        **effects.with_interval("ces_rms", per_latent, rms, "causal effect strength per pixel (RMS)", "intensity"),
        "change": effects.variable(
            ("latent", "value", "y", "x"),
            np.stack([s.change for s in sweeps]),
            "mean absolute change of the pixel",
            "intensity",
        ),
        "energy": effects.variable(
            ("latent", "y", "x"),
            np.stack([s.energy[0].reshape(height, width) for s in sweeps]),
            "mean squared change of the pixel, summed over channels",
            "intensity squared",
        ),
        **effects.with_interval(
            "specificity",
            per_latent,
            Interval(*(np.array(v) for v in zip(*specificity, strict=True))),
            "specificity in the pixel domain, 1 - H / ln n",
            "1",
        ),
        **effects.with_interval(
            "readout_shift",
            ("latent", "value", "readout"),
            effects.mean_over_first(shift, draws, seed),
            "mean shift of the image read-out",
            "px",
        ),
        "slope_example": effects.variable(
            ("example", "latent", "readout"), slopes, "read-out shift per unit of z, least squares over values", "px"
        ),
        **effects.with_interval(
            "slope",
            ("latent", "readout"),
            effects.mean_over_first(slopes, draws, seed),
            "read-out shift per unit of z, least squares over values",
            "px",
        ),
        "traversal": effects.variable(
            ("shown", "latent", "frame", "channel", "y", "x"),
            traversals(model, mu[:shown], frame_values),
            "decoded image with the latent set to the frame's value",
            "0 to 255",
        ),
        "active": effects.variable(per_latent, causal.active_latents(code), "variance of mu above 0.01", "1"),
        "variance": effects.variable(per_latent, code.var(0), "variance of mu over the examples", "mu squared"),
    }
    coords = {
        **effects.latent_coords(model.n_latents),
        "value": ("value", grid, {"long_name": "value the latent is set to", "units": "z"}),
        "readout": ("readout", np.array(READOUTS, dtype=str)),
        "frame_value": ("frame", frame_values, {"long_name": "value the latent is set to", "units": "z"}),
    }
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="one latent is set to the value, all other latents are held at mu of the example",
        convention="ces_l2 is E ||D(z) - D(z~)||_2 over all pixels and channels, averaged over values; "
        "ces_rms divides by the root of their number; centroids are intensity-weighted",
        interval="95 % percentile bootstrap over examples",
        n_examples=n,
        n_pixels=channels * height * width,
        seed=seed,
        draws=draws,
    )


def traversals(model: Model, z: torch.Tensor, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Decoded images, shape (shown, latent, frame, channel, y, x), bytes; every latent of `z` swept in turn."""
    shown, latents = z.shape
    codes = z[:, None, None, :].repeat(1, latents, len(values), 1)
    for latent in range(latents):
        codes[:, latent, :, latent] = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    flat = codes.reshape(-1, latents)
    parts = []
    for start in range(0, len(flat), 1024):
        images = model.decode(flat[start : start + 1024])
        parts.append((images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
    return np.concatenate(parts).reshape(shown, latents, len(values), *model.image_shape)


def _sweep(model: Model, mu: torch.Tensor, base: torch.Tensor, latent: int, grid: NDArray[np.float64]) -> _Sweep:
    n, (_, height, width) = len(mu), model.image_shape
    l2 = np.empty((n, len(grid)), np.float32)
    shift = np.empty((n, len(grid), len(READOUTS)), np.float32)
    energy = np.zeros((n, height * width), np.float32)
    change = np.zeros((len(grid), height, width), np.float32)
    for b in batches(n):
        before = readouts(base[b].cpu().numpy())
        for k, value in enumerate(grid):
            z = mu[b].clone()
            z[:, latent] = float(value)
            image = model.decode(z)
            dx = image - base[b]
            squared = dx.square().sum(1).flatten(1)
            l2[b, k] = squared.sum(1).sqrt().cpu().numpy()
            energy[b] += squared.cpu().numpy() / len(grid)
            change[k] += (dx.abs().sum(0).mean(0) / n).cpu().numpy()
            shift[b, k] = readouts(image.cpu().numpy()) - before
    return _Sweep(l2, change, shift, energy)


def _specificity(energy: Floats, weights: NDArray[np.float32]) -> tuple[float, float, float]:
    drawn = causal.specificity(weights @ energy)
    low, high = interval(drawn, effects.LEVEL)
    return float(causal.specificity(energy.mean(0))), float(low), float(high)
