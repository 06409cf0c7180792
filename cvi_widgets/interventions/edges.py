"""Edges tested against their null: effects, intervals, and the threshold of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cvi_widgets.interventions.engine import Method
from cvi_widgets.interventions.found_circuit import Node
from cvi_widgets.metrics.statistics import bootstrap_weights, interval

LEVEL = 0.95


class Tested(NamedTuple):
    """Effects of some edges, shape (edge,), and the layer's threshold."""

    effect: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: float


class Settings(NamedTuple):
    method: Method
    budget: int
    draws: int
    permutations: int
    seed: int


def tested_edges(change: NDArray[np.float32], total: NDArray[np.float32], settings: Settings) -> Tested:
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


def tested_by_component(change: NDArray[np.float32], total: NDArray[np.float32], settings: Settings) -> Tested:
    """Shares of edges that each end in one component: edge (e, k) in the order of a flattened (edge, component)."""
    n, edges, k = change.shape
    inner = (change.astype(np.float64) * total[:, None]).reshape(n, edges * k)
    null = np.stack([np.einsum("iek,ik->ek", change, total[order]).reshape(-1) for order in _orders(n, settings)])
    return _judged(inner, total, null, settings)


def _judged(
    inner: NDArray[np.float64], total: NDArray[np.float32], null: NDArray[np.floating], settings: Settings
) -> Tested:
    square = (total.astype(np.float64) ** 2).sum(1)
    whole = square.sum()
    if not inner.shape[1] or whole <= 1e-8 * len(square):
        nothing = np.zeros(inner.shape[1])
        return Tested(nothing, nothing, nothing, np.inf)
    weights = bootstrap_weights(len(square), settings.draws, settings.seed).astype(np.float64)
    low, high = interval((weights @ inner) / (weights @ square)[:, None], LEVEL)
    largest = np.abs(null / whole).max(axis=1)
    return Tested(inner.sum(0) / whole, low, high, float(np.quantile(largest, LEVEL)))


def _orders(n: int, settings: Settings) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng([settings.seed, 7])
    return [rng.permutation(n) for _ in range(settings.permutations)]


def edge_table(factor: str, sources: Sequence[Node], targets: Sequence[Node], tested: Tested) -> pd.DataFrame:
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
