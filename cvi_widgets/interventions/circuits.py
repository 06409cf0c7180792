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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions.engine import BUDGET, Method
from cvi_widgets.interventions.found_circuit import Circuit, Node
from cvi_widgets.interventions.input import factor_pairs, float_images
from cvi_widgets.interventions.mediation import Contrasts, contrasts
from cvi_widgets.interventions.model import Images, Model, Pass
from cvi_widgets.interventions.outcomes import Readout, measured_sites, readout
from cvi_widgets.interventions.paths import Path, path_changes
from cvi_widgets.interventions.sites import Site
from cvi_widgets.metrics.statistics import bootstrap_weights, interval

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData

GRID = 4
"""Regions along each side of the image, unless given."""
LEVEL = 0.95


class _Tested(NamedTuple):
    """Effects of some edges, shape (edge,), and the layer's threshold."""

    effect: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: float


class _Settings(NamedTuple):
    method: Method
    budget: int
    draws: int
    permutations: int
    seed: int


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
    settings = _Settings(method, budget, draws, permutations, seed)
    tables = []
    for factor, (base, source) in stacks.items():
        into_mu = _half(model, base, source, factor, encoder, mu, settings)
        kept = sorted({u for s, u in into_mu.loc[into_mu["kept"], "target"] if s == "latent.mu"})
        out_of_mu = _half(model, base, source, factor, decoder, picture, settings, latents=kept)
        tables += [into_mu, out_of_mu]
    edges = pd.concat(tables, ignore_index=True)
    layers = (*(s.name for s in encoder), "latent.mu", *(s.name for s in decoder))
    return Circuit(edges, layers, masks, n_pairs=min(len(b) for b, _ in stacks.values()), seed=seed)


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


def region_masks(model: Model, regions: ArrayLike | None) -> NDArray[np.bool_]:
    """Regions of the image as masks (region, y, x), checked; a grid where none are given."""
    _, height, width = model.image_shape
    if regions is None:
        rows = (np.arange(height) * GRID // height)[:, None]
        columns = (np.arange(width) * GRID // width)[None]
        number = rows * GRID + columns
        return np.asarray(number == np.unique(number)[:, None, None])
    masks = np.asarray(regions)
    if masks.dtype != np.bool_ or masks.shape[1:] != (height, width) or not masks.any(axis=(1, 2)).all():
        raise ConfigError(
            f"regions are {masks.dtype} of shape {masks.shape}; "
            f"they must be bool (region, {height}, {width}), none empty."
        )
    return masks


class region_means:  # noqa: N801 - a function that remembers its regions
    """Mean brightness of each region, (n, region), of a pass."""

    def __init__(self, masks: NDArray[np.bool_]) -> None:
        flat = torch.from_numpy(masks.reshape(len(masks), -1).astype(np.float32))
        self.weights = (flat / flat.sum(1, keepdim=True)).T
        self.__name__ = "region means"

    def __call__(self, ran: Pass) -> Tensor:
        assert ran.image is not None
        grey = ran.image.mean(1).flatten(1)
        return grey @ self.weights.to(grey)


def _half(
    model: Model,
    base: Tensor,
    source: Tensor,
    factor: str,
    layers: Sequence[Site],
    outcome: Readout,
    settings: _Settings,
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
        through = _tested(found.indirect, found.total, settings)
        kept = np.flatnonzero(np.abs(through.effect) > through.threshold).tolist()
        targets: list[Node] = [(site.name, u) for u in range(site.n_units)]
        if before[0] is None:
            rows.append(_table(factor, [("factor", factor)] * len(targets), targets, through))
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
    settings: _Settings,
) -> pd.DataFrame:
    path = Path(sender, [[u] for u in senders], receiver, [[u] for u in receivers])
    found = path_changes(model, base, source, path, outcome, settings.method, settings.budget)
    n, s, r, k = found.components.shape
    tested = _tested(found.components.reshape(n, s * r, k), found.total, settings)
    ends = [((sender.name, u), (receiver.name, v)) for u in senders for v in receivers]
    return _table(factor, [a for a, _ in ends], [b for _, b in ends], tested)


def _into_outcome(
    factor: str,
    site: Site,
    kept: Sequence[int],
    name: str,
    found: Contrasts,
    outcome: Readout,
    settings: _Settings,
) -> pd.DataFrame:
    """From the units of the last layer to each component of the outcome: a latent, or a region."""
    tested = _tested_by_component(found.indirect[:, list(kept)], found.total, settings)
    ends: list[tuple[Node, Node]] = [((site.name, u), (name, k)) for u in kept for k in range(len(outcome.labels))]
    return _table(factor, [a for a, _ in ends], [b for _, b in ends], tested)


def _without_layers(
    model: Model,
    base: Tensor,
    source: Tensor,
    factor: str,
    before: tuple[Site | None, list[int]],
    outcome: Readout,
    settings: _Settings,
) -> pd.DataFrame:
    site, units = before
    mu = model.site("latent.mu")
    plan = [(mu, [[u] for u in range(mu.n_units)])]
    found = contrasts(model, base, source, plan, outcome, settings.method, settings.budget)
    if site is None:
        tested = _tested(found.indirect, found.total, settings)
        targets: list[Node] = [(mu.name, u) for u in range(mu.n_units)]
        return _table(factor, [("factor", factor)] * len(targets), targets, tested)
    return _into_outcome(factor, mu, units, "image", found, outcome, settings)


def _tested(change: NDArray[np.float32], total: NDArray[np.float32], settings: _Settings) -> _Tested:
    """Shares of edges whose change has all components of the outcome.

    Parameters
    ----------
    change : (pair, edge, component)
    total : (pair, component)
    """
    n, edges, _ = change.shape
    inner = np.einsum("iek,ik->ie", change, total, dtype=np.float64)
    flat = np.moveaxis(change, 1, 2).reshape(-1, edges)
    null = np.stack([total[order].reshape(-1) @ flat for order in _orders(n, settings)])
    return _judged(inner, total, null, settings)


def _tested_by_component(change: NDArray[np.float32], total: NDArray[np.float32], settings: _Settings) -> _Tested:
    """Shares of edges that each end in one component: edge (e, k) in the order of a flattened (edge, component)."""
    n, edges, k = change.shape
    inner = (change.astype(np.float64) * total[:, None]).reshape(n, edges * k)
    null = np.stack([np.einsum("iek,ik->ek", change, total[order]).reshape(-1) for order in _orders(n, settings)])
    return _judged(inner, total, null, settings)


def _judged(
    inner: NDArray[np.float64], total: NDArray[np.float32], null: NDArray[np.floating], settings: _Settings
) -> _Tested:
    square = (total.astype(np.float64) ** 2).sum(1)
    whole = square.sum()
    if not inner.shape[1] or whole <= 1e-8 * len(square):
        nothing = np.zeros(inner.shape[1])
        return _Tested(nothing, nothing, nothing, np.inf)
    weights = bootstrap_weights(len(square), settings.draws, settings.seed).astype(np.float64)
    low, high = interval((weights @ inner) / (weights @ square)[:, None], LEVEL)
    largest = np.abs(null / whole).max(axis=1)
    return _Tested(inner.sum(0) / whole, low, high, float(np.quantile(largest, LEVEL)))


def _orders(n: int, settings: _Settings) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng([settings.seed, 7])
    return [rng.permutation(n) for _ in range(settings.permutations)]


def _table(factor: str, sources: Sequence[Node], targets: Sequence[Node], tested: _Tested) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "factor": factor,
            "source": pd.Series(list(sources), dtype=object),
            "target": pd.Series(list(targets), dtype=object),
            "effect": tested.effect,
            "low": tested.low,
            "high": tested.high,
            "threshold": tested.threshold,
            "kept": np.abs(tested.effect) > tested.threshold,
        }
    )
