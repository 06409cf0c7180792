from __future__ import annotations

import doctest
import json
from importlib import import_module
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cvi_widgets as cvi
from cvi_widgets.data.pixels import find_twins
from cvi_widgets.data.protocol import FactorData
from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import planted

INVERTIBLE = ("dedicated", "shared", "redundant")
CIRCUITS = [
    *({"kind": kind, "depth": depth} for kind in (*INVERTIBLE, "gated", "mixed") for depth in (1, 2)),
    {"kind": "mixed", "linear": True, "depth": 3},
    {"kind": "shared", "linear": True},
]


def small(**settings):
    """Few enough images to look at all pairs."""
    return planted(**{"factors": 4, "values": 3, "noise_units": 2, "seed": 1, **settings})


def every_image(truth):
    return torch.from_numpy(truth.data.images(np.arange(len(truth.data)), "float32"))


def sites_of(truth):
    """Sites along the circuit, in order, without the image."""
    depth = truth.spec.depth
    encoder, decoder = ([f"{side}.fc{n}" for n in range(depth)] for side in ("encoder", "decoder"))
    return [*encoder, "latent.mu", *decoder]


def by_block(truth, image):
    """One pixel of each block, shape (n, block)."""
    return torch.stack([image[:, 0][:, torch.from_numpy(region)][:, 0] for region in truth.regions], 1)


def read_values(truth, x, edits=()):
    """Values at all sites and at the image's blocks, from one pass."""
    kept = {}

    def keep(value, site):
        kept[site.name] = value.clone()

    out = truth.model.run_with_hooks(x, [*edits, *((site, keep) for site in sites_of(truth))])
    return {**kept, "image": by_block(truth, out.image)}


def swap(unit, source):
    def edit(value, site):
        value = value.clone()
        value[:, unit] = source[:, unit]
        return value

    return edit


class BruteForce:
    """What single-unit swaps show, over all ordered pairs of images."""

    def __init__(self, truth):
        n = len(truth.data)
        base, source = (torch.from_numpy(i) for i in np.divmod(np.arange(n * n), n))
        images = every_image(truth)
        values = read_values(truth, images)
        classes = torch.from_numpy(truth.data.factors(np.arange(n)))
        differs = classes[base] != classes[source]
        self.truth = truth
        self.only = {f: (differs.sum(1) == 1) & differs[:, k] for k, f in enumerate(truth.data.factor_names)}
        self.total = {site: (v[source] - v[base]).abs() > 1e-5 for site, v in values.items()}
        self.swapped = {}
        order = [*sites_of(truth), "image"]
        for site, following in pairwise(order):
            for unit in range(values[site].shape[1]):
                after = read_values(truth, images[base], [(site, swap(unit, values[site][source]))])[following]
                self.swapped[site, unit] = following, (after - values[following][base]).abs() > 1e-5

    def graph(self, pairs_of=None):
        """Factors to units that their change moves, units to units that their swap moves, as far as the image.

        With `pairs_of`, only pairs that differ in that factor alone count, and only units that then differ.
        """
        found = nx.DiGraph()
        first = sites_of(self.truth)[0]
        for factor, chosen in self.only.items():
            if pairs_of in (None, factor):
                moved = self.total[first][chosen].any(0)
                found.add_edges_from((("factor", factor), (first, u)) for u in np.flatnonzero(moved))
        chosen = slice(None) if pairs_of is None else self.only[pairs_of]
        for (site, unit), (following, moved) in self.swapped.items():
            reached = moved[chosen].any(0) & self.total[following][chosen].any(0)
            found.add_edges_from(((site, unit), (following, v)) for v in np.flatnonzero(reached))
        starts = {node for node in found if node[0] == "factor"}
        ends = {node for node in found if node[0] == "image"}
        after = set().union(*(nx.descendants(found, node) | {node} for node in starts))
        before = set().union(*(nx.ancestors(found, node) | {node} for node in ends))
        return found.subgraph(after & before)


@pytest.mark.parametrize("settings", CIRCUITS, ids=str)
def test_the_graph_is_what_swapping_every_unit_over_all_pairs_shows(settings):
    truth = small(**settings)
    seen = BruteForce(truth)
    assert set(truth.graph.edges) == set(seen.graph().edges)
    for factor in truth.data.factor_names:
        assert set(truth.edges_of(factor).edges) == set(seen.graph(factor).edges)
    for site in sites_of(truth):
        units = {unit for at, unit in truth.graph if at == site}
        n_units = truth.model.site(site).n_units
        assert len(units) == n_units - (0 if site == "latent.mu" else 2)
        for unit in set(range(n_units)) - units:
            # A noise unit answers to the image, and nothing answers to it.
            assert seen.total[site][:, unit].any()
            assert not seen.swapped[site, unit][1].any()


@pytest.mark.parametrize("settings", CIRCUITS, ids=str)
def test_known_effects_are_the_mean_change_of_mu_per_class_step(settings):
    truth = small(**settings)
    classes = truth.data.factors(np.arange(len(truth.data)))
    mu = truth.model.encode(every_image(truth)).mu.numpy()
    for k, factor in enumerate(truth.data.factor_names):
        step = np.eye(len(truth.data.factor_names), dtype=int)[k]
        lower = np.flatnonzero(classes[:, k] < truth.data.factor_sizes[k] - 1)
        change = mu[truth.data.index(classes[lower] + step)] - mu[lower]
        np.testing.assert_allclose(truth.known_effects().sel(factor=factor), change.mean(0), atol=1e-5)
    sizes = np.abs(truth.known_effects().values)
    own = sizes.argmax(1)
    assert sorted(own) == [0, 1, 2, 3]
    if truth.spec.linear:
        np.testing.assert_allclose(sizes.max(1), np.sqrt(12) / 2, rtol=1e-12)
        assert np.count_nonzero(sizes) == 4


@given(
    kind=st.sampled_from(INVERTIBLE),
    factors=st.integers(2, 5),
    depth=st.integers(1, 4),
    linear=st.booleans(),
    noise_units=st.integers(0, 4),
    seed=st.integers(0, 10**6),
    values=st.integers(2, 5),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_without_noise_the_image_comes_back(**chosen):
    truth = planted(**chosen)
    x = every_image(truth)[:500]
    assert (truth.model.decode(truth.model.encode(x).mu) - x).abs().max() < 5e-6


@pytest.mark.parametrize("kind", ["gated", "mixed"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_gate_shuts_its_factor_out_while_f0_is_off(kind, depth):
    truth = small(kind=kind, depth=depth)
    x = every_image(truth)
    classes = truth.data.factors(np.arange(len(x)))
    gated = [1, 2, 3] if kind == "gated" else [1]
    shut = classes.copy()
    shut[:, gated] = np.where(classes[:, :1] == 1, classes[:, gated], 0)
    seen = x[truth.data.index(shut)]
    assert (truth.model.decode(truth.model.encode(x).mu) - seen).abs().max() < 5e-6
    first = read_values(truth, x)["encoder.fc0"].numpy()
    off = classes[:, 0] == 0
    for k in gated:
        (unit,) = (u for _, u in truth.graph.successors(("factor", f"f{k}")))
        assert not first[off, unit].any()
        assert len(np.unique(first[~off, unit].round(5))) == 3


def test_redundant_units_carry_half_each_and_dedicated_units_all():
    for kind, share in (("redundant", 0.5), ("dedicated", 1.0)):
        truth = small(kind=kind)
        pairs = truth.data.pairs("f2", 20, np.random.default_rng(0))
        base, source = (torch.from_numpy(truth.data.images(i, "float32")) for i in pairs)
        from_source = read_values(truth, source)
        change = from_source["latent.mu"] - read_values(truth, base)["latent.mu"]
        units = [unit for _, unit in truth.graph.successors(("factor", "f2"))]
        assert len(units) == round(1 / share)
        for unit in units:
            after = read_values(truth, base, [("encoder.fc0", swap(unit, from_source["encoder.fc0"]))])["latent.mu"]
            torch.testing.assert_close(
                after - read_values(truth, base)["latent.mu"], share * change, rtol=1e-5, atol=1e-5
            )


def test_shared_units_hold_the_sum_and_the_difference():
    truth = small(kind="shared", factors=3)
    classes = truth.data.factors(np.arange(len(truth.data)))
    first = read_values(truth, every_image(truth))["encoder.fc0"].numpy()
    (alone,) = (u for _, u in truth.graph.successors(("factor", "f2")))
    pair = [u for _, u in truth.graph.successors(("factor", "f0"))]
    assert pair == [u for _, u in truth.graph.successors(("factor", "f1"))]
    assert alone not in pair
    correlated = {
        name: [abs(np.corrcoef(first[:, u], combined)[0, 1]) for u in pair]
        for name, combined in (("sum", classes[:, 0] + classes[:, 1]), ("difference", classes[:, 0] - classes[:, 1]))
    }
    np.testing.assert_allclose(sorted(correlated["sum"]), [0, 1], atol=1e-6)
    np.testing.assert_allclose(np.add(correlated["sum"], correlated["difference"]), 1, atol=1e-6)
    # The first one's change feeds the latent of the second twice, with opposite signs: it does not pass.
    latents = [sum(site == "latent.mu" for site, _ in truth.edges_of(f)) for f in ("f0", "f1")]
    assert latents == [1, 1]
    assert all(truth.graph.out_degree(("encoder.fc0", u)) == 2 for u in pair)


@pytest.mark.parametrize("kind", INVERTIBLE)
@pytest.mark.parametrize("depth", [1, 3])
def test_weights_multiplied_along_all_paths_give_the_brightness_of_a_class(kind, depth):
    truth = small(kind=kind, depth=depth)
    for j, k in product(range(4), range(4)):
        paths = nx.all_simple_edge_paths(truth.graph, ("factor", f"f{j}"), ("image", k))
        passed = sum(np.prod([truth.graph.edges[edge]["weight"] for edge in path]) for path in paths)
        step = np.diff(truth.data.factor_values[f"f{k}"])[0] if j == k else 0
        assert passed == pytest.approx(step, abs=1e-9)


@pytest.mark.parametrize("kind", ["shared", "mixed"])
def test_rectifiers_do_not_clip_over_the_data_nor_over_latents_up_to_four(kind):
    truth = small(kind=kind, depth=2, noise_units=3)
    model = truth.model
    _, cache = model.run_with_cache(every_image(truth), ["encoder.fc0.pre", "encoder.fc1.pre"])
    gates = {u for _, u in truth.graph.successors(("factor", "f1"))} if kind == "mixed" else set()
    least = cache["encoder.fc0.pre"]["act"].min("example").values
    assert (np.delete(least, list(gates)) > 0.2).all()
    assert (cache["encoder.fc1.pre"]["act"].min("example").values > -1e-6).all()
    corners = torch.tensor(list(product([-4.0, 4.0], repeat=4)))
    middle = (corners[:8] + corners[8:]) / 2
    ends = model.decode(corners)
    torch.testing.assert_close(model.decode(middle), (ends[:8] + ends[8:]) / 2, rtol=1e-5, atol=1e-5)


def test_wrap_finds_the_sites():
    sites = list(small(kind="shared", depth=2).model.sites().index)
    encoder = ["encoder.fc0.pre", "encoder.fc0", "encoder.fc1.pre", "encoder.fc1"]
    latent = ["latent.mu", "latent.logvar", "latent.z"]
    assert sites == [*encoder, *latent, *(s.replace("encoder", "decoder") for s in encoder), "decoder.output"]
    linear = small(kind="shared", linear=True)
    assert list(linear.model.sites().index) == ["encoder.fc0", *latent, "decoder.fc0", "decoder.output"]
    assert linear.model is linear.model
    assert linear.model.module is linear.module
    logvar = linear.model.encode(every_image(linear)).logvar
    assert torch.equal(logvar, torch.full_like(logvar, -6.0))


def test_noise_grows_on_every_weight_and_leaves_the_truth_alone():
    clean, little, much = (small(kind="shared", factors=6, noise=noise) for noise in (0.0, 0.05, 0.2))
    for name, weight in clean.module.named_parameters():
        changed, more = (dict(truth.module.named_parameters())[name] - weight for truth in (little, much))
        if name.endswith("bias") or name.startswith("latent_logvar"):
            assert not more.any()
            continue
        size = weight[weight != 0].square().mean().sqrt()
        assert changed.std().item() == pytest.approx(0.05 * size.item(), rel=0.25)
        assert changed.ne(0).all()
        torch.testing.assert_close(more, 4 * changed, rtol=1e-3, atol=1e-5)
    assert set(clean.graph.edges) == set(much.graph.edges)
    np.testing.assert_array_equal(clean.known_effects(), much.known_effects())
    x = every_image(clean)
    errors = [(t.model.decode(t.model.encode(x).mu) - x).square().mean().item() for t in (clean, little, much)]
    assert errors[0] < 1e-10 < 1e-6 < errors[1] < errors[2] / 4


def test_a_seed_decides_weights_and_order_and_nothing_else_does():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (small(kind="mixed", noise=0.1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])
    assert set(first.graph.edges) == set(again.graph.edges) != set(other.graph.edges)
    assert nx.is_isomorphic(first.graph, other.graph)


def test_noise_units_leave_the_circuit_as_it_was():
    plain, crowded = (small(kind="mixed", noise_units=n) for n in (0, 5))
    assert crowded.model.site("encoder.fc0").n_units == plain.model.site("encoder.fc0").n_units + 5
    weights = [sorted(w for *_, w in truth.graph.edges(data="weight")) for truth in (plain, crowded)]
    np.testing.assert_allclose(*weights, rtol=1e-12)


def test_settings_travel_as_json():
    truth = small(kind="gated", depth=2, noise=0.1, seed=np.int64(7))
    again = planted(**json.loads(json.dumps(truth.settings)))
    assert again.settings == truth.settings
    assert torch.equal(again.module.latent_mu.weight, truth.module.latent_mu.weight)
    assert set(again.graph.edges) == set(truth.graph.edges)


def test_the_data_are_factor_data_with_one_block_per_factor():
    truth = cvi.planted("gated", factors=6, values=4)
    data = truth.data
    assert isinstance(data, FactorData)
    assert data.factor_names == ("f0", "f1", "f2", "f3", "f4", "f5")
    assert data.factor_sizes == (2, 4, 4, 4, 4, 4)
    assert data.image_shape == (1, 8, 12)
    assert truth.regions.shape == (6, 8, 12)
    assert (truth.regions.sum(0) == 1).all()
    index = data.sample(50, np.random.default_rng(0))
    images, classes = data.images(index, "float32"), data.factors(index)
    np.testing.assert_array_equal(data.index(classes), index)
    np.testing.assert_array_equal(data.images(index), np.round(images * 255))
    for k, region in enumerate(truth.regions):
        shown = images[:, 0, region]
        np.testing.assert_allclose(shown, data.factor_values[f"f{k}"][classes[:, k]][:, None].repeat(16, 1), rtol=1e-6)
    assert [data.factor_values["f1"][c] for c in (0, -1)] == pytest.approx([0.2, 0.8])
    np.testing.assert_allclose(np.diff(data.factor_values["f1"], n=2), 0, atol=1e-12)
    pairs = data.pairs("f3", 30, np.random.default_rng(1))
    changed = (data.images(pairs.base) != data.images(pairs.source))[:, 0]
    assert (changed == truth.regions[3]).all()
    split = data.split(100, 0)
    assert not set(split.train) & set(split.test)
    np.testing.assert_array_equal(find_twins(data.pixels.rows()), data.twin)


def test_explain_names_the_units_of_the_graph():
    truth = cvi.planted("mixed", seed=2)
    says = truth.explain()
    assert says.startswith("A mixed circuit of 4 factors, 1 hidden layer a side, rectified, 0 noise units in each")
    halves, (gate,), pair = (sorted(u for _, u in truth.graph.successors(("factor", f))) for f in ("f0", "f1", "f2"))
    halves.remove(gate)
    assert f"f0 is carried in equal parts by units {halves[0]} and {halves[1]} of encoder.fc0." in says
    assert f"f1 passes unit {gate} of encoder.fc0 only while f0 is on." in says
    assert f"f2 and f3 share units {pair[0]} and {pair[1]} of encoder.fc0" in says
    assert repr(truth) == "<Planted 'mixed': 4 factors, images (1, 8, 8), 25 edges>"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "gate"}, "kind 'gate' is unknown; .* did you mean gated\\?"),
        ({"factors": 1}, "factors is 1; a whole number of at least 2 is needed"),
        ({"factors": 2.0}, r"factors is 2\.0; a whole number"),
        ({"depth": 0}, "depth is 0; a whole number of at least 1 is needed"),
        ({"noise": -0.1}, r"noise is -0\.1; a number of at least 0 is needed"),
        ({"noise": float("nan")}, "noise is nan; a number of at least 0"),
        ({"noise": "a"}, "noise is 'a'; a number of at least 0"),
        ({"noise_units": -1}, "noise_units is -1; a whole number of at least 0 is needed"),
        ({"seed": -1}, "seed is -1; a whole number of at least 0 is needed"),
        ({"values": 1}, "values is 1; a whole number of at least 2 is needed"),
        ({"values": 200}, "values is 200; a block has 154 grey levels"),
        ({"linear": 1}, "linear is 1; allowed are True and False"),
        ({"kind": "gated", "linear": True}, "kind 'gated' cannot be linear=True"),
        ({"factors": 9}, "factors is 9 with values 8, which makes 134,217,728 images; allowed are 16,777,216"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_with_one_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        planted(**settings)


def test_an_unknown_factor_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"factor 'F1' is unknown; .* did you mean f1\?"):
        small().edges_of("F1")


@pytest.mark.parametrize("module", ["planted", "motifs"])
def test_the_examples_are_true(module):
    tried = doctest.testmod(import_module(f"cvi_widgets.interventions.{module}"))
    assert tried.attempted
    assert not tried.failed
