"""Latent interventions: do(z_i = v) over a grid of values, and what happens to the picture and the decoder's units.

Source: arXiv 2505.03530, equations 3-4: delta x_i(v) = D(z with z_i = v) - D(z), each latent swept from -3 to 3. A
fixed grid leaves the range of latents whose posterior is narrow, so the grid may instead be quantiles of each latent's
own aggregate posterior (idea: arXiv 2603.21236).

A latent that is a map (a channel of a spatial code) is set to the value at all its positions. A discrete code is set
before its quantiser, which snaps most changes back: `intervene_code` measures what exchanging codes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import batches
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.sites import OUTPUT_SITE, Encoded, Site
from cvi_widgets.metrics import causal
from cvi_widgets.metrics.position import READOUTS, readouts, slope
from cvi_widgets.metrics.statistics import Interval, bootstrap_weights, interval
from cvi_widgets.names import unknown

Floats = NDArray[np.float32]
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Of the aggregate posterior, where the grid is `posterior`."""


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
    units: Floats
    """(example, unit): change of decoder units, averaged over values and positions"""


class Grid(NamedTuple):
    """Values that latents are set to."""

    label: NDArray[np.float64]
    """(value,)"""
    table: NDArray[np.float64]
    """(latent, value)"""
    kind: Literal["fixed", "posterior"]


def intervene_latent(
    model: Model,
    x: Images,
    values: ArrayLike | Literal["posterior"] | None = None,
    *,
    sites: str | Sequence[str] | None = None,
    shown: int = 8,
    frames: int = 13,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Set one latent to each of `values`, hold the others at the mu of the images `x`, decode.

    Parameters
    ----------
    x : images (example, channel, y, x)
    values : increasing values v, in units of z, the same for all latents; None for seven from -3 to 3
        `posterior`: the quantiles `QUANTILES` of each latent's aggregate posterior over `x`.
    sites : decoder sites whose units are measured; None for all after their non-linearities
    shown, frames : how many examples and how many values (evenly spaced over the same range) the stored traversals have

    Returns
    -------
    Dataset
        `l2` (example, latent), the L2 norm over pixels and channels averaged over values, and its means `ces_l2` and
        `ces_rms` (latent); `change` (latent, value, y, x); `readout_shift` (latent, value, readout), mean shift of the
        image's centroid and area; `slope_example` (example, latent, readout) and `slope`, read-out shift per unit of z;
        `energy` (latent, y, x), mean squared change; `specificity` (latent); `unit_change` (latent, unit), mean
        absolute change of the decoder's units; `traversal` (shown, latent, frame, channel, y, x), uint8; `active`
        (latent); `set_to` (latent, value). Means have `_low` and `_high`.

    Raises
    ------
    ConfigError
        When there are fewer than two values, or they do not increase.
    """
    encoded = model.encode(x)
    mu = encoded.mu
    grid = grid_of(model, encoded, values, seed)
    at = _decoder_sites(model, sites)
    base = model.decode_mu(mu)
    n, (channels, height, width) = len(mu), model.image_shape
    weights = bootstrap_weights(n, draws, seed)
    sweeps, specificity, unit_change, slopes = [], [], [], []
    for latent in range(model.n_latents):
        sweep = _sweep(model, mu, base, latent, grid.table[latent], at)
        specificity.append(_specificity(sweep.energy, weights))
        unit_change.append(effects.mean_over_first(sweep.units, draws, seed))
        slopes.append(slope(grid.table[latent], np.moveaxis(sweep.shift, 1, -1)))
        # Kept as a mean from here on, so that memory does not grow with the number of latents.
        sweeps.append(sweep._replace(energy=sweep.energy.mean(0, keepdims=True), units=sweep.units[:0]))

    l2 = np.stack([s.l2.mean(1) for s in sweeps], axis=1)
    shift = np.stack([s.shift for s in sweeps], axis=1)
    per_example = np.stack(slopes, axis=1).astype(np.float32)
    ces = effects.mean_over_first(l2, draws, seed)
    root = np.sqrt(channels * height * width)
    rms = Interval(ces.value / root, ces.low / root, ces.high / root)
    code = mu.cpu().flatten(2).movedim(2, 1).flatten(0, 1).numpy() if mu.ndim > 2 else mu.cpu().numpy()
    low, high = grid.table[:, 0], grid.table[:, -1]
    frame_values = np.linspace(low, high, frames, axis=-1)
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
            ("example", "latent", "readout"),
            per_example,
            "read-out shift per unit of z, least squares over values",
            "px",
        ),
        **effects.with_interval(
            "slope",
            ("latent", "readout"),
            effects.mean_over_first(per_example, draws, seed),
            "read-out shift per unit of z, least squares over values",
            "px",
        ),
        **effects.with_interval(
            "unit_change",
            ("latent", "unit"),
            Interval(*(np.stack(v) for v in zip(*unit_change, strict=True))),
            "mean absolute change of the decoder's unit, over positions and values",
            "activation",
        ),
        "traversal": effects.variable(
            ("shown", "latent", "frame", "channel", "y", "x"),
            traversals(model, mu[:shown], frame_values),
            "decoded image with the latent set to the frame's value",
            "0 to 255",
        ),
        "set_to": effects.variable(("latent", "value"), grid.table, "value the latent is set to", "z"),
        "active": effects.variable(per_latent, causal.active_latents(code), "variance of mu above 0.01", "1"),
        "variance": effects.variable(per_latent, code.var(0), "variance of mu over the examples", "mu squared"),
    }
    said = {"long_name": "value the latent is set to", "units": "z"}
    if grid.kind == "posterior":
        said = {"long_name": "quantile of the latent's aggregate posterior that it is set to", "units": "1"}
    fixed = grid.kind == "fixed"
    coords = {
        **effects.latent_coords(model.n_latents),
        **effects.unit_coords(at),
        "value": ("value", grid.label, said),
        "readout": ("readout", np.array(READOUTS, dtype=str)),
        "frame_value": (
            "frame" if fixed else ("latent", "frame"),
            frame_values[0] if fixed else frame_values,
            {"long_name": "value the latent is set to", "units": "z"},
        ),
    }
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="one latent is set to the value, all other latents are held at mu of the example",
        convention="ces_l2 is E ||D(z) - D(z~)||_2 over all pixels and channels, averaged over values; "
        "ces_rms divides by the root of their number; centroids are intensity-weighted",
        grid=grid.kind,
        interval="95 % percentile bootstrap over examples",
        n_examples=n,
        n_pixels=channels * height * width,
        seed=seed,
        draws=draws,
    )


def grid_of(model: Model, encoded: Encoded, values: ArrayLike | Literal["posterior"] | None, seed: int = 0) -> Grid:
    """The values each latent is set to.

    Raises
    ------
    ConfigError
        When there are fewer than two values, or they do not increase.
    """
    if isinstance(values, str):
        if values != "posterior":
            raise ConfigError(unknown("values", values, ("posterior",)))
        z = encoded.mu
        if encoded.logvar is not None:
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z)
            z = z + torch.exp(encoded.logvar / 2) * noise
        samples = z.movedim(1, 0).flatten(1).double().cpu().numpy()
        table = np.quantile(samples, QUANTILES, axis=1).T
        # A latent that never moves still gets values that increase, so that slopes are defined (and zero).
        table = table + 1e-6 * np.arange(len(QUANTILES))
        return Grid(np.array(QUANTILES), table, "posterior")
    grid = np.linspace(-3, 3, 7) if values is None else np.asarray(values, np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all() or not (np.diff(grid) > 0).all():
        raise ConfigError(f"values are {grid.tolist()}; they must be at least two increasing numbers.")
    return Grid(grid, np.tile(grid, (model.n_latents, 1)), "fixed")


def traversals(model: Model, mu: torch.Tensor, values: ArrayLike) -> NDArray[np.uint8]:
    """Decoded images, shape (shown, latent, frame, channel, y, x), bytes; every latent of `mu` swept in turn.

    Parameters
    ----------
    mu : codes (shown, latent, ...)
    values : (frame,), or (latent, frame) where each latent has its own
    """
    table = np.broadcast_to(values, (model.n_latents, np.shape(values)[-1]))
    out = np.empty((len(mu), *table.shape, *model.image_shape), np.uint8)
    for latent, row in enumerate(table):
        for frame, value in enumerate(row):
            image = model.decode_mu(_set(mu, latent, float(value)))
            out[:, latent, frame] = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return out


def _set(mu: torch.Tensor, latent: int, value: float) -> torch.Tensor:
    z = mu.clone()
    z[:, latent] = value
    return z


def _decoder_sites(model: Model, sites: str | Sequence[str] | None) -> tuple[Site, ...]:
    if sites is None:
        listed = model.site_map.sites.values()
        return tuple(s for s in listed if s.side == "decoder" and not s.before_activation and s.name != OUTPUT_SITE)
    chosen = tuple(model.site(name) for name in ([sites] if isinstance(sites, str) else sites))
    for site in chosen:
        if site.side != "decoder":
            raise SiteError(f"site {site.name!r} does not follow from the code; allowed are sites of the decoder.")
    return chosen


def _sweep(
    model: Model,
    mu: torch.Tensor,
    base: torch.Tensor,
    latent: int,
    grid: NDArray[np.float64],
    sites: Sequence[Site],
) -> _Sweep:
    n, (_, height, width) = len(mu), model.image_shape
    l2 = np.empty((n, len(grid)), np.float32)
    shift = np.empty((n, len(grid), len(READOUTS)), np.float32)
    energy = np.zeros((n, height * width), np.float32)
    change = np.zeros((len(grid), height, width), np.float32)
    units = np.zeros((n, sum(s.n_units for s in sites)), np.float32)
    for b in batches(n):
        before = readouts(base[b].cpu().numpy())
        _, at_base = _decoded(model, mu[b], sites)
        for k, value in enumerate(grid):
            image, at = _decoded(model, _set(mu[b], latent, float(value)), sites)
            dx = image - base[b]
            squared = dx.square().sum(1).flatten(1)
            l2[b, k] = squared.sum(1).sqrt().cpu().numpy()
            energy[b] += squared.cpu().numpy() / len(grid)
            change[k] += (dx.abs().sum(0).mean(0) / n).cpu().numpy()
            shift[b, k] = readouts(image.cpu().numpy()) - before
            if sites:
                moved = [(at[s.name] - at_base[s.name]).abs().flatten(2).mean(2) for s in sites]
                units[b] += torch.cat(moved, dim=1).cpu().numpy() / len(grid)
    return _Sweep(l2, change, shift, energy, units)


def _decoded(model: Model, mu: torch.Tensor, sites: Sequence[Site]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The image, and the values at decoder sites as (n, unit, position)."""
    kept: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, site: Site) -> None:
        kept[site.name] = value.clone() if value.ndim > 2 else value.clone()[..., None]

    with model.hooks([(site.name, keep) for site in sites]):
        return model.decode_mu(mu), kept


def _specificity(energy: Floats, weights: NDArray[np.float32]) -> tuple[float, float, float]:
    drawn = causal.specificity(weights @ energy)
    low, high = interval(drawn, effects.LEVEL)
    return float(causal.specificity(energy.mean(0))), float(low), float(high)
