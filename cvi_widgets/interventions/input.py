"""Input interventions: change one factor of the image, hold the rest, and see which units and latents answer.

Source: arXiv 2505.03530, equations 1-2: delta z = E(x~) - E(x), and the same difference at every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import batches
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import measured_sites, readout
from cvi_widgets.interventions.sites import Site
from cvi_widgets.names import unknown

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData, Pairs


def factor_pairs(data: FactorData, factors: Sequence[str] | None, pairs: int, seed: int) -> dict[str, Pairs]:
    """Pairs of indices per factor that differ in that factor only.

    A factor's pairs depend on the seed and the factor, not on which other factors are asked for.

    Raises
    ------
    ConfigError
        When a factor is unknown or `pairs` is less than 2.
    """
    if pairs < 2:
        raise ConfigError(f"setting 'pairs' is {pairs}: an interval needs at least 2.")
    names = tuple(data.factor_names)
    chosen = names if factors is None else tuple([factors] if isinstance(factors, str) else factors)
    for factor in chosen:
        if factor not in names:
            raise ConfigError(unknown("factor", factor, names))
    return {f: data.pairs(f, pairs, np.random.default_rng([seed, names.index(f)])) for f in chosen}


def pair_stacks(
    model: Model,
    data: FactorData | Mapping[str, tuple[Images, Images]],
    factors: Sequence[str] | None,
    pairs: int,
    seed: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Base and source images by factor.

    Raises
    ------
    ConfigError
        When a factor has no pairs.
    """
    if isinstance(data, Mapping):
        names = tuple(data) if factors is None else tuple(factors)
        missing = [f for f in names if f not in data]
        if missing or not names:
            raise ConfigError(f"factor {missing[0] if missing else None!r} has no pairs; given are {', '.join(data)}.")
        return {f: (model.images(data[f][0]), model.images(data[f][1])) for f in names}
    chosen = factor_pairs(data, factors, pairs, seed)
    return {
        f: (model.images(float_images(data, p.base)), model.images(float_images(data, p.source)))
        for f, p in chosen.items()
    }


def intervene_input(
    model: Model,
    data: FactorData,
    factors: Sequence[str] | None = None,
    pairs: int = 256,
    seed: int = 0,
    *,
    sites: str | Sequence[str] | None = None,
    draws: int = 1000,
) -> xr.Dataset:
    """Response of units and latents to changing one factor.

    Parameters
    ----------
    factors : names, or None for all
    pairs : images per factor, drawn from the data set's own distribution
    sites : encoder sites and `latent.mu`; None for all of them after their non-linearities
    draws : bootstrap draws of each interval

    Returns
    -------
    Dataset
        `delta_mu_pair` (factor, pair, latent), signed; `delta_mu` (factor, latent), mean absolute change in standard
        deviations of mu; `response_pair` (factor, pair, unit) and `response` (factor, unit), mean absolute change over
        positions; `base`, `source` (factor, pair); `sd_mu` (latent). Means have `_low` and `_high`.
    """
    chosen = factor_pairs(data, factors, pairs, seed)
    at = measured_sites(model, sites, readout(model, "mu"))
    mu_change, unit_change, mu_base = [], [], []
    for pair in chosen.values():
        mu, change, response = _responses(model, data, pair, at)
        mu_base.append(mu)
        mu_change.append(change)
        unit_change.append(response)
    delta = np.stack(mu_change)
    response = np.stack(unit_change)
    sd = np.concatenate(mu_base).std(axis=0)
    scaled = np.divide(np.abs(delta), sd, out=np.zeros_like(delta), where=sd > 0)

    by_pair = effects.mean_over_first(np.moveaxis(scaled, 1, 0), draws, seed)
    by_unit = effects.mean_over_first(np.moveaxis(response, 1, 0), draws, seed)
    pair_dims = ("factor", "pair")
    variables = {
        "base": effects.variable(
            pair_dims, np.stack([p.base for p in chosen.values()]), "index of the base image", "1"
        ),
        "source": effects.variable(
            pair_dims, np.stack([p.source for p in chosen.values()]), "index of the image with the factor changed", "1"
        ),
        "delta_mu_pair": effects.variable((*pair_dims, "latent"), delta, "change of mu, source minus base", "mu"),
        "response_pair": effects.variable(
            (*pair_dims, "unit"), response, "mean absolute change over positions", "activation"
        ),
        "sd_mu": effects.variable(("latent",), sd, "standard deviation of mu over base images", "mu"),
        **effects.with_interval(
            "delta_mu", ("factor", "latent"), by_pair, "mean absolute change of mu when the factor changes", "sd of mu"
        ),
        **effects.with_interval(
            "response",
            ("factor", "unit"),
            by_unit,
            "mean absolute change of the unit when the factor changes",
            "activation",
        ),
    }
    coords = {
        "factor": ("factor", np.array(list(chosen), dtype=str)),
        **effects.latent_coords(model.n_latents),
        **effects.unit_coords(at),
    }
    return effects.described(
        xr.Dataset(variables, coords),
        intervention=_intervention(data, chosen),
        convention="delta_mu is E|mu(x~) - mu(x)| / sd(mu), sd over all base images and taken as known; "
        "response is E|a(x~) - a(x)| averaged over positions",
        interval="95 % percentile bootstrap over pairs",
        n_pairs=pairs,
        seed=seed,
        draws=draws,
    )


def _intervention(data: FactorData, chosen: Mapping[str, Pairs]) -> str:
    """What was done to the images; of matched pairs also how well they match."""
    changed = "one factor of the image is changed to another value"
    if not hasattr(data, "mismatches"):
        return f"{changed}, all other factors are held"
    differing = np.mean([data.mismatches(pairs, factor).mean() for factor, pairs in chosen.items()])
    return f"{changed} by taking the image nearest in the other factors, of which {differing:.2g} differ on average"


def float_images(data: FactorData, index: NDArray[np.int64]) -> torch.Tensor:
    """Images of these indices as a float32 tensor in [0, 1]."""
    return torch.from_numpy(np.asarray(data.images(index, "float32"), np.float32))


def _responses(
    model: Model, data: FactorData, pairs: Pairs, sites: Sequence[Site]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    mus, changes, responses = [], [], []
    wanted = list({s.name: s for s in (*sites, model.site("latent.mu"))}.values())
    for b in batches(len(pairs.base)):
        base = model.values(float_images(data, pairs.base[b]), wanted)
        source = model.values(float_images(data, pairs.source[b]), wanted)
        # Of a map, a latent is a channel: its mean over positions.
        mu, moved = (_channels(v["latent.mu"]) for v in (base, source))
        mus.append(mu)
        changes.append(moved - mu)
        responses.append(torch.cat([_per_unit(base, source, s) for s in sites], dim=1))
    found, change, response = (torch.cat(parts).float().cpu().numpy() for parts in (mus, changes, responses))
    return found, change, response


def _channels(mu: torch.Tensor) -> torch.Tensor:
    return mu.flatten(2).mean(2) if mu.ndim > 2 else mu


def _per_unit(base: Mapping[str, torch.Tensor], source: Mapping[str, torch.Tensor], site: Site) -> torch.Tensor:
    change = (source[site.name] - base[site.name]).abs()
    return change.flatten(2).mean(2) if change.ndim > 2 else change
