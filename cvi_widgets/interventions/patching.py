"""Activation patching: put units' values from the source run into the base run and read an outcome.

Source: arXiv 2505.03530, equation 5, with a source drawn from the data rather than noise and the effect scaled so that
1 is full transfer (Zhang & Nanda 2024, arXiv 2309.16042).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import (
    BUDGET,
    Groups,
    Method,
    Units,
    each_unit,
    method_for,
    paired,
    read,
    traced,
    unit_groups,
)
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Outcome, Readout, measured_sites, readout
from cvi_widgets.interventions.sites import Site
from cvi_widgets.interventions.trace import Trace

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import Pairs

Plan = Sequence[tuple[Site, Groups]]
"""Sites, and which of their units change together."""


class Changes(NamedTuple):
    """What changing each group of units did to the outcome, pair by pair."""

    components: Tensor
    """(pair, unit, component): signed where a component is one number, else its root mean square"""
    along: Tensor
    """(pair, unit): inner product with the total change, over all numbers of the outcome"""


def patch(
    model: Model,
    base: Images,
    source: Images,
    sites: str | Sequence[str] | None = None,
    units: Units = "each",
    outcome: Outcome = "mu",
    *,
    method: Method = "auto",
    index: Pairs | None = None,
    keep_pairs: bool = False,
    budget: int = BUDGET,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Effect on the outcome of giving units their value in the source run.

    Parameters
    ----------
    base, source : images (pair, channel, y, x)
    sites : names; None for all sites after their non-linearities that act on the outcome
    units : `each` unit by itself, `all` units of a site at once, or a list of units or of lists of units
    outcome : `mu`, `z`, `reconstruction`, `latent:3`, or a function from a `Pass` to (n,) or (n, k)
    method : `auto` takes the shortest exact computation, `hooks` the longest (see `engine`)
    index : indices of the images in their data set, stored with the result
    keep_pairs : also return the values pair by pair
    budget : bytes that one batch of pairs may take

    Returns
    -------
    Dataset
        `transfer` (unit), mean of <y~ - y_b, y_s - y_b> / ||y_s - y_b||^2 over pairs whose outcomes y differ: 0 is no
        transfer, 1 full transfer; `effect` (unit, latent or outcome), mean absolute change, in standard deviations of
        the outcome where a component is one number. Both have `_low`, `_high` (95 %) and `_sd` (over pairs). With
        `keep_pairs`, `transfer_pair` (pair, unit) and the signed `change_pair` (pair, unit, latent or outcome).
    """
    b_images, s_images = paired(model, base, source)
    y = readout(model, outcome)
    plan = [(site, unit_groups(site, units)) for site in measured_sites(model, sites, y)]
    change, along, square, scale = [], [], [], []
    start = 0
    for run in traced(model, b_images, s_images, decode=decodes(y, plan), budget=budget):
        y_b, y_s = read(run.base, y), read(run.source, y)
        images = b_images[start : start + len(y_b)]
        start += len(y_b)
        found = unit_changes(model, run.base, images, run.source.value, plan, y, method, before=y_b, total=y_s - y_b)
        change.append(found.components.cpu())
        along.append(found.along.cpu())
        square.append((y_s - y_b).flatten(1).double().square().sum(1).cpu())
        scale.append(torch.stack([y_b, y_s], 1).flatten(0, 1).cpu() if y_b.ndim == 2 else y_b[:0])
    delta = torch.cat(change).numpy()
    toward = share(torch.cat(along).numpy(), torch.cat(square).numpy())
    sd = torch.cat(scale).numpy().std(axis=0) if len(scale[0]) else None
    return effects.described(
        _dataset(y, plan, delta, toward, sd, index, keep_pairs=keep_pairs, draws=draws, seed=seed),
        intervention="units take their value from the source run, all other units of their site keep the base's",
        convention="transfer is <y~ - y_b, y_s - y_b> / ||y_s - y_b||^2; effect is E|y~ - y_b|"
        + (" / sd(y)" if sd is not None else ", root mean square over the numbers of a component"),
        outcome=y.name,
        interval="95 % percentile bootstrap over pairs",
        n_pairs=len(b_images),
        seed=seed,
        draws=draws,
        method={site.name: method_for(model, site, y, method) for site, _ in plan},
    )


def unit_changes(
    model: Model,
    trace: Trace,
    images: Tensor,
    new: Callable[[str], Tensor],
    plan: Plan,
    outcome: Readout,
    method: Method,
    before: Tensor,
    total: Tensor,
) -> Changes:
    """Give each group of units of `trace` its new value and compare the outcome with `before`.

    Parameters
    ----------
    images : of the run that is changed
    new : site to the values (n, unit, ...) that its units take
    before, total : outcome (n, component, ...) that changes are counted from, and the change they are projected on
    """
    components, along = [], []
    direction = total.flatten(1)
    for site, groups in plan:
        for block in each_unit(model, trace, images, site, new(site.name), groups, outcome, method):
            moved = block - before
            flat = moved.flatten(0, 1)
            components.append(outcome.components(flat).reshape(*moved.shape[:2], -1))
            along.append((moved.flatten(2) * direction).sum(2))
    return Changes(torch.cat(components).transpose(0, 1), torch.cat(along).transpose(0, 1))


def share(along: NDArray[np.floating], square: NDArray[np.floating]) -> NDArray[np.float64]:
    """Signed length along the total change, in units of it; NaN for pairs with no change to carry.

    Two renderings of one scene (a square turned by a quarter) have the same code.

    Parameters
    ----------
    along : (pair, ...)
    square : squared length of the total change, (pair,)
    """
    along = np.asarray(along, np.float64)
    size = np.broadcast_to(np.asarray(square).reshape(-1, *(1,) * (along.ndim - 1)), along.shape)
    out: NDArray[np.float64] = np.divide(along, size, out=np.full(along.shape, np.nan), where=size > 1e-8)
    return out


def decodes(outcome: Readout, plan: Plan) -> bool:
    """Whether the decoder has to run for this."""
    return outcome.decode or any(site.side == "decoder" for site, _ in plan)


def _dataset(
    outcome: Readout,
    plan: Plan,
    delta: NDArray[np.float32],
    toward: NDArray[np.float64],
    sd: NDArray[np.float32] | None,
    index: Pairs | None,
    *,
    keep_pairs: bool,
    draws: int,
    seed: int,
) -> xr.Dataset:
    size = np.abs(delta)
    units = outcome.units
    variables = {}
    if sd is not None:
        size = np.divide(size, sd, out=np.zeros_like(size), where=sd > 0)
        units = f"sd of {outcome.name}"
        name = "sd_mu" if outcome.name == "mu" else "sd_outcome"
        said = f"standard deviation of {outcome.name} over base and source images"
        variables[name] = effects.variable((outcome.dim,), sd, said, outcome.units)
    variables |= effects.with_spread(
        "transfer",
        ("unit",),
        toward,
        f"share of the way from the base's {outcome.name} to the source's",
        "1",
        draws,
        seed,
    )
    variables |= effects.with_spread(
        "effect",
        ("unit", outcome.dim),
        size,
        f"mean absolute change of {outcome.name} when the unit is swapped",
        units,
        draws,
        seed,
    )
    if keep_pairs:
        variables["transfer_pair"] = effects.variable(("pair", "unit"), toward, "share of the way, pair by pair", "1")
        variables["change_pair"] = effects.variable(
            ("pair", "unit", outcome.dim), delta, f"change of {outcome.name}, pair by pair", outcome.units
        )
    if index is not None:
        variables["base"] = effects.variable(("pair",), index.base, "index of the base image", "1")
        variables["source"] = effects.variable(("pair",), index.source, "index of the source image", "1")
    return xr.Dataset(variables, {outcome.dim: (outcome.dim, outcome.labels), **effects.group_coords(plan)})
