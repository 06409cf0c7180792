"""Activation patching: put one unit's value from the source run into the base run and read mu.

Source: arXiv 2505.03530, equation 5, with a source drawn from the data rather than noise and the effect scaled so that
1 is full transfer (Zhang & Nanda 2024, arXiv 2309.16042).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import Method, batches, measured_sites, method_for, paired, swapped_mu
from cvi_widgets.interventions.model import Images, Model

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import Pairs


def patch(
    model: Model,
    base: Images,
    source: Images,
    sites: str | Sequence[str] | None = None,
    *,
    method: Method = "auto",
    index: Pairs | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Effect on mu of swapping each unit for its value in the source run.

    Parameters
    ----------
    base, source : images (pair, channel, y, x)
    sites : encoder sites and `latent.mu`; None for all of them after their non-linearities
    method : `auto` takes the shortest exact computation, `hooks` the longest (see `engine`)
    index : indices of the images in their data set, stored with the result

    Returns
    -------
    Dataset
        `transfer` (unit), mean of <mu~ - mu_b, mu_s - mu_b> / ||mu_s - mu_b||^2 over pairs whose mu differ: 0 is no
        transfer, 1 full transfer; `effect` (unit, latent), mean absolute change in standard deviations of mu. Both have
        `_low` and `_high`.
    """
    b_images, s_images = paired(model, base, source)
    at = measured_sites(model, sites)
    change, gap, mus = [], [], []
    for b in batches(len(b_images)):
        mu_b, mu_s = model.encode(b_images[b]).mu, model.encode(s_images[b]).mu
        patched = torch.cat([swapped_mu(model, site, b_images[b], s_images[b], method) for site in at])
        change.append((patched - mu_b).transpose(0, 1).cpu())
        gap.append((mu_s - mu_b).cpu())
        mus.append(torch.cat([mu_b, mu_s]).cpu())
    delta = torch.cat(change).numpy()
    toward = projection(delta, torch.cat(gap).numpy()[:, None, :])
    sd = torch.cat(mus).numpy().std(axis=0)
    size = np.divide(np.abs(delta), sd, out=np.zeros_like(delta), where=sd > 0)
    variables = {
        **effects.with_interval(
            "transfer",
            ("unit",),
            effects.mean_over_first(toward, draws, seed),
            "share of the way from the base's mu to the source's mu",
            "1",
        ),
        **effects.with_interval(
            "effect",
            ("unit", "latent"),
            effects.mean_over_first(size, draws, seed),
            "mean absolute change of mu when the unit is swapped",
            "sd of mu",
        ),
        "sd_mu": effects.variable(("latent",), sd, "standard deviation of mu over base and source images", "mu"),
    }
    if index is not None:
        variables["base"] = effects.variable(("pair",), index.base, "index of the base image", "1")
        variables["source"] = effects.variable(("pair",), index.source, "index of the source image", "1")
    coords = {**effects.latent_coords(model.n_latents), **effects.unit_coords(at)}
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="one unit takes its value from the source run, all other units of its site keep the base's",
        convention="transfer is <mu~ - mu_b, mu_s - mu_b> / ||mu_s - mu_b||^2; effect is E|mu~ - mu_b| / sd(mu)",
        interval="95 % percentile bootstrap over pairs",
        n_pairs=len(b_images),
        seed=seed,
        draws=draws,
        method={site.name: method_for(model, site, method) for site in at},
    )


def projection(effect: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Signed length <effect, toward> / ||toward||^2 along the last axis; NaN where `toward` is zero to rounding.

    Two renderings of one scene (a square turned by a quarter) have the same code, so that there is nothing to carry.
    """
    effect, toward = np.asarray(effect, np.float64), np.asarray(toward, np.float64)
    square = (toward**2).sum(-1)
    shape = np.broadcast_shapes(effect.shape[:-1], square.shape)
    square = np.broadcast_to(square, shape)
    out: np.ndarray = np.divide((effect * toward).sum(-1), square, out=np.full(shape, np.nan), where=square > 1e-8)
    return out
