"""The structural model and its exact effects, against slow twins and closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cvi_widgets import data
from cvi_widgets.data import Additive, BytePixels, CausalData, FactorGrid, GridData, Linear, Mechanism, Uniform, effects
from cvi_widgets.errors import DataError

Classes = Mapping[str, np.ndarray]


def toy(sizes: Mapping[str, int], edges: list[tuple[str, str]], mechanisms: Mapping[str, Mechanism]) -> CausalData:
    """A causal model over a grid whose images are their own index, written in two bytes."""
    grid = FactorGrid({name: np.arange(size) for name, size in sizes.items()})
    images = np.arange(len(grid), dtype=np.uint16).view(np.uint8).reshape(len(grid), 1, 1, 2)
    plain = GridData("toy", grid, BytePixels(images), provenance="Drawn in this test.", licence="CC0-1.0")
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(sizes)
    return CausalData(plain, graph, mechanisms, name="toy-scm")


def interaction(parents: Classes) -> np.ndarray:
    return 1.0 + 0.4 * parents["a"] * parents["m"] - 0.7 * parents["c"]


def bent(parents: Classes) -> np.ndarray:
    return 3.0 - np.square(parents["a"] - 0.6) + 0.5 * parents["c"]


@pytest.fixture(scope="module")
def tangle() -> CausalData:
    """Confounder c of m and y, cause a with a direct, a mediated and an interacting path; order is not causal order."""
    return toy(
        {"y": 5, "m": 4, "a": 3, "c": 2, "alone": 2},
        [("a", "m"), ("a", "y"), ("m", "y"), ("c", "m"), ("c", "y")],
        {
            "a": Uniform(),
            "c": Linear(0.3, 0.8),
            "m": Additive(bent, 0.9, "bent"),
            "y": Additive(interaction, 0.7, "interaction"),
            "alone": Uniform(),
        },
    )


def table(scm: CausalData, name: str, given: Mapping[str, int]) -> np.ndarray:
    """P(name | given) by scipy's normal distribution, without the package's tables."""
    size, mechanism = scm.grid.size(name), scm.model.mechanisms[name]
    if isinstance(mechanism, Uniform):
        return np.full(size, 1 / size)
    values = {k: np.array(v) for k, v in given.items()}
    if isinstance(mechanism, Additive):
        mean = float(mechanism.mean(values))
    else:
        assert isinstance(mechanism, Linear)
        mean = mechanism.intercept + sum(w * given[p] for p, w in mechanism.weights.items())
    edges = [-np.inf, *(np.arange(size - 1) + 0.5), np.inf]
    return np.diff(stats.norm.cdf(edges, mean, mechanism.sd))


def slow_mean(scm: CausalData, outcome: str, cause: str, direct: int, mediated: int) -> float:
    """E[Y] when Y sees `direct` and everything else `mediated`, by summing over every cell of the grid."""
    total = 0.0
    for cell in itertools.product(*(range(s) for s in scm.factor_sizes)):
        values = dict(zip(scm.factor_names, cell, strict=True))
        if values[cause] != mediated:
            continue
        probability = 1.0
        for name in scm.factor_names:
            if name != cause:
                parents = {p: values[p] for p in scm.graph.predecessors(name)}
                if name == outcome and cause in parents:
                    parents[cause] = direct
                probability *= table(scm, name, parents)[values[name]]
        total += probability * values[outcome]
    return total


@pytest.mark.parametrize(("cause", "outcome"), list(itertools.permutations("amyc", 2)))
def test_effects_agree_with_a_sum_over_every_cell(tangle: CausalData, cause: str, outcome: str) -> None:
    low, high = effects.contrast(tangle.grid.size(cause))
    base = slow_mean(tangle, outcome, cause, low, low)
    expected = {
        "total": slow_mean(tangle, outcome, cause, high, high) - base,
        "direct": slow_mean(tangle, outcome, cause, high, low) - base,
        "indirect": slow_mean(tangle, outcome, cause, low, high) - base,
    }
    for kind in effects.KINDS:
        assert tangle.effect(cause, outcome, kind) == pytest.approx(expected[kind], abs=1e-12)


def test_total_is_direct_less_the_indirect_effect_of_the_way_back(tangle: CausalData) -> None:
    total = tangle.effect("a", "y", "total", 0, 2)
    direct, indirect = (tangle.effect("a", "y", kind, 0, 2) for kind in ("direct", "indirect"))
    assert total == pytest.approx(direct - tangle.effect("a", "y", "indirect", 2, 0), abs=1e-12)
    # Interaction makes the simple sum wrong, which is why the kinds are defined with care.
    assert abs(total - (direct + indirect)) > 0.1


def test_the_joint_distribution_is_that_of_the_samples(tangle: CausalData) -> None:
    names = ("m", "y")
    expected = effects.joint(tangle.model, names, {"a": 2})
    assert expected.sum() == pytest.approx(1)
    index = tangle.intervene({"a": 2}, 60_000, np.random.default_rng(0))
    factors = tangle.factors(index)
    assert set(factors[:, 2].tolist()) == {2}
    counts = np.zeros_like(expected)
    np.add.at(counts, (factors[:, 1], factors[:, 0]), 1)
    assert stats.chisquare(counts.ravel(), expected.ravel() * 60_000).pvalue > 1e-3
    assert np.array_equal(effects.joint(tangle.model, ("y", "m"), {"a": 2}), expected.T)


def test_path_coefficients_hold_where_the_ends_of_the_grid_are_far() -> None:
    scm = toy(
        {"a": 9, "m": 60, "k": 60, "y": 80},
        [("a", "m"), ("m", "k"), ("a", "y"), ("k", "y"), ("m", "y")],
        {
            "a": Uniform(),
            "m": Linear(20, 1.5, {"a": 1.3}),
            "k": Linear(40, 1.2, {"m": -0.6}),
            "y": Linear(40, 1.1, {"a": 0.7, "k": 0.8, "m": -0.4}),
        },
    )
    direct, through_m, through_k = 0.7, 1.3 * -0.4, 1.3 * -0.6 * 0.8
    expected = {"total": direct + through_m + through_k, "direct": direct, "indirect": through_m + through_k}
    for kind in effects.KINDS:
        closed = data.linear_effect(scm.model, "a", "y", kind, 2, 6)
        assert closed == pytest.approx(4 * expected[kind])
        assert scm.effect("a", "y", kind, 2, 6) == pytest.approx(closed, abs=1e-4)
    assert data.linear_effect(scm.model, "y", "a") == 0


def test_path_coefficients_do_not_hold_near_the_ends() -> None:
    mechanisms = {"a": Uniform(), "y": Linear(0, 1, {"a": 2})}
    scm = toy({"a": 5, "y": 5}, [("a", "y")], mechanisms)
    assert data.linear_effect(scm.model, "a", "y", "total", 0, 4) == 8
    exact = scm.effect("a", "y", "total", 0, 4)
    assert exact < 4
    pairs = scm.counterfactual_pairs("a", 0, 4, 40_000, np.random.default_rng(1))
    change = scm.factors(pairs.source)[:, 1] - scm.factors(pairs.base)[:, 1]
    assert abs(change.mean() - exact) < 4 * change.std() / np.sqrt(40_000)


def test_path_coefficients_need_linear_mechanisms(tangle: CausalData) -> None:
    with pytest.raises(DataError, match=r"mechanism 'm' is bent; path coefficients need Linear ones\."):
        data.linear_effect(tangle.model, "a", "y")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_observed_units_keep_their_factors_under_no_intervention(seed: int) -> None:
    for scm in ("linear", "nonlinear"):
        causal = data.load("scm-dsprites", scm=scm)
        rng = np.random.default_rng(seed)
        # any image of the grid, also one that the model all but never gives
        index = rng.integers(0, len(causal), 200)
        noise = causal.abduct(index, rng)
        assert np.isfinite(noise).all()
        assert np.array_equal(causal.counterfactual(noise), index)


def test_abducted_noise_has_the_distribution_it_came_from(tangle: CausalData) -> None:
    rng = np.random.default_rng(2)
    noise = tangle.noise(20_000, rng)
    again = tangle.abduct(tangle.counterfactual(noise), rng)
    for column in range(noise.shape[1]):
        assert stats.kstest(again[:, column], "norm").pvalue > 1e-3
    # It is decided up to an interval, so it is not the same noise, yet close to it.
    assert 0.3 < np.corrcoef(noise[:, 1], again[:, 1])[0, 1] < 1


@pytest.mark.parametrize("scm", ["linear", "nonlinear"])
def test_counterfactuals_move_descendants_and_nothing_else(scm: str) -> None:
    causal = data.load("scm-dsprites", scm=scm)
    pairs = causal.counterfactual_pairs("scale", 1, 4, 500, np.random.default_rng(3))
    differ = causal.factors(pairs.base) != causal.factors(pairs.source)
    moved = dict(zip(causal.factor_names, differ.any(axis=0).tolist(), strict=True))
    assert moved == {"shape": False, "scale": True, "orientation": False, "posX": True, "posY": True}
    assert set(causal.factors(pairs.base)[:, 1].tolist()) == {1}
    # `pairs` holds the rest instead
    held = causal.pairs("scale", 500, np.random.default_rng(3))
    differ = causal.factors(held.base) != causal.factors(held.source)
    assert differ.all(axis=0).tolist() == [False, True, False, False, False]
    assert differ.any(axis=0).tolist() == [False, True, False, False, False]


def test_do_takes_one_class_per_unit() -> None:
    causal = data.load("scm-dsprites")
    noise = causal.noise(6, np.random.default_rng(0))
    index = causal.counterfactual(noise, {"scale": np.arange(6), "shape": 2})
    assert causal.factors(index)[:, :2].tolist() == [[2, i] for i in range(6)]


def test_the_default_graph_has_a_chain_a_fork_and_a_mediated_path() -> None:
    graph = data.load("scm-dsprites").graph
    assert {("orientation", "scale"), ("scale", "posY")} <= set(graph.edges)
    assert {("scale", "posX"), ("scale", "posY")} <= set(graph.edges)
    assert {("orientation", "scale"), ("scale", "posX"), ("orientation", "posX")} <= set(graph.edges)
    assert graph.degree("shape") == 0
    with pytest.raises(nx.NetworkXError, match="Frozen"):
        graph.add_edge("shape", "posX")


def test_known_effects_of_the_linear_variant_are_its_path_coefficients() -> None:
    causal = data.load("scm-dsprites", scm="linear")
    for cause, outcome in itertools.permutations(causal.factor_names, 2):
        for kind in effects.KINDS:
            closed = data.linear_effect(causal.model, cause, outcome, kind)
            assert causal.effect(cause, outcome, kind) == pytest.approx(closed, abs=5e-3)
    step = 19
    assert causal.effect("orientation", "posX", "direct") == pytest.approx(0.5 * step, abs=5e-3)
    assert causal.effect("orientation", "posX", "indirect") == pytest.approx(0.1 * 1.5 * step, abs=5e-3)


def test_the_nonlinear_variant_is_not_linear() -> None:
    causal = data.load("scm-dsprites", scm="nonlinear")
    total, direct, indirect = (causal.effect("orientation", "posX", kind) for kind in effects.KINDS)
    assert abs(total - direct - indirect) > 0.5
    first = causal.effect("scale", "posY", low=0, high=2)
    assert abs(causal.effect("scale", "posY", low=3, high=5) - first) > 2
    assert causal.formulas["posY"] == "21 - 0.6 scale^2 + 2.5 noise"


@pytest.mark.parametrize("scm", ["linear", "nonlinear"])
def test_formulas_are_what_is_computed(scm: str) -> None:
    causal = data.load("scm-dsprites", scm=scm)
    rng = np.random.default_rng(5)
    noise = causal.noise(300, rng)
    classes = dict(zip(causal.factor_names, causal.factors(causal.counterfactual(noise)).T.astype(float), strict=True))
    for column, (name, formula) in enumerate(causal.formulas.items()):
        if formula == "uniform":
            continue
        python = formula.replace("^", "**")
        for factor in classes:
            python = python.replace(f" {factor}", f" * {factor}").replace(f"(* {factor}", f"({factor}")
        python = python.replace("(orientation -", "1 * (orientation -").replace(" noise", " * noise")
        for old, new in (("2 tanh(1 * (", "2 * tanh(("), ("scale) sin(pi 1 * (", "scale) * sin(pi * (")):
            python = python.replace(old, new)
        known = {**classes, "noise": noise[:, column], "tanh": np.tanh, "sin": np.sin, "pi": np.pi}
        value = eval(python, {"__builtins__": {}}, known)
        rounded = np.clip(np.floor(value + 0.5), 0, causal.grid.size(name) - 1)
        assert np.array_equal(rounded, classes[name]), (name, python)


def test_the_split_follows_the_model_and_shares_no_picture() -> None:
    causal = data.load("scm-dsprites")
    split = causal.split(5000, seed=1)
    assert len(split.test) == 5000
    assert not set(causal.twin[split.train].tolist()) & set(causal.twin[split.test].tolist())
    again = causal.split(5000, seed=1)
    assert np.array_equal(split.train, again.train)
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, causal.split(5000, seed=2).test)
    # A tenth of the pictures stands for all in the test part, so that it follows the model less closely.
    for part, near in zip(split, (0.01, 0.06), strict=True):
        factors = causal.factors(part)
        for column, name in enumerate(causal.factor_names):
            expected = effects.joint(causal.model, (name,))
            found = np.bincount(factors[:, column], minlength=len(expected)) / len(part)
            assert np.abs(found - expected).max() < near
    with pytest.raises(DataError, match=r"gave .* held-out and .* other draws"):
        toy({"a": 1}, [], {"a": Uniform()}).split(1, 0)


def good() -> dict[str, Mechanism]:
    return {"a": Uniform(), "b": Linear(0, 1, {"a": 1})}


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: toy({"a": 2, "b": 2}, [("a", "b"), ("b", "a")], good()),
            "graph has the cycle a -> b; a causal graph must have none.",
        ),
        (
            lambda: toy({"a": 2, "b": 2}, [("a", "c")], good()),
            "graph nodes and factors differ in c; each factor ['a', 'b'] needs exactly one.",
        ),
        (
            lambda: toy({"a": 2, "b": 2}, [("a", "b")], {"a": Uniform()}),
            "mechanisms and factors differ in b; each factor ['a', 'b'] needs exactly one.",
        ),
        (
            lambda: toy({"a": 2, "b": 2}, [], good()),
            "mechanism 'b' weighs ['a'], but its parents in the graph are []; they must be the same.",
        ),
        (lambda: Linear(0, 0), "sd is 0; a mechanism needs noise with a standard deviation above 0."),
    ],
)
def test_a_wrong_model_is_said_in_one_sentence(build, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        build()
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: s.effect("a", "z"), "outcome 'z' is unknown; allowed are y, m, a, c, alone."),
        (lambda s: s.effect("a", "a"), "cause and outcome are both 'a'; an effect needs two factors."),
        (
            lambda s: s.effect("a", "y", "directt"),
            "kind 'directt' is unknown; allowed are total, direct, indirect; did you mean direct?",
        ),
        (lambda s: s.effect("a", "y", low=3), "low is 3; factor 'a' has classes 0 to 2."),
        (lambda s: s.intervene({"a": 3}, 2, np.random.default_rng(0)), "factor 'a' has class 3; allowed are 0 to 2."),
        (
            lambda s: s.counterfactual(np.zeros((4, 5)), {"a": [0, 1]}),
            "do('a') has shape (2,); allowed is one class, or 4 of them.",
        ),
        (lambda s: s.counterfactual(np.zeros((4, 3))), "noise has shape (4, 3); allowed is (n, 5)."),
    ],
)
def test_wrong_questions_are_said_in_one_sentence(tangle: CausalData, call, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        call(tangle)
    assert str(caught.value).rstrip() == sentence


def test_tables_too_large_to_enumerate_are_refused() -> None:
    sizes = {f"f{i}": 60 for i in range(2)} | {"y": 4}
    scm = toy(
        sizes, [("f0", "y"), ("f1", "y")], {"f0": Uniform(), "f1": Uniform(), "y": Linear(0, 1, {"f0": 0, "f1": 0})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "_LARGEST_TABLE", 14_000)
        with pytest.raises(DataError, match="factor 'y' has 2 parents, whose classes are too many to enumerate"):
            scm.effect("f0", "y")
    assert scm.effect("f0", "y") == pytest.approx(0)
