"""Shapes that recur in a circuit, and how well a found circuit agrees with a true one.

A circuit is a directed graph without cycles whose nodes are pairs: `("factor", "f0")`, units such as
`("encoder.conv1", 3)` and `("latent.mu", 1)`, and `("image", k)` for regions. Do not read the counts of a dense graph:
prune it to what is above its null first, or every unit is a fork, a join and shared.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import networkx as nx
import numpy as np
import pandas as pd

from cvi_widgets.errors import DataError

Node = tuple[str, Hashable]
ENDS = ("factor", "image")
"""First entries of nodes that are no units."""
OVERALL = "overall"


def motifs(graph: nx.DiGraph) -> pd.DataFrame:
    """Count chains, forks, joins, shared and dedicated units.

    Parameters
    ----------
    graph
        A circuit. Factors reach a unit along directed paths; where every edge has the attribute `factors`, naming
        those whose change it carries, a unit is reached by those of its incoming edges instead, so that effects that
        cancel on the way are not counted.

    Returns
    -------
    DataFrame
        Index `motif`: `chain` (units with exactly one input and one output, as maximal runs), `fork` (units with two
        outputs or more), `join` (with two inputs or more), `shared` (reached by two factors or more), `dedicated`
        (reached by exactly one). Columns: `count` of members, `units` in them, `longest` (units of the longest run; 1
        for single units, 0 where there are none), and `members`, a list of nodes (for chains, of tuples of nodes).

    Raises
    ------
    DataError
        When the graph has a cycle, or a node that is not such a pair.

    Examples
    --------
    >>> found = nx.DiGraph([(("factor", "a"), ("fc0", 0)), (("fc0", 0), ("mu", 2)), (("mu", 2), ("image", 0))])
    >>> found = motifs(found)
    >>> int(found.loc["chain", "longest"]), int(found.loc["fork", "count"]), found.loc["dedicated", "members"]
    (2, 0, [('fc0', 0), ('mu', 2)])
    """
    _check(graph)
    units = [node for node in nx.topological_sort(graph) if node[0] not in ENDS]
    factors = {unit: len(_factors_of(graph, unit)) for unit in units}
    single = {
        "fork": [unit for unit in units if graph.out_degree(unit) >= 2],
        "join": [unit for unit in units if graph.in_degree(unit) >= 2],
        "shared": [unit for unit in units if factors[unit] >= 2],
        "dedicated": [unit for unit in units if factors[unit] == 1],
    }
    runs = _runs(graph, units)
    rows = [("chain", len(runs), sum(map(len, runs)), max(map(len, runs), default=0), runs)]
    rows += [(name, len(found), len(found), min(len(found), 1), found) for name, found in single.items()]
    return pd.DataFrame(rows, columns=["motif", "count", "units", "longest", "members"]).set_index("motif")


def score(found: nx.DiGraph, truth: nx.DiGraph) -> pd.DataFrame:
    """Precision and recall of the edges of a found circuit, per pair of layers and overall.

    Parameters
    ----------
    found, truth
        Circuits with the same names of nodes; weights do not matter.

    Returns
    -------
    DataFrame
        Index `layers`, such as `encoder.fc0 -> latent.mu`, from the factors to the image, then `overall`. Columns:
        `found`, `truth`, `both` (edges), `precision` = both / found, `recall` = both / truth, and
        `f1` = 2 both / (found + truth); a ratio of nothing to nothing is NaN.

    Raises
    ------
    DataError
        When a graph has a cycle, or a node that is not a pair of site and unit.
    """
    for graph in (found, truth):
        _check(graph)
    said, true = set(found.edges), set(truth.edges)
    edges = [*true, *(said - true)]
    rank = {site: n for n, site in enumerate(_site_order(edges))}
    pairs = sorted({(u[0], v[0]) for u, v in edges}, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    names = [f"{source} -> {target}" for source, target in pairs]
    parts = [tuple({(u, v) for u, v in edges if (u[0], v[0]) == pair} for edges in (said, true)) for pair in pairs]
    parts.append((said, true))
    counts = np.array([(len(a), len(b), len(a & b)) for a, b in parts])
    table = pd.DataFrame(counts, columns=["found", "truth", "both"], index=pd.Index([*names, OVERALL], name="layers"))
    both = table["both"].astype(float)
    table["precision"] = both / table["found"].where(table["found"] > 0)
    table["recall"] = both / table["truth"].where(table["truth"] > 0)
    total = table["found"] + table["truth"]
    table["f1"] = 2 * both / total.where(total > 0)
    return table


def _check(graph: nx.DiGraph) -> None:
    for node in graph:
        if not (isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], str)):
            raise DataError(f'node {node!r} is no pair of site and unit, such as ("latent.mu", 1).')
    if not graph.is_directed():
        raise DataError("the graph has no directions; a circuit is a networkx.DiGraph from factors to the image.")
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " -> ".join(f"{site} {unit}" for site, unit in (edge[0] for edge in nx.find_cycle(graph)))
        raise DataError(f"the graph has the cycle {cycle}; a circuit runs one way, from factors to the image.")


def _factors_of(graph: nx.DiGraph, unit: Node) -> set[Hashable]:
    """Factors that reach a unit."""
    if all("factors" in edge for _, _, edge in graph.edges(data=True)):
        return set().union(*(along for _, _, along in graph.in_edges(unit, data="factors")))
    return {name for kind, name in nx.ancestors(graph, unit) if kind == "factor"}


def _runs(graph: nx.DiGraph, units: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Maximal runs of units with one input and one output, each in order of execution."""
    links = graph.subgraph([unit for unit in units if graph.in_degree(unit) == 1 and graph.out_degree(unit) == 1])
    place = {unit: n for n, unit in enumerate(units)}
    runs = [tuple(sorted(run, key=place.__getitem__)) for run in nx.weakly_connected_components(links)]
    return sorted(runs, key=lambda run: place[run[0]])


def _site_order(edges: Sequence[tuple[Node, Node]]) -> list[str]:
    """Sites from the factors to the image; layers that lead back and forth keep the order of their names."""
    sites = nx.DiGraph((u[0], v[0]) for u, v in sorted(edges, key=str) if u[0] != v[0])
    sites.add_nodes_from(u[0] for u, _ in edges)
    if nx.is_directed_acyclic_graph(sites):
        return list(nx.lexicographical_topological_sort(sites))
    return sorted(sites)
