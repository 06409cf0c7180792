"""The sweeps behind latent interventions: values to set, pictures and decoder units under each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions.engine import batches
from cvi_widgets.interventions.model import Model
from cvi_widgets.interventions.sites import OUTPUT_SITE, Encoded, Site
from cvi_widgets.metrics.factor_reader import FactorReader
from cvi_widgets.metrics.position import READOUTS, readouts
from cvi_widgets.names import unknown

Floats = NDArray[np.float32]
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Of the aggregate posterior, where the grid is `posterior`."""


class Sweep(NamedTuple):
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
    factors: Floats
    """(example, factor): change of factors as read, averaged over values; no factor where there is no reader"""


class Grid(NamedTuple):
    """Values that latents are set to."""

    label: NDArray[np.float64]
    """(value,)"""
    table: NDArray[np.float64]
    """(latent, value)"""
    kind: Literal["fixed", "posterior"]


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


def decoder_sites(model: Model, sites: str | Sequence[str] | None) -> tuple[Site, ...]:
    """The decoder's sites named, or all after their non-linearities; raises `SiteError` for any other."""
    if sites is None:
        listed = model.site_map.sites.values()
        return tuple(s for s in listed if s.side == "decoder" and not s.before_activation and s.name != OUTPUT_SITE)
    chosen = tuple(model.site(name) for name in ([sites] if isinstance(sites, str) else sites))
    for site in chosen:
        if site.side != "decoder":
            raise SiteError(f"site {site.name!r} does not follow from the code; allowed are sites of the decoder.")
    return chosen


def sweep_latent(
    model: Model,
    mu: torch.Tensor,
    base: torch.Tensor,
    latent: int,
    grid: NDArray[np.float64],
    sites: Sequence[Site],
    reader: FactorReader | None,
) -> Sweep:
    """Set one latent of codes `mu` to every value of `grid` and compare with the images `base`."""
    n, (_, height, width) = len(mu), model.image_shape
    l2 = np.empty((n, len(grid)), np.float32)
    shift = np.empty((n, len(grid), len(READOUTS)), np.float32)
    energy = np.zeros((n, height * width), np.float32)
    change = np.zeros((len(grid), height, width), np.float32)
    units = np.zeros((n, sum(s.n_units for s in sites)), np.float32)
    factors = np.zeros((n, 0 if reader is None else len(reader.factors)), np.float32)
    for b in batches(n):
        before = readouts(base[b].cpu().numpy())
        _, at_base = _decoded(model, mu[b], sites)
        seen = None if reader is None else reader.read(base[b].cpu().numpy())
        for k, value in enumerate(grid):
            image, at = _decoded(model, _set(mu[b], latent, float(value)), sites)
            dx = image - base[b]
            squared = dx.square().sum(1).flatten(1)
            l2[b, k] = squared.sum(1).sqrt().cpu().numpy()
            energy[b] += squared.cpu().numpy() / len(grid)
            change[k] += (dx.abs().sum(0).mean(0) / n).cpu().numpy()
            shift[b, k] = readouts(image.cpu().numpy()) - before
            if reader is not None and seen is not None:
                factors[b] += reader.change(seen, reader.read(image.cpu().numpy())) / len(grid)
            if sites:
                moved = [(at[s.name] - at_base[s.name]).abs().flatten(2).mean(2) for s in sites]
                units[b] += torch.cat(moved, dim=1).cpu().numpy() / len(grid)
    return Sweep(l2, change, shift, energy, units, factors)


def _decoded(model: Model, mu: torch.Tensor, sites: Sequence[Site]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The image, and the values at decoder sites as (n, unit, position)."""
    kept: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, site: Site) -> None:
        kept[site.name] = value.clone() if value.ndim > 2 else value.clone()[..., None]

    with model.hooks([(site.name, keep) for site in sites]):
        return model.decode_mu(mu), kept
