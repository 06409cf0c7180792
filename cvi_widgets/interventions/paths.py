"""Path patching: how much of one unit's effect on the outcome goes through another unit.

The sender takes its value from the source run and everything between sender and receiver is computed with it; of the
receiver's site only the receiver takes the value this gives, all its other units, and all ways around the receiver's
site, stay at the base's. After Wang et al. (2022, arXiv 2211.00593) and Goldowsky-Dill et al. (2023, arXiv 2304.05969),
whose heads are units here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.errors import SiteError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import (
    BUDGET,
    Groups,
    Method,
    Units,
    method_for,
    paired,
    reached,
    read,
    traced,
    unit_groups,
)
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Outcome, Readout, acts_on, readout
from cvi_widgets.interventions.patching import share, unit_changes
from cvi_widgets.interventions.sites import Site


class Path(NamedTuple):
    """From some units of one site to some units of a later one."""

    sender: Site
    senders: Groups
    receiver: Site
    receivers: Groups


class PathChanges(NamedTuple):
    """What sending through each path did to the outcome, pair by pair."""

    components: NDArray[np.float32]
    """(pair, sender, receiver, component)"""
    along: NDArray[np.float64]
    """(pair, sender, receiver): share of the pair's total change, NaN where there is none"""
    total: NDArray[np.float32]
    """(pair, component): the change of the outcome from base to source"""


def path_patch(
    model: Model,
    base: Images,
    source: Images,
    sender: str,
    receiver: str,
    senders: Units = "each",
    receivers: Units = "each",
    outcome: Outcome = "mu",
    *,
    method: Method = "auto",
    keep_pairs: bool = False,
    budget: int = BUDGET,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Effect on the outcome that goes from each sender unit through each receiver unit.

    Parameters
    ----------
    base, source : images (pair, channel, y, x)
    sender, receiver : sites; the sender's has to come first
    senders, receivers : `each` unit, `all` units at once, or a list, as in `patch`
    outcome, method, keep_pairs, budget : as in `patch`

    Returns
    -------
    Dataset
        `transfer` (sender, receiver), share of the way from the base's outcome to the source's that goes through the
        path; `effect` (sender, receiver, latent or outcome), mean absolute change. Both have `_low`, `_high` (95 %) and
        `_sd` (over pairs); with `keep_pairs` also `transfer_pair` (pair, sender, receiver) and the signed
        `change_pair`.

    Raises
    ------
    SiteError
        When the receiver's value does not depend on the sender's.
    """
    b_images, s_images = paired(model, base, source)
    y = readout(model, outcome)
    path = path_of(model, sender, receiver, senders, receivers, y)
    found = path_changes(model, b_images, s_images, path, y, method, budget)
    dims = ("sender", "receiver")
    variables = {
        **effects.with_spread(
            "transfer",
            dims,
            found.along,
            f"share of the way to the source's {y.name} by this path",
            "1",
            draws,
            seed,
        ),
        **effects.with_spread(
            "effect",
            (*dims, y.dim),
            np.abs(found.components),
            f"mean absolute change of {y.name} through the path",
            y.units,
            draws,
            seed,
        ),
    }
    if keep_pairs:
        variables["transfer_pair"] = effects.variable(("pair", *dims), found.along, "share, pair by pair", "1")
        variables["change_pair"] = effects.variable(
            ("pair", *dims, y.dim), found.components, f"change of {y.name}, pair by pair", y.units
        )
    coords = {
        y.dim: (y.dim, y.labels),
        **effects.group_coords([(path.sender, path.senders)], "sender"),
        **effects.group_coords([(path.receiver, path.receivers)], "receiver"),
    }
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="the sender takes its value from the source run; only the receiver sees it, all other units of "
        "the receiver's site and all ways around that site are held at the base run",
        convention="transfer is <y~ - y_b, y_s - y_b> / ||y_s - y_b||^2; effect is E|y~ - y_b|",
        outcome=y.name,
        interval="95 % percentile bootstrap over pairs",
        n_pairs=len(b_images),
        seed=seed,
        draws=draws,
        method=method_for(model, path.receiver, y, method),
    )


def path_of(model: Model, sender: str, receiver: str, senders: Units, receivers: Units, outcome: Readout) -> Path:
    """The path, checked: the receiver depends on the sender, and the outcome on the receiver.

    Raises
    ------
    SiteError
        When it does not.
    """
    first, second = model.site(sender), model.site(receiver)
    order = list(model.site_map.sites)
    late = first.name in order and second.name in order and order.index(first.name) >= order.index(second.name)
    if late or "latent.code" in (first.name, second.name):
        listed = ", ".join(order)
        raise SiteError(f"no path leads from site {sender!r} to site {receiver!r}; sites run in the order {listed}.")
    if not acts_on(second, outcome):
        raise SiteError(f"site {receiver!r} does not act on {outcome.name}.")
    return Path(first, unit_groups(first, senders), second, unit_groups(second, receivers))


def path_changes(
    model: Model,
    base: Tensor,
    source: Tensor,
    path: Path,
    outcome: Readout,
    method: Method = "auto",
    budget: int = BUDGET,
) -> PathChanges:
    """Change of the outcome through each path, of each pair."""
    decode = outcome.decode or path.receiver.side == "decoder"
    components, along, square, total = [], [], [], []
    start = 0
    for run in traced(model, base, source, decode=decode, budget=budget):
        y, y_new = read(run.base, outcome), read(run.source, outcome)
        images = base[start : start + len(y)]
        start += len(y)
        new = run.source.value(path.sender.name)
        found = [
            unit_changes(
                model,
                run.base,
                images,
                lambda _site, value=value: value,  # type: ignore[misc]
                [(path.receiver, path.receivers)],
                outcome,
                method,
                before=y,
                total=y_new - y,
            )
            for value in reached(model, run.base, images, path.sender, new, path.senders, path.receiver, method)
        ]
        total.append(outcome.components(y_new - y).cpu())
        components.append(torch.stack([f.components for f in found], dim=1).cpu())
        along.append(torch.stack([f.along for f in found], dim=1).cpu())
        square.append((y_new - y).flatten(1).double().square().sum(1).cpu())
    return PathChanges(
        torch.cat(components).numpy(),
        share(torch.cat(along).numpy(), torch.cat(square).numpy()),
        torch.cat(total).numpy(),
    )
