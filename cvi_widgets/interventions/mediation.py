"""Mediation: how much of a factor's effect on mu goes through one unit.

Definitions after Pearl (2001) and Vig et al. (2020, arXiv 2004.12265), for base x, source x~ (one factor changed),
mediator a (one unit) and outcome Y = mu:

    total    TE  = Y(x~) - Y(x)
    indirect NIE = Y(x;  a <- a(x~)) - Y(x)
    direct   NDE = Y(x~; a <- a(x))  - Y(x)

TE = NDE + (Y(x~) - Y(x~; a <- a(x))) holds exactly; TE = NDE + NIE only where the unit does not interact with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import Method, batches, measured_sites, method_for, paired, swapped_mu
from cvi_widgets.interventions.input import factor_pairs, float_images
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.patching import projection
from cvi_widgets.interventions.sites import Site
from cvi_widgets.metrics.statistics import Interval

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData

KINDS = ("total", "direct", "indirect")


class Contrasts(NamedTuple):
    """Signed effects on mu, pair by pair."""

    total: NDArray[np.float32]
    """(pair, latent)"""
    direct: NDArray[np.float32]
    """(pair, unit, latent)"""
    indirect: NDArray[np.float32]
    """(pair, unit, latent)"""


def contrasts(model: Model, base: Images, source: Images, sites: Sequence[Site], method: Method = "auto") -> Contrasts:
    """Total, direct and indirect effects on mu of each pair through each unit of `sites`."""
    b_images, s_images = paired(model, base, source)
    total, direct, indirect = [], [], []
    for b in batches(len(b_images)):
        x, x_new = b_images[b], s_images[b]
        mu, mu_new = model.encode(x).mu, model.encode(x_new).mu
        into_base = torch.cat([swapped_mu(model, site, x, x_new, method) for site in sites])
        into_source = torch.cat([swapped_mu(model, site, x_new, x, method) for site in sites])
        total.append((mu_new - mu).cpu())
        direct.append((into_source - mu).transpose(0, 1).cpu())
        indirect.append((into_base - mu).transpose(0, 1).cpu())
    return Contrasts(*(torch.cat(parts).numpy() for parts in (total, direct, indirect)))


def mediate(
    model: Model,
    data: FactorData | Mapping[str, tuple[Images, Images]],
    factors: Sequence[str] | None = None,
    pairs: int = 128,
    seed: int = 0,
    *,
    sites: str | Sequence[str] | None = None,
    method: Method = "auto",
    draws: int = 1000,
) -> xr.Dataset:
    """Total, direct and indirect effect of each factor on mu through each unit.

    Parameters
    ----------
    data : a factor data set, or a mapping from factor to (base images, source images)
    factors : names, or None for all
    pairs : per factor; not used when images are given
    sites : encoder sites and `latent.mu`; None for all of them after their non-linearities

    Returns
    -------
    Dataset
        `effect` (kind, unit, factor, latent), mean absolute effect; `mediated` (unit, factor), mean over pairs of
        <NIE, TE> / ||TE||^2, the share of the total effect that the unit carries by itself (pairs whose images have the
        same code are left out); `moving` (factor), how many pairs were left in. Means have `_low` and `_high`.
    """
    if isinstance(data, Mapping):
        names = tuple(data) if factors is None else tuple(factors)
        missing = [f for f in names if f not in data]
        if missing or not names:
            raise ConfigError(f"factor {missing[0] if missing else None!r} has no pairs; given are {', '.join(data)}.")
        stacks = {f: data[f] for f in names}
    else:
        chosen = factor_pairs(data, factors, pairs, seed)
        stacks = {f: (float_images(data, p.base), float_images(data, p.source)) for f, p in chosen.items()}
    at = measured_sites(model, sites)
    n_units = sum(s.n_units for s in at)
    parts: dict[str, list[np.ndarray]] = {n: [] for n in ("value", "low", "high", "share", "share_low", "share_high")}
    moving, n_pairs = [], []
    for base, source in stacks.values():
        found = contrasts(model, base, source, at, method)
        n_pairs.append(len(found.total))
        total = effects.mean_over_first(np.abs(found.total), draws, seed)
        direct = effects.mean_over_first(np.abs(found.direct), draws, seed)
        indirect = effects.mean_over_first(np.abs(found.indirect), draws, seed)
        for key, t, d, i in zip(("value", "low", "high"), total, direct, indirect, strict=True):
            parts[key].append(np.stack([np.broadcast_to(t, (n_units, len(t))), d, i]))
        shares = projection(found.indirect, found.total[:, None, :])
        moving.append(int(np.isfinite(shares[:, 0]).sum()))
        share = effects.mean_over_first(shares, draws, seed)
        for key, value in zip(("share", "share_low", "share_high"), share, strict=True):
            parts[key].append(value)

    stacked = {k: np.stack(v, axis=2) if v[0].ndim == 3 else np.stack(v, axis=1) for k, v in parts.items()}
    variables = {
        **effects.with_interval(
            "effect",
            ("kind", "unit", "factor", "latent"),
            Interval(stacked["value"], stacked["low"], stacked["high"]),
            "mean absolute effect of the factor on mu",
            "mu",
        ),
        **effects.with_interval(
            "mediated",
            ("unit", "factor"),
            Interval(stacked["share"], stacked["share_low"], stacked["share_high"]),
            "share of the factor's total effect on mu that goes through the unit",
            "1",
        ),
        "moving": effects.variable(("factor",), np.array(moving), "pairs whose images have different codes", "pairs"),
    }
    coords = {
        "kind": ("kind", np.array(KINDS, dtype=str)),
        "factor": ("factor", np.array(list(stacks), dtype=str)),
        **effects.latent_coords(model.n_latents),
        **effects.unit_coords(at),
    }
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="one factor of the image is changed; in the direct effect the unit is held at its base value, in "
        "the indirect effect only the unit changes",
        convention="mediated is E <NIE, TE> / ||TE||^2 over pairs with a total effect; units need not sum to 1",
        interval="95 % percentile bootstrap over pairs",
        n_pairs=min(n_pairs),
        seed=seed,
        draws=draws,
        method={site.name: method_for(model, site, method) for site in at},
    )
