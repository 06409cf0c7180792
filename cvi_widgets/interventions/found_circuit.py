"""A found circuit: its edges, its graph at any threshold, and how much of the effect it carries."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.motifs import motifs
from cvi_widgets.names import unknown

Node = tuple[str, Hashable]
"""Site and unit; `("factor", name)` and `("image", region)` at the ends."""
_NUMBERS = ("effect", "low", "high", "threshold")


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Edges tested, and those that passed; made by `circuit`.

    Attributes
    ----------
    edges : DataFrame
        One row per factor and edge tested: `factor`, `source`, `target` (nodes), `effect` (share of the factor's total
        effect that passes along the edge), `low` and `high` (95 %), `threshold` (of the layer, from its null), `kept`.
        Edges between units are tested only where both ends carry the factor themselves.
    layers : sites, in order of the pass
    regions : bool (region, y, x), what the image's nodes stand for
    """

    edges: pd.DataFrame
    layers: tuple[str, ...]
    regions: NDArray[np.bool_]
    n_pairs: int
    seed: int
    _cut: float | None = field(default=None)

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors, in the order they were measured."""
        return tuple(dict.fromkeys(self.edges["factor"]))

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The edges of the circuit that lie on a way from their factor to the image (or to a latent)."""
        passed = self.edges[self.edges["kept"]] if self._cut is None else self.edges[self._above(self._cut)]
        parts = [_on_the_way(rows) for _, rows in passed.groupby("factor", sort=False)]
        return pd.concat(parts) if parts else passed

    def at(self, threshold: float) -> Circuit:
        """The circuit with one threshold for all edges instead of each layer's own; for sliders and curves.

        Below the layers' own thresholds it lacks edges between units that were not tested because an end fell short.

        Parameters
        ----------
        threshold : share of the total effect, at least 0
        """
        if not threshold >= 0:
            raise ConfigError(f"threshold is {threshold}; it must be a share of the total effect, at least 0.")
        return Circuit(self.edges, self.layers, self.regions, self.n_pairs, self.seed, float(threshold))

    def graph(self, factor: str | None = None) -> nx.DiGraph:
        """The circuit of one factor, or of all; edges know `factors`, and `weight`, the largest share of any factor.

        Raises
        ------
        ConfigError
            When there is no such factor.
        """
        if factor is not None and factor not in self.factors:
            raise ConfigError(unknown("factor", factor, self.factors))
        graph = nx.DiGraph()
        rows = self.kept if factor is None else self.kept[self.kept["factor"] == factor]
        columns = (rows[name].tolist() for name in ("source", "target", "factor", "effect"))
        for source, target, name, effect in zip(*columns, strict=True):
            known = graph.get_edge_data(source, target, {"factors": (), "weight": 0.0})
            weight = max(effect, known["weight"], key=abs)
            graph.add_edge(source, target, factors=(*known["factors"], name), weight=weight)
        return graph

    def units(self, factor: str) -> dict[str, list[int]]:
        """Units of the factor's circuit by site; sites with none are left out."""
        nodes = self.graph(factor).nodes
        found = {site: sorted(int(str(u)) for s, u in nodes if s == site) for site in self.layers}
        return {site: units for site, units in found.items() if units}

    def motifs(self) -> pd.DataFrame:
        """Chains, forks, joins, shared and dedicated units; see `motifs`."""
        return motifs(self.graph())

    def to_dataset(self) -> xr.Dataset:
        """All edges tested as a data set, dimension `edge`, to be stored."""
        rows = self.edges
        text: dict[str, Sequence[Any]] = {"factor": rows["factor"].tolist()}
        for end in ("source", "target"):
            text[f"{end}_site"] = [site for site, _ in rows[end]]
            text[f"{end}_unit"] = [str(unit) for _, unit in rows[end]]
        said = {
            "effect": "share of the factor's total effect that passes along the edge",
            "low": "lower end of the 95 % interval of effect",
            "high": "upper end of the 95 % interval of effect",
            "threshold": "95 % quantile of the largest null effect of the layer",
        }
        variables = {name: effects.variable(("edge",), rows[name].to_numpy(), said[name], "1") for name in _NUMBERS}
        variables["kept"] = effects.variable(("edge",), rows["kept"].to_numpy(bool), "effect above threshold", "1")
        variables["regions"] = effects.variable(("region", "y", "x"), self.regions, "regions of the image", "1")
        coords = {name: ("edge", np.array(values, dtype=str)) for name, values in text.items()}
        return effects.described(
            xr.Dataset(variables, coords),
            convention="effect is sum <NIE, TE> / sum ||TE||^2 over pairs; the null permutes the pairs' TE",
            interval="95 % percentile bootstrap over pairs",
            layers=" ".join(self.layers),
            n_pairs=self.n_pairs,
            seed=self.seed,
        )

    @classmethod
    def from_dataset(cls, stored: xr.Dataset) -> Circuit:
        """The circuit that `to_dataset` wrote."""
        rows: dict[str, Any] = {"factor": stored["factor"].values.astype(str)}
        for end in ("source", "target"):
            sites = stored[f"{end}_site"].values.astype(str)
            units = stored[f"{end}_unit"].values.astype(str)
            nodes = [(s, u if s == "factor" else int(u)) for s, u in zip(sites, units, strict=True)]
            rows[end] = pd.Series(nodes, dtype=object)
        rows |= {name: stored[name].values.astype(float) for name in _NUMBERS}
        rows["kept"] = stored["kept"].values.astype(bool)
        layers = tuple(str(stored.attrs["layers"]).split())
        regions = stored["regions"].values.astype(bool)
        return cls(pd.DataFrame(rows), layers, regions, int(stored.attrs["n_pairs"]), int(stored.attrs["seed"]))

    def __repr__(self) -> str:
        graph = self.graph()
        units = sum(1 for site, _ in graph.nodes if site in self.layers)
        return (
            f"<Circuit of {len(self.factors)} factors: {units} units, {len(graph.edges)} of {self._n_tested()} edges>"
        )

    def _n_tested(self) -> int:
        return len(self.edges.drop_duplicates(["source", "target"]))

    def _above(self, threshold: float) -> pd.Series[bool]:
        found: pd.Series[bool] = self.edges["effect"].abs() > threshold
        return found


def _on_the_way(rows: pd.DataFrame) -> pd.DataFrame:
    """Edges that can be reached from the factor and that lead on to a latent or to the image."""
    graph = nx.DiGraph(zip(rows["source"], rows["target"], strict=True))
    starts = [node for node in graph if node[0] == "factor"]
    ends = [node for node in graph if node[0] in ("image", "latent.mu")]
    behind = set(starts).union(*(nx.descendants(graph, node) for node in starts))
    ahead = set(ends).union(*(nx.ancestors(graph, node) for node in ends))
    alive = behind & ahead
    return rows[[a in alive and b in alive for a, b in zip(rows["source"], rows["target"], strict=True)]]


def held(units: Mapping[str, Sequence[int]], site: str, n_units: int, *, inside: bool) -> list[int]:
    """Units of a site inside the circuit, or outside it."""
    members = set(units.get(site, ()))
    return [u for u in range(n_units) if (u in members) is inside]
