"""Finding a circuit: the sparse graph along which a factor's change reaches the latents and the picture.

Nodes are factors, units of encoder and decoder, latents, and regions of the image. All edges have the same measure and
the same null, so that they can be compared. For pairs of images that differ in one factor, let TE be the change of the
outcome (mu up to the latents, the mean brightness of each region after them), and let the change that passes along the
edge alone be NIE (a unit swapped, or a path patched). The edge's effect is the share of the total that it carries,

    effect = sum over pairs <NIE, TE> / sum over pairs ||TE||^2,

and the null is the same sum with the pairs' TE permuted, which keeps the sizes of all changes and breaks what ties one
to the other. The threshold of a layer is the 95 % quantile, over permutations, of the largest absolute null effect of
any of its edges, so that a layer without any true edge shows one in a run of twenty. Beside an edge that carries all,
an edge is told from chance from a share of about 2 / sqrt(n) with n pairs; 512 pairs resolve a tenth.

Shares of mediators: Vig et al. (2020, arXiv 2004.12265); edges by path patching: Goldowsky-Dill et al. (2023, arXiv
2304.05969); the maximum statistic: Westfall & Young (1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions.edges import Settings, edge_table, tested_by_component, tested_edges
from cvi_widgets.interventions.engine import BUDGET, Method
from cvi_widgets.interventions.found_circuit import Circuit, Node
from cvi_widgets.interventions.input import pair_stacks
from cvi_widgets.interventions.mediation import Contrasts, contrasts
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Readout, measured_sites, readout
from cvi_widgets.interventions.paths import Path, path_changes
from cvi_widgets.interventions.regions import region_masks, region_means
from cvi_widgets.interventions.sites import Site

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData


def circuit(
    model: Model,
    data: FactorData | Mapping[str, tuple[Images, Images]],
    factors: Sequence[str] | None = None,
    pairs: int = 512,
    *,
    sites: str | Sequence[str] | None = None,
    regions: ArrayLike | None = None,
    method: Method = "auto",
    budget: int = BUDGET,
    draws: int = 1000,
    permutations: int = 200,
    seed: int = 0,
) -> Circuit:
    """The circuit of each factor, and of all of them together.

    Parameters
    ----------
    data : a factor data set, or a mapping from factor to (base images, source images)
    factors : names, or None for all
    pairs : per factor, which decides how small a share can be told from chance; not used when images are given
    sites : encoder and decoder sites that form the layers, in order of the pass; None for all after non-linearities
    regions : bool (region, y, x); None for a grid of 4 x 4
    draws, permutations : of the intervals and of the null

    Returns
    -------
    Circuit

    Raises
    ------
    ConfigError
        When the code is discrete (swapping half a code is no change of a factor), or a region is empty.
    """
    if model.discrete:
        raise ConfigError("a circuit needs latents that can change by themselves, and this model's code is discrete.")
    masks = region_masks(model, regions)
    mu, picture = readout(model, "mu"), readout(model, region_means(masks))
    listed = measured_sites(model, sites, picture)
    encoder = [s for s in listed if s.side == "encoder"]
    decoder = [s for s in listed if s.side == "decoder" and s.name != "decoder.output"]
    stacks = pair_stacks(model, data, factors, pairs, seed)
    settings = Settings(method, budget, draws, permutations, seed)
    tables = []
    for factor, (base, source) in stacks.items():
        into_mu = _half(model, base, source, factor, encoder, mu, settings)
        kept = sorted({u for s, u in into_mu.loc[into_mu["kept"], "target"] if s == "latent.mu"})
        out_of_mu = _half(model, base, source, factor, decoder, picture, settings, latents=kept)
        tables += [into_mu, out_of_mu]
    edges = pd.concat(tables, ignore_index=True)
    layers = (*(s.name for s in encoder), "latent.mu", *(s.name for s in decoder))
    return Circuit(edges, layers, masks, n_pairs=min(len(b) for b, _ in stacks.values()), seed=seed)


def _half(
    model: Model,
    base: Tensor,
    source: Tensor,
    factor: str,
    layers: Sequence[Site],
    outcome: Readout,
    settings: Settings,
    latents: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Edges of one factor up to mu, or, given the latents it moves, from there to the picture."""
    rows: list[pd.DataFrame] = []
    before: tuple[Site | None, list[int]] = (None, [0])
    if latents is not None:
        before = (model.site("latent.mu"), list(latents))
    found: Contrasts | None = None
    for at, site in enumerate(layers):
        plan = [(site, [[u] for u in range(site.n_units)])]
        found = contrasts(model, base, source, plan, outcome, settings.method, settings.budget)
        through = tested_edges(found.indirect, found.total, settings)
        kept = np.flatnonzero(np.abs(through.effect) > through.threshold).tolist()
        targets: list[Node] = [(site.name, u) for u in range(site.n_units)]
        if before[0] is None:
            rows.append(edge_table(factor, [("factor", factor)] * len(targets), targets, through))
        elif before[1] and kept:
            rows.append(_paths(model, base, source, factor, before[0], before[1], site, kept, outcome, settings))
        before = (site, kept)
        if at == len(layers) - 1:
            name = "latent.mu" if latents is None else "image"
            rows.append(_into_outcome(factor, site, kept, name, found, outcome, settings))
    if not layers:
        rows.append(_without_layers(model, base, source, factor, before, outcome, settings))
    return pd.concat(rows, ignore_index=True)


def _paths(
    model: Model,
    base: Tensor,
    source: Tensor,
    factor: str,
    sender: Site,
    senders: Sequence[int],
    receiver: Site,
    receivers: Sequence[int],
    outcome: Readout,
    settings: Settings,
) -> pd.DataFrame:
    path = Path(sender, [[u] for u in senders], receiver, [[u] for u in receivers])
    found = path_changes(model, base, source, path, outcome, settings.method, settings.budget)
    n, s, r, k = found.components.shape
    tested = tested_edges(found.components.reshape(n, s * r, k), found.total, settings)
    ends = [((sender.name, u), (receiver.name, v)) for u in senders for v in receivers]
    return edge_table(factor, [a for a, _ in ends], [b for _, b in ends], tested)


def _into_outcome(
    factor: str,
    site: Site,
    kept: Sequence[int],
    name: str,
    found: Contrasts,
    outcome: Readout,
    settings: Settings,
) -> pd.DataFrame:
    """From the units of the last layer to each component of the outcome: a latent, or a region."""
    tested = tested_by_component(found.indirect[:, list(kept)], found.total, settings)
    ends: list[tuple[Node, Node]] = [((site.name, u), (name, k)) for u in kept for k in range(len(outcome.labels))]
    return edge_table(factor, [a for a, _ in ends], [b for _, b in ends], tested)


def _without_layers(
    model: Model,
    base: Tensor,
    source: Tensor,
    factor: str,
    before: tuple[Site | None, list[int]],
    outcome: Readout,
    settings: Settings,
) -> pd.DataFrame:
    site, units = before
    mu = model.site("latent.mu")
    plan = [(mu, [[u] for u in range(mu.n_units)])]
    found = contrasts(model, base, source, plan, outcome, settings.method, settings.budget)
    if site is None:
        tested = tested_edges(found.indirect, found.total, settings)
        targets: list[Node] = [(mu.name, u) for u in range(mu.n_units)]
        return edge_table(factor, [("factor", factor)] * len(targets), targets, tested)
    return _into_outcome(factor, mu, units, "image", found, outcome, settings)
