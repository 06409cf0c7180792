"""Circuits that are known by construction have to be found, all of them and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import cvi_widgets as cvi
from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import wrap
from cvi_widgets.interventions.circuits import circuit
from cvi_widgets.interventions.found_circuit import Circuit
from cvi_widgets.interventions.motifs import motifs, score
from cvi_widgets.interventions.regions import region_masks, region_means
from cvi_widgets.results import read_group, write_group

KINDS = ["dedicated", "shared", "redundant", "gated", "mixed"]


def found_in(truth, **settings):
    return circuit(truth.model, truth.data, regions=truth.regions, draws=20, **settings)


@pytest.fixture(scope="module")
def mixed():
    return cvi.planted("mixed", factors=5, noise_units=3)


@pytest.fixture(scope="module")
def of_mixed(mixed) -> Circuit:
    return circuit(mixed.model, mixed.data, regions=mixed.regions, draws=200)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_planted_circuits_are_found_edge_for_edge(kind, depth):
    truth = cvi.planted(kind, depth=depth, noise_units=3, seed=depth)
    found = found_in(truth)
    table = score(found.graph(), truth.graph)
    assert (table[["precision", "recall"]] == 1).all(axis=None), table
    for factor in truth.data.factor_names:
        assert set(found.graph(factor).edges) == set(truth.edges_of(factor).edges)


def test_linear_circuits_are_found_too():
    truth = cvi.planted("mixed", linear=True, factors=5, depth=2)
    assert score(found_in(truth).graph(), truth.graph).loc["overall", "f1"] == 1


def test_weight_noise_costs_precision_before_recall():
    def overall(noise):
        truth = cvi.planted("mixed", noise=noise, noise_units=3)
        return score(found_in(truth, pairs=256, permutations=100).graph(), truth.graph).loc["overall"]

    little, much = overall(0.02), overall(0.5)
    assert little["precision"] == 1
    assert little["recall"] == 1
    assert much["precision"] < 0.8


def test_shares_are_those_that_were_planted():
    truth = cvi.planted("redundant", factors=2)
    edges = found_in(truth).kept
    first = edges[[source == ("factor", "f0") for source in edges["source"]]]
    # Two units carry half of it each.
    np.testing.assert_allclose(first["effect"], [0.5, 0.5], atol=1e-5)
    assert (edges["low"] <= edges["effect"] + 1e-6).all()
    assert (edges["high"] >= edges["effect"] - 1e-6).all()


def test_motifs_of_a_found_circuit_are_those_of_the_true_one(mixed, of_mixed):
    pd.testing.assert_frame_equal(of_mixed.motifs()[["count", "units"]], motifs(mixed.graph)[["count", "units"]])


def test_nothing_is_found_where_pairs_do_not_belong_together(mixed):
    rng = np.random.default_rng(0)
    index = mixed.data.sample(200, rng)
    images = torch.as_tensor(mixed.data.images(index, "float32"))
    # Base and source are the same picture: there is no effect to be carried.
    found = circuit(mixed.model, {"none": (images, images)}, regions=mixed.regions, draws=20)
    assert found.kept.empty
    assert list(found.graph().nodes) == []


def test_a_circuit_is_sufficient_and_necessary_and_random_ones_are_not(mixed, of_mixed):
    judged = cvi.faithfulness(mixed.model, of_mixed, mixed.data, pairs=128, random=10, draws=100)
    np.testing.assert_allclose(judged["faithfulness"], 1, atol=1e-4)
    np.testing.assert_allclose(judged["completeness"], 1, atol=1e-4)
    assert (judged["faithfulness_null"] < 0.7).all()
    assert judged["units"].sel(factor="f0") == sum(map(len, of_mixed.units("f0").values()))


def test_half_a_circuit_carries_half(mixed):
    truth = cvi.planted("redundant", factors=2)
    found = found_in(truth)
    missing = next(u for s, u in found.graph("f0").successors(("factor", "f0")))
    edges = found.edges.copy()
    edges.loc[
        [("encoder.fc0", missing) in (a, b) for a, b in zip(edges["source"], edges["target"], strict=True)], "kept"
    ] = False
    half = Circuit(edges, found.layers, found.regions, found.n_pairs, found.seed)
    judged = cvi.faithfulness(truth.model, half, truth.data, pairs=64, random=0, draws=20).sel(
        factor="f0", outcome="mu"
    )
    assert float(judged["faithfulness"]) == pytest.approx(0.5, abs=1e-4)


def test_thresholds_can_be_moved(of_mixed):
    sizes = [len(of_mixed.at(t).graph().edges) for t in (0.001, 0.3, 0.7, 2.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0
    assert sizes[1] > 0
    with pytest.raises(ConfigError, match="at least 0"):
        of_mixed.at(-0.1)


def test_a_circuit_survives_storing(of_mixed, tmp_path):
    write_group(tmp_path / "results.zarr", "effects/circuit", of_mixed.to_dataset())
    again = Circuit.from_dataset(read_group(tmp_path / "results.zarr", "effects/circuit"))
    assert set(again.graph().edges) == set(of_mixed.graph().edges)
    assert again.layers == of_mixed.layers
    assert again.units("f1") == of_mixed.units("f1")


def test_convolutional_models_have_circuits(conv_vae, images):
    model = wrap(conv_vae())
    base, source = images(40), images(40, seed=1)
    found = circuit(model, {"a": (base, source)}, draws=20, permutations=50)
    assert found.layers == ("encoder.conv0", "encoder.conv1", "encoder.fc0", "latent.mu", "decoder.fc0", "decoder.fc1")
    judged = cvi.faithfulness(model, found, {"a": (base, source)}, random=0, draws=20).sel(factor="a", outcome="mu")
    assert float(judged["faithfulness"]) == pytest.approx(
        share_left(model, found, base, source, inside=False), abs=1e-4
    )
    assert float(judged["completeness"]) == pytest.approx(
        1 - share_left(model, found, base, source, inside=True), abs=1e-4
    )


def share_left(model, found, base, source, *, inside):
    """Of the change of mu, with the circuit or the rest held at the base by hooks."""
    layers = [s for s in found.layers if not s.startswith("decoder")]
    at_base = model.values(base, [model.site(s) for s in layers])

    def hold(value, site):
        members = [u for u in range(site.n_units) if (u in found.units("a").get(site.name, ())) is inside]
        out = value.clone()
        out[:, members] = at_base[site.name][:, members]
        return out

    mu = model.run_with_hooks(source, [(s, hold) for s in layers]).mu
    total = model.encode(source).mu - model.encode(base).mu
    return float(((mu - model.encode(base).mu) * total).sum() / total.square().sum())


def test_regions_are_a_grid_that_covers_the_image_once(conv_vae):
    model = wrap(conv_vae())
    masks = region_masks(model, None)
    assert masks.shape == (16, 8, 8)
    assert (masks.sum(0) == 1).all()
    picture = torch.zeros(1, 1, 8, 8)
    picture[0, 0, 0, 3] = 4.0
    means = region_means(masks)(model.run_with_hooks(picture, [])._replace(image=picture))
    assert means[0].nonzero().flatten().tolist() == [1]
    assert float(means[0, 1]) == pytest.approx(1)
    with pytest.raises(ConfigError, match="none empty"):
        region_masks(model, np.zeros((2, 8, 8), bool))


def test_unknown_factors_get_a_sentence(of_mixed, mixed):
    with pytest.raises(ConfigError, match="f1"):
        of_mixed.graph("f11")
    with pytest.raises(ConfigError, match="factor"):
        circuit(mixed.model, mixed.data, ["f9"])
