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

from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import (
    BUDGET,
    Method,
    Units,
    method_for,
    paired,
    read,
    traced,
    unit_groups,
)
from cvi_widgets.interventions.input import pair_stacks
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Outcome, Readout, measured_sites, readout
from cvi_widgets.interventions.patching import Plan, decodes, share, unit_changes
from cvi_widgets.metrics.across import benjamini_hochberg

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData

KINDS = ("total", "direct", "indirect")
_BLOCK = 256
"""Permutations at once."""


class Contrasts(NamedTuple):
    """Effects pair by pair, per component of the outcome: signed where a component is one number."""

    total: NDArray[np.float32]
    """(pair, component)"""
    direct: NDArray[np.float32]
    """(pair, unit, component)"""
    indirect: NDArray[np.float32]
    """(pair, unit, component)"""
    mediated: NDArray[np.float64]
    """(pair, unit): <NIE, TE> / ||TE||^2 over all numbers of the outcome; NaN where there is no total effect"""
    signed: bool
    """whether components are single numbers"""


def contrasts(
    model: Model,
    base: Images,
    source: Images,
    plan: Plan,
    outcome: Readout,
    method: Method = "auto",
    budget: int = BUDGET,
) -> Contrasts:
    """Total, direct and indirect effects of each pair through each group of units."""
    b_images, s_images = paired(model, base, source)
    total, direct, indirect, along, square = [], [], [], [], []
    signed = True
    start = 0
    for run in traced(model, b_images, s_images, decode=decodes(outcome, plan), budget=budget):
        y, y_new = read(run.base, outcome), read(run.source, outcome)
        b = slice(start, start + len(y))
        start = b.stop
        te = y_new - y
        into_base = unit_changes(model, run.base, b_images[b], run.source.value, plan, outcome, method, y, te)
        into_source = unit_changes(model, run.source, s_images[b], run.base.value, plan, outcome, method, y, te)
        signed = te.ndim == 2
        total.append(outcome.components(te).cpu())
        direct.append(into_source.components.cpu())
        indirect.append(into_base.components.cpu())
        along.append(into_base.along.cpu())
        square.append(te.flatten(1).double().square().sum(1).cpu())
    return Contrasts(
        torch.cat(total).numpy(),
        torch.cat(direct).numpy(),
        torch.cat(indirect).numpy(),
        share(torch.cat(along).numpy(), torch.cat(square).numpy()),
        signed,
    )


def mediate(
    model: Model,
    data: FactorData | Mapping[str, tuple[Images, Images]],
    factors: Sequence[str] | None = None,
    pairs: int = 128,
    seed: int = 0,
    *,
    sites: str | Sequence[str] | None = None,
    units: Units = "each",
    outcome: Outcome = "mu",
    method: Method = "auto",
    budget: int = BUDGET,
    draws: int = 1000,
) -> xr.Dataset:
    """Total, direct and indirect effect of each factor on the outcome through each unit.

    Parameters
    ----------
    data : a factor data set, or a mapping from factor to (base images, source images)
    factors : names, or None for all
    pairs : per factor; not used when images are given
    sites, units, outcome, method, budget : as in `patch`

    Returns
    -------
    Dataset
        `effect` (kind, unit, factor, latent or outcome), mean absolute effect; `mediated` (unit, factor), mean over
        pairs of <NIE, TE> / ||TE||^2, the share of the total effect that the unit carries by itself (pairs whose images
        have the same outcome are left out); `moving` (factor), how many pairs were left in. Means have `_low`, `_high`
        (95 %) and `_sd` (over pairs). `mediated_p` (unit, factor) is the chance of as large a share of the summed total
        effect with the pairs' total effects permuted (two-sided; NaN where a component of the outcome is not one
        number), `mediated_q` the same after Benjamini-Hochberg over the whole map.
    """
    stacks = pair_stacks(model, data, factors, pairs, seed)
    y = readout(model, outcome)
    plan = [(site, unit_groups(site, units)) for site in measured_sites(model, sites, y)]
    by_factor = []
    moving, n_pairs = [], []
    for base, source in stacks.values():
        found = contrasts(model, base, source, plan, y, method, budget)
        by_factor.append(_of_factor(found, y, draws, seed))
        moving.append(int(np.isfinite(found.mediated[:, 0]).sum()))
        n_pairs.append(len(found.total))
    joined = xr.concat(by_factor, dim="factor", combine_attrs="override").transpose("kind", "unit", "factor", ...)
    joined["mediated_q"] = effects.variable(
        ("unit", "factor"), benjamini_hochberg(joined["mediated_p"]), "p after Benjamini-Hochberg over the map", "1"
    )
    joined["moving"] = effects.variable(
        ("factor",), np.array(moving), "pairs whose images have different outcomes", "1"
    )
    coords = {"kind": ("kind", np.array(KINDS, dtype=str)), y.dim: (y.dim, y.labels), **effects.group_coords(plan)}
    coords["factor"] = ("factor", np.array(list(stacks), dtype=str))
    return effects.described(
        joined.assign_coords(coords),
        intervention="one factor of the image is changed; in the direct effect the unit is held at its base value, in "
        "the indirect effect only the unit changes",
        convention="mediated is E <NIE, TE> / ||TE||^2 over pairs with a total effect; units need not sum to 1",
        outcome=y.name,
        interval="95 % percentile bootstrap over pairs",
        n_pairs=min(n_pairs),
        seed=seed,
        draws=draws,
        method={site.name: method_for(model, site, y, method) for site, _ in plan},
    )


def _of_factor(found: Contrasts, outcome: Readout, draws: int, seed: int) -> xr.Dataset:
    total = np.broadcast_to(found.total[:, None], found.direct.shape)
    kinds = np.abs(np.stack([total, found.direct, found.indirect], axis=1))
    return xr.Dataset(
        {
            **effects.with_spread(
                "effect",
                ("kind", "unit", outcome.dim),
                kinds,
                f"mean absolute effect of the factor on {outcome.name}",
                outcome.units,
                draws,
                seed,
            ),
            **effects.with_spread(
                "mediated",
                ("unit",),
                found.mediated,
                f"share of the factor's total effect on {outcome.name} that goes through the unit",
                "1",
                draws,
                seed,
            ),
            "mediated_p": effects.variable(
                ("unit",), p_of_share(found, draws, seed), "p of the share, pairs' total effects permuted", "1"
            ),
        }
    )


def p_of_share(found: Contrasts, draws: int, seed: int) -> NDArray[np.float64]:
    """Two-sided p of sum <NIE, TE> per unit when TE belongs to another pair."""
    n, units, _ = found.indirect.shape
    if not found.signed or not found.total.any():
        return np.full(units, np.nan)
    flat = np.moveaxis(found.indirect, 1, 2).reshape(-1, units)
    observed = np.abs(found.total.reshape(-1) @ flat)
    rng = np.random.default_rng([seed, 5])
    # Rounding must not decide whether an order that changes nothing counts.
    reached = observed * (1 - 1e-5)
    extreme = np.zeros(units)
    for start in range(0, draws, _BLOCK):
        orders = [rng.permutation(n) for _ in range(min(_BLOCK, draws - start))]
        null = np.stack([found.total[order].reshape(-1) for order in orders]) @ flat
        extreme += (np.abs(null) >= reached).sum(0)
    return (1 + extreme) / (1 + draws)
