"""A grid data set whose factors follow a structural causal model: interventions with the images they would give."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.data import effects
from cvi_widgets.data.grid import checked_count
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.protocol import Index, Pairs, Split
from cvi_widgets.data.readouts import Readout
from cvi_widgets.data.scm import Classes, Do, Floats, Mechanism, StructuralModel
from cvi_widgets.errors import DataError

_HELD_OUT = 0.1
_SPLIT_STREAM = 0xCA05A1
_ROUNDS = 200


class CausalData(GridData):
    """Images drawn by a causal model over the factors, indexed into the full grid.

    `len`, `index`, `factors` and `images` address the whole grid, so every counterfactual has its image; `sample`,
    `pairs` and `split` follow the model's distribution.

    Parameters
    ----------
    data
        Any grid data set.
    graph
        A directed acyclic graph over its factor names, causes to effects.
    mechanisms
        One `Mechanism` per factor.
    readout
        Reads factors off images, for `measure_effects`; without it effects are measured on the factor classes.

    Examples
    --------
    >>> import networkx as nx
    >>> from cvi_widgets.data import BytePixels, FactorGrid, Linear, Uniform
    >>> grid = FactorGrid({"a": np.arange(2.0), "b": np.arange(9.0)})
    >>> images = BytePixels(np.arange(18, dtype=np.uint8).reshape(18, 1, 1, 1))
    >>> plain = GridData("toy", grid, images, provenance="Drawn here.", licence="CC0-1.0")
    >>> mechanisms = {"a": Uniform(), "b": Linear(3, 0.8, {"a": 2})}
    >>> scm = CausalData(plain, nx.DiGraph([("a", "b")]), mechanisms, name="toy-scm")
    >>> round(scm.effect("a", "b"), 3)
    2.0
    """

    def __init__(
        self,
        data: GridData,
        graph: nx.DiGraph,
        mechanisms: Mapping[str, Mechanism],
        *,
        name: str,
        provenance: str | None = None,
        readout: Readout | None = None,
    ) -> None:
        super().__init__(
            name,
            data.grid,
            data.pixels,
            provenance=provenance or data.provenance,
            licence=data.licence,
            twin=data.twin,
        )
        sizes = dict(zip(data.factor_names, data.factor_sizes, strict=True))
        self.model = StructuralModel(sizes, graph, mechanisms)
        self.readout = readout

    @property
    def graph(self) -> nx.DiGraph:
        """The causal graph, read only; edges run from cause to effect."""
        return self.model.graph

    @property
    def formulas(self) -> dict[str, str]:
        """What brings each factor about, by factor."""
        return {name: self.model.mechanisms[name].formula for name in self.factor_names}

    def noise(self, n: int, rng: np.random.Generator) -> Floats:
        """Exogenous noise of `n` units, shape (n, factor): what makes each of them itself."""
        return self.model.noise(checked_count(n), rng)

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        """`n` indices drawn from the causal model, with replacement."""
        return self.counterfactual(self.noise(n, rng))

    def intervene(self, do: Do, n: int, rng: np.random.Generator) -> Index:
        """`n` indices drawn from the model after do(factor = class), e.g. `intervene({"scale": 5}, 100, rng)`."""
        return self.counterfactual(self.noise(n, rng), do)

    def counterfactual(self, noise: Floats, do: Do | None = None) -> Index:
        """Indices of what the units with this noise would be under `do`; with no `do`, of what they are.

        Parameters
        ----------
        noise
            Shape (n, factor), from `noise` or `abduct`.
        do
            Class of each factor to set: one number, or one per unit, shape (n,).
        """
        if noise.ndim != 2 or noise.shape[1] != len(self.factor_names):
            raise DataError(f"noise has shape {noise.shape}; allowed is (n, {len(self.factor_names)}).")
        return self.index(self.model.classes(noise, self._checked(do or {}, len(noise))))

    def abduct(self, index: ArrayLike, rng: np.random.Generator) -> Floats:
        """Noise drawn given that the units turned out as the images `index`, shape (n, factor).

        `counterfactual(abduct(index, rng))` is `index` again; under a `do` it is a draw of the exact counterfactual.
        """
        return self.model.abduct(self.factors(index), rng)

    def counterfactual_pairs(self, factor: str, low: int, high: int, n: int, rng: np.random.Generator) -> Pairs:
        """The same `n` units under do(factor = low) and do(factor = high): what depends on the factor responds."""
        noise = self.noise(n, rng)
        return Pairs(self.counterfactual(noise, {factor: low}), self.counterfactual(noise, {factor: high}))

    def effect(
        self, cause: str, outcome: str, kind: effects.Kind = "total", low: int | None = None, high: int | None = None
    ) -> float:
        """Exact effect of one factor on another, in classes of the outcome (`cvi_widgets.data.effects.effect`)."""
        return effects.effect(self.model, cause, outcome, kind, low, high)

    def split(self, test: int, seed: int) -> Split:
        """Draws from the model to learn from, and `test` draws to test on, with no picture in both.

        A tenth of the distinct pictures, chosen at random by `seed` alone, is held out; draws that fall on them are
        for testing, the others for learning. So both sides follow the causal model, and a frequent picture may occur
        several times on its side. `train` has about nine tenths of `len(self)` draws.
        """
        rng = np.random.default_rng([_SPLIT_STREAM, seed])
        held = (rng.random(len(self)) < _HELD_OUT)[self.twin]
        drawn = self.sample(len(self), rng)
        train, tests = drawn[~held[drawn]], [drawn[held[drawn]]]
        for _ in range(_ROUNDS):
            if sum(map(len, tests)) >= checked_count(test, "test"):
                break
            more = self.sample(len(self), rng)
            tests.append(more[held[more]])
        found = np.concatenate(tests)
        if len(found) < test or not len(train):
            raise DataError(
                f"test is {test}, but data set {self.name!r} gave {len(found)} held-out and {len(train)} other draws; "
                "choose fewer or another seed."
            )
        return Split(train, found[:test])

    def _checked(self, do: Do, n: int) -> dict[str, NDArray[np.int64]]:
        checked: dict[str, Classes] = {}
        for factor, value in do.items():
            classes = self.grid.checked_class(factor, value)
            if classes.shape not in ((), (n,)):
                raise DataError(f"do({factor!r}) has shape {classes.shape}; allowed is one class, or {n} of them.")
            checked[factor] = classes
        return checked
