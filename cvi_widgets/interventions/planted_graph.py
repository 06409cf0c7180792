"""The true graph of a planted circuit, read off its weights and signals.

An edge needs a weight, a change at its start, the same factor's change at its end, and a way on to the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from cvi_widgets.interventions.planted_weights import Layer


def per_class(layer: Layer, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Mean change of each unit per class step of each factor, shape (factor, unit)."""
    k = len(sizes)
    alone, gated = layer.signals.T[:k], layer.signals.T[k:]
    # Signals are uniform on [0, 1]: a product with one of them moves half as far, on average over the other.
    per_signal = alone + gated / 2
    per_signal[0] += gated.sum(0) / 2
    per_class_step: NDArray[np.float64] = per_signal / (np.array(sizes)[:, None] - 1)
    return per_class_step


def true_graph(layers: Sequence[Layer], sizes: Sequence[int], pixels: Sequence[int]) -> nx.DiGraph:
    """The union over factors of the edges along which a change passes from the factor to the image.

    `pixels` has one pixel of each block.
    """
    shown = Layer("image", layers[-1].weight[pixels], layers[-1].bias[pixels], layers[-1].signals[pixels])
    layers = [*layers[:-1], shown]
    moved = [_moved(layer, len(sizes)) for layer in layers]
    first = per_class(layers[0], sizes)
    graph = nx.DiGraph()
    for k in range(len(sizes)):
        factor = f"f{k}"
        passing = nx.DiGraph()
        for unit in np.flatnonzero(moved[0][k]):
            passing.add_edge(("factor", factor), (layers[0].site, int(unit)), weight=float(first[k, unit]))
        for n in range(1, len(layers)):
            alive = (layers[n].weight != 0) & moved[n][k][:, None] & moved[n - 1][k]
            for unit, source in np.argwhere(alive):
                ends = (layers[n - 1].site, int(source)), (layers[n].site, int(unit))
                passing.add_edge(*ends, weight=float(layers[n].weight[unit, source]))
        shown_in = [node for node in passing if node[0] == "image"]
        useful = set().union(*(nx.ancestors(passing, node) | {node} for node in shown_in))
        for source, unit, weight in passing.edges(data="weight"):
            if unit in useful:
                known = graph.get_edge_data(source, unit, {}).get("factors", ())
                graph.add_edge(source, unit, weight=weight, factors=(*known, factor))
    return nx.freeze(graph)


def _moved(layer: Layer, k: int) -> NDArray[np.bool_]:
    """Whether a change of each factor moves each unit in some image, shape (factor, unit)."""
    alone, gated = layer.signals.T[:k] != 0, layer.signals.T[k:] != 0
    moved: NDArray[np.bool_] = alone | gated
    moved[0] |= gated.any(0)
    return moved
