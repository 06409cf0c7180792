from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from cvi_widgets.errors import DataError
from cvi_widgets.interventions import planted
from cvi_widgets.interventions.motifs import motifs, score

A, B = ("factor", "a"), ("factor", "b")
LEFT, RIGHT, BOTH = ("fc0", 0), ("fc0", 1), ("fc0", 2)
ONE, TWO = ("mu", 0), ("mu", 1)
UP, DOWN, LOST = ("back", 0), ("back", 1), ("back", 2)
SKY = ("image", 0)


def hand_drawn():
    """a -> LEFT -> ONE -> UP -> SKY is one line but for the second input of ONE; b forks from RIGHT."""
    left = [(A, LEFT), (LEFT, ONE), (BOTH, ONE), (A, BOTH), (B, BOTH), (ONE, UP), (UP, SKY)]
    right = [(B, RIGHT), (RIGHT, TWO), (TWO, DOWN), (DOWN, SKY), (TWO, LOST)]
    return nx.DiGraph([*left, *right])


def test_motifs_of_a_graph_drawn_by_hand():
    found = motifs(hand_drawn())
    assert list(found.index) == ["chain", "fork", "join", "shared", "dedicated"]
    members = found["members"].map(set)
    assert members["chain"] == {(LEFT,), (UP,), (RIGHT,), (DOWN,)}
    assert members["fork"] == {TWO}
    assert members["join"] == {BOTH, ONE}
    assert members["shared"] == {BOTH, ONE, UP}
    assert members["dedicated"] == {LEFT, RIGHT, TWO, DOWN, LOST}
    assert found["count"].to_dict() == {"chain": 4, "fork": 1, "join": 2, "shared": 3, "dedicated": 5}
    assert found["longest"].to_dict() == {"chain": 1, "fork": 1, "join": 1, "shared": 1, "dedicated": 1}


def test_runs_of_a_chain_are_maximal_and_in_order():
    graph = hand_drawn()
    graph.remove_edge(BOTH, ONE)
    graph.remove_edge(TWO, LOST)
    found = motifs(graph).loc["chain"]
    assert set(found["members"]) == {(LEFT, ONE, UP), (RIGHT, TWO, DOWN)}
    assert (found["count"], found["units"], found["longest"]) == (2, 6, 3)


def test_factors_named_on_the_edges_count_instead_of_paths():
    graph = hand_drawn()
    nx.set_edge_attributes(graph, {edge: ("a",) for edge in graph.edges}, "factors")
    assert motifs(graph).loc["shared", "count"] == 0
    nx.set_edge_attributes(graph, {(BOTH, ONE): ("b",)}, "factors")
    assert motifs(graph).loc["shared", "members"] == [ONE]
    del graph.edges[LEFT, ONE]["factors"]
    assert set(motifs(graph).loc["shared", "members"]) == {BOTH, ONE, UP}


def test_an_empty_graph_has_none():
    assert (motifs(nx.DiGraph())[["count", "units", "longest"]] == 0).all(axis=None)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_dedicated_circuits_are_chains_from_the_factor_to_the_image(depth):
    found = motifs(planted("dedicated", factors=3, depth=depth, noise_units=2).graph)
    units = 3 * (2 * depth + 1)
    assert found.loc["chain", ["count", "units", "longest"]].tolist() == [3, units, 2 * depth + 1]
    assert found["count"].drop("chain").to_dict() == {"fork": 0, "join": 0, "shared": 0, "dedicated": units}


def test_planted_kinds_have_their_motifs():
    shared = motifs(planted("shared", factors=2).graph)["members"].map(set)
    halves = {("encoder.fc0", 0), ("encoder.fc0", 1)}
    latents = {("latent.mu", 0), ("latent.mu", 1)}
    assert shared["shared"] == shared["fork"] == halves
    assert shared["join"] == halves | latents
    assert latents < shared["dedicated"]

    redundant = motifs(planted("redundant", factors=2).graph)["members"].map(set)
    assert redundant["fork"] == redundant["join"] == latents
    assert redundant["shared"] == set()

    truth = planted("gated", factors=3)
    gates = {v for f in ("f1", "f2") for v in truth.graph.successors(("factor", f))}
    gated = motifs(truth.graph)["members"].map(set)
    assert gated["join"] == gates
    assert gates < gated["shared"]
    assert len(gated["shared"]) == 6


def test_the_truth_scores_one_everywhere():
    truth = planted("mixed", depth=2).graph
    table = score(truth, truth)
    sites = ["factor", "encoder.fc0", "encoder.fc1", "latent.mu", "decoder.fc0", "decoder.fc1", "image"]
    assert list(table.index) == [*(f"{u} -> {v}" for u, v in pairwise(sites)), "overall"]
    assert (table[["precision", "recall", "f1"]] == 1).all(axis=None)
    assert table.loc["overall", "truth"] == truth.number_of_edges() == table["truth"].iloc[:-1].sum()


def test_missed_and_invented_edges_are_counted_where_they_are():
    truth = hand_drawn()
    found = truth.copy()
    found.remove_edges_from([(A, LEFT), (UP, SKY), (DOWN, SKY)])
    found.add_edges_from([(RIGHT, ONE), (A, TWO)])
    table = score(found, truth)
    assert table.loc["factor -> fc0", ["found", "truth", "both"]].tolist() == [3, 4, 3]
    assert table.loc["factor -> fc0", ["precision", "recall", "f1"]].tolist() == pytest.approx([1, 3 / 4, 6 / 7])
    assert table.loc["fc0 -> mu", ["precision", "recall", "f1"]].tolist() == pytest.approx([3 / 4, 1, 6 / 7])
    assert table.loc["overall", ["precision", "recall", "f1"]].tolist() == pytest.approx([9 / 11, 9 / 12, 18 / 23])
    # Nothing was found towards the image, and nothing is true from a factor straight to mu.
    assert np.isnan(table.loc["back -> image", "precision"])
    assert table.loc["back -> image", ["recall", "f1"]].tolist() == [0, 0]
    assert np.isnan(table.loc["factor -> mu", "recall"])
    assert table.loc["factor -> mu", ["precision", "f1"]].tolist() == [0, 0]


def test_finding_and_truth_trade_precision_for_recall():
    truth = planted("mixed", seed=1).graph
    found = planted("mixed", seed=2).graph
    there, back = score(found, truth), score(truth, found)
    pd.testing.assert_series_equal(there["precision"], back["recall"].reindex(there.index), check_names=False)
    pd.testing.assert_series_equal(there["f1"], back["f1"].reindex(there.index))
    assert 0 < there.loc["overall", "f1"] < 1


def test_nothing_to_nothing_has_no_ratio():
    table = score(nx.DiGraph(), nx.DiGraph())
    assert list(table.index) == ["overall"]
    assert table[["precision", "recall", "f1"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ([("a", ("mu", 1))], r"node 'a' is no pair of site and unit, such as \(\"latent.mu\", 1\)"),
        ([((1, 2), ("mu", 1))], r"node \(1, 2\) is no pair"),
        ([(LEFT, ONE), (ONE, LEFT)], "the graph has the cycle fc0 0 -> mu 0; a circuit runs one way"),
    ],
)
def test_what_is_no_circuit_is_refused(edges, sentence):
    for call in (motifs, lambda graph: score(nx.DiGraph(), graph)):
        with pytest.raises(DataError, match=sentence):
            call(nx.DiGraph(edges))
    with pytest.raises(DataError, match="the graph has no directions"):
        motifs(nx.Graph([(LEFT, ONE)]))
