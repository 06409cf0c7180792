"""A structural causal model over the factors of any grid data set.

Each factor is a function of its parents' classes and of one exogenous standard normal number, `noise[:, factor]`,
which is independent of all others. The noise is explicit, so an intervention is a re-evaluation and a counterfactual
keeps the noise: both are exact, and since the grid is full, the image of every outcome exists (Pearl 2009, Causality,
chapter 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from cvi_widgets.errors import DataError

Classes = NDArray[np.int64]
Floats = NDArray[np.float64]
Do = Mapping[str, ArrayLike]


class Mechanism(Protocol):
    """How a factor comes about. Higher noise never gives a lower class."""

    @property
    def formula(self) -> str:
        """What is computed, in words a reader of a report can follow."""
        ...

    def assign(self, parents: Mapping[str, Classes], noise: Floats, size: int) -> Classes:
        """Classes in [0, size) for parents' classes and noise of one shape."""
        ...

    def thresholds(self, parents: Mapping[str, Classes], size: int) -> Floats:
        """Noise at which class k begins, shape (*parents' shape, size + 1): -inf, size - 1 numbers, +inf."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every class equally likely, whatever the parents: for exogenous factors."""

    @property
    def formula(self) -> str:
        return "uniform"

    def assign(self, parents: Mapping[str, Classes], noise: Floats, size: int) -> Classes:
        return np.asarray(np.minimum(ndtr(noise) * size, size - 1), dtype=np.int64)

    def thresholds(self, parents: Mapping[str, Classes], size: int) -> Floats:
        shape = np.broadcast_shapes(*(np.shape(p) for p in parents.values()))
        return np.broadcast_to(ndtri(np.arange(size + 1) / size), (*shape, size + 1))


@dataclass(frozen=True)
class Additive:
    """`round(mean(parents) + sd * noise)`, clipped to the grid.

    Parameters
    ----------
    mean
        Takes the parents' classes by name (arrays of one shape) and gives the mean in classes.
    sd
        Standard deviation of the noise, in classes.
    formula
        What `mean` computes, for people.
    """

    mean: Callable[[Mapping[str, Classes]], Floats]
    sd: float
    formula: str

    def __post_init__(self) -> None:
        _check_sd(self.sd)

    def assign(self, parents: Mapping[str, Classes], noise: Floats, size: int) -> Classes:
        return _rounded(self.mean(parents) + self.sd * noise, size)

    def thresholds(self, parents: Mapping[str, Classes], size: int) -> Floats:
        return _between(self.mean(parents), self.sd, size)


@dataclass(frozen=True)
class Linear:
    """`round(intercept + sum(weight * parent) + sd * noise)`, clipped to the grid: the linear-Gaussian model on a grid.

    Without parents it is a Gaussian root. Away from the grid's ends its effects are products of path coefficients.
    """

    intercept: float
    sd: float
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_sd(self.sd)
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    @property
    def formula(self) -> str:
        terms = "".join(f" {'+' if w >= 0 else '-'} {abs(w):g} {p}" for p, w in self.weights.items())
        return f"{self.intercept:g}{terms} + {self.sd:g} noise"

    def assign(self, parents: Mapping[str, Classes], noise: Floats, size: int) -> Classes:
        return _rounded(self._mean(parents) + self.sd * noise, size)

    def thresholds(self, parents: Mapping[str, Classes], size: int) -> Floats:
        return _between(self._mean(parents), self.sd, size)

    def _mean(self, parents: Mapping[str, Classes]) -> Floats:
        return np.asarray(self.intercept + sum(w * parents[p] for p, w in self.weights.items()), dtype=np.float64)


@dataclass(frozen=True)
class StructuralModel:
    """A causal graph over named factors and one mechanism for each.

    Parameters
    ----------
    sizes
        Number of classes of each factor; its order is the column order of noise and classes.
    graph
        A directed acyclic graph whose nodes are these factors; an edge runs from cause to effect.
    mechanisms
        One for each factor; a `Linear` one names exactly the factor's parents.
    """

    sizes: Mapping[str, int]
    graph: nx.DiGraph
    mechanisms: Mapping[str, Mechanism]

    def __post_init__(self) -> None:
        names = set(self.sizes)
        for kind, given in (("graph nodes", set(self.graph)), ("mechanisms", set(self.mechanisms))):
            if given != names:
                odd = ", ".join(sorted(map(str, given ^ names)))
                raise DataError(f"{kind} and factors differ in {odd}; each factor {sorted(names)} needs exactly one.")
        if not nx.is_directed_acyclic_graph(self.graph):
            cycle = " -> ".join(str(edge[0]) for edge in nx.find_cycle(self.graph))
            raise DataError(f"graph has the cycle {cycle}; a causal graph must have none.")
        for name, mechanism in self.mechanisms.items():
            if isinstance(mechanism, Linear) and set(mechanism.weights) != set(self.graph.predecessors(name)):
                raise DataError(
                    f"mechanism {name!r} weighs {sorted(mechanism.weights)}, but its parents in the graph are "
                    f"{sorted(self.graph.predecessors(name))}; they must be the same."
                )
        object.__setattr__(self, "graph", nx.freeze(self.graph.copy()))
        object.__setattr__(self, "sizes", MappingProxyType(dict(self.sizes)))
        object.__setattr__(self, "mechanisms", MappingProxyType(dict(self.mechanisms)))

    @property
    def names(self) -> tuple[str, ...]:
        """Factors in column order."""
        return tuple(self.sizes)

    def parents(self, name: str) -> tuple[str, ...]:
        """Direct causes of `name`, in column order."""
        return tuple(p for p in self.names if self.graph.has_edge(p, name))

    def order(self) -> list[str]:
        """Causes before effects."""
        return list(nx.lexicographical_topological_sort(self.graph, key=self.names.index))

    def noise(self, n: int, rng: np.random.Generator) -> Floats:
        """Exogenous noise of `n` units, independent standard normal, shape (n, factor)."""
        return rng.standard_normal((n, len(self.names)))

    def classes(self, noise: Floats, do: Mapping[str, Classes] | None = None) -> Classes:
        """Factor classes that this noise brings about, with the factors in `do` set; shape (n, factor)."""
        fixed = do or {}
        found: dict[str, Classes] = {}
        for name in self.order():
            if name in fixed:
                found[name] = np.broadcast_to(fixed[name], len(noise))
            else:
                above = {p: found[p] for p in self.parents(name)}
                found[name] = self.mechanisms[name].assign(above, noise[:, self.names.index(name)], self.sizes[name])
        return np.stack([found[name] for name in self.names], axis=1)

    def abduct(self, classes: Classes, rng: np.random.Generator) -> Floats:
        """Noise drawn from its distribution given the observed classes, shape (n, factor).

        `self.classes(noise)` gives the observed classes again. The classes decide the noise up to an interval; within
        it the draw follows the normal distribution cut to that interval, which is the exact posterior.
        """
        out = np.empty(classes.shape)
        for column, name in enumerate(self.names):
            above = {p: classes[:, self.names.index(p)] for p in self.parents(name)}
            edges = self.mechanisms[name].thresholds(above, self.sizes[name])
            edges = np.broadcast_to(edges, (len(classes), edges.shape[-1]))
            own = classes[:, column, None]
            low, high = (np.take_along_axis(edges, own + i, axis=1)[:, 0] for i in (0, 1))
            out[:, column] = _cut_normal(low, high, rng)
        return out


def _cut_normal(low: Floats, high: Floats, rng: np.random.Generator) -> Floats:
    """Standard normal draws within [low, high], also far out in either tail."""
    # The lower tail keeps its digits where the upper one rounds to 1, so intervals above zero are mirrored.
    mirrored = low > 0
    bottom, top = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    share = rng.uniform(size=len(low))
    draw = ndtri(ndtr(bottom) + share * (ndtr(top) - ndtr(bottom)))
    inside = np.clip(draw, np.nextafter(bottom, np.inf), np.nextafter(top, -np.inf))
    return np.asarray(np.where(mirrored, -inside, inside), dtype=np.float64)


def _rounded(value: Floats, size: int) -> Classes:
    return np.clip(np.floor(value + 0.5), 0, size - 1).astype(np.int64)


def _between(mean: Floats, sd: float, size: int) -> Floats:
    edges = np.concatenate([[-np.inf], np.arange(size - 1) + 0.5, [np.inf]])
    return (edges - np.asarray(mean)[..., None]) / sd


def _check_sd(sd: float) -> None:
    if not (np.isfinite(sd) and sd > 0):
        raise DataError(f"sd is {sd!r}; a mechanism needs noise with a standard deviation above 0.")
