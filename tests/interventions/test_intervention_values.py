from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions import Intervention, wrap

units = st.one_of(
    st.none(),
    st.integers(0, 50),
    st.lists(st.integers(0, 50), max_size=4),
    st.builds(slice, *[st.one_of(st.none(), st.integers(-5, 5))] * 2, st.one_of(st.none(), st.integers(1, 3))),
)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
arrays = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6).map(lambda v: np.array(v, np.float32))


@st.composite
def interventions(draw):
    do = draw(st.sampled_from(["swap", "zero", "mean", "resample", "noise", "add", "set"]))
    source = draw(arrays) if do == "swap" else draw(st.none() | arrays) if do in ("mean", "resample") else None
    value = draw(numbers | arrays) if do in ("noise", "add", "set") else None
    where = draw(st.none() | st.lists(st.booleans(), min_size=4, max_size=4).map(lambda m: np.array(m).reshape(2, 2)))
    site, when = draw(st.text(max_size=9)), None
    if do in ("set", "swap", "resample") and draw(st.booleans()):
        site, when = "latent.code", draw(st.none() | st.integers(0, 9))
    return Intervention(site, draw(units), do, source, value, draw(st.integers(0, 9)), where, when)


@given(interventions())
def test_json_round_trip_is_the_identity(intervention):
    again = Intervention.from_json(intervention.to_json())
    assert again == intervention
    assert hash(again) == hash(intervention)
    assert json.loads(again.to_json())["do"] == intervention.do
    assert intervention.explain().endswith(".")


def test_values_are_frozen_and_copied():
    value = np.ones(3, np.float32)
    intervention = Intervention("encoder.conv0", [0, 1], "set", value=value)
    value[0] = 9
    assert intervention.value.array.tolist() == [1, 1, 1]
    with pytest.raises(AttributeError):
        intervention.site = "latent.mu"
    assert {intervention, Intervention("encoder.conv0", (0, 1), "set", value=np.ones(3))} == {intervention}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("encoder.conv1", 3, "zero"), "At encoder.conv1, set unit 3 to zero."),
        (("latent.mu", [0, 2], "add", None, 0.5), "At latent.mu, add 0.5 to units 0, 2."),
        (("latent.mu", slice(2, None), "mean"), "At latent.mu, set units 2:: to the mean over the same examples."),
        (("latent.z", None, "swap", [1.0]), "At latent.z, take all units from the source run."),
        (
            ("encoder.conv0", 1, "zero", None, None, 0, [[True, False], [True, True]]),
            "At encoder.conv0, set unit 1 to zero, at 3 of 4 positions.",
        ),
        (
            ("latent.code", 0, "set", None, 7, 0, None, 2),
            "At latent.code, set codebook 0 to code 7, where the code is 2.",
        ),
    ],
)
def test_explain(arguments, sentence):
    assert Intervention(*arguments).explain() == sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do": "swop"}, "did you mean swap"),
        ({"do": "swap"}, "needs source="),
        ({"do": "set"}, "needs value="),
        ({"do": "zero", "value": 1.0}, "uses no value="),
        ({"do": "add", "value": 1.0, "source": [1.0]}, "uses no source="),
        ({"do": "set", "value": ["a"]}, "takes numbers"),
        ({"where": [[0.0, 1.0]]}, r"float64 of shape \(1, 2\); it must be a boolean mask"),
        ({"where": np.ones((2, 2, 2), bool)}, "must be a boolean mask"),
        ({"do": "set", "value": 1, "when": 2}, "when=2 at site 'encoder.conv0': it must be the number of a code"),
    ],
)
def test_wrong_interventions_get_a_sentence(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Intervention("encoder.conv0", 0, **arguments)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"where": 1}',
        '{"site": "a", "value": {"float32": "!", "shape": [1]}}',
        '{"site": "a", "where": {"bool": "AQE=", "shape": [3]}}',
    ],
)
def test_text_that_is_no_intervention(text):
    with pytest.raises(ConfigError, match="no intervention"):
        Intervention.from_json(text)


def test_what_each_kind_does(conv_vae, images):
    model = wrap(conv_vae())
    x, source = images(50), images(50, seed=1)
    at = model.site("encoder.conv0")
    before, other = model.values(x, [at])[at.name], model.values(source, [at])[at.name]

    def after(do, **arguments):
        with model.hooks([Intervention(at.name, [1, 3], do, **arguments)]):
            value = model.values(x, [at])[at.name]
        assert torch.equal(value[:, [0, 2]], before[:, [0, 2]])
        return value[:, [1, 3]]

    old = before[:, [1, 3]]
    assert torch.equal(after("zero"), torch.zeros_like(old))
    assert torch.equal(after("set", value=2.5), torch.full_like(old, 2.5))
    torch.testing.assert_close(
        after("add", value=np.array([[[1.0]], [[2.0]]])), old + torch.tensor([1.0, 2.0]).view(2, 1, 1)
    )
    torch.testing.assert_close(after("mean"), old.mean(0, keepdim=True).expand_as(old))
    torch.testing.assert_close(
        after("mean", source=source.numpy()), other[:, [1, 3]].mean(0, keepdim=True).expand_as(old)
    )
    assert torch.equal(after("swap", source=source), other[:, [1, 3]])
    assert torch.equal(after("swap", source=source[:1]), other[:1, [1, 3]].expand_as(old))
    shuffled = after("resample", seed=3)
    assert not torch.equal(shuffled, old)
    assert torch.equal(shuffled.flatten(1).sum(1).sort().values, old.flatten(1).sum(1).sort().values)
    assert torch.equal(shuffled, after("resample", seed=3))
    drawn = after("resample", source=source[:7], seed=3)
    pool = [value.tolist() for value in other[:7, [1, 3]]]
    assert all(value.tolist() in pool for value in drawn)
    noise = after("noise", value=0.1, seed=1) - old
    assert 0.09 < float(noise.std()) < 0.11


def test_where_masks_positions_and_leaves_the_rest_as_it_is(conv_vae, images):
    model = wrap(conv_vae())
    x, at = images(20), model.site("encoder.conv0")
    before = model.values(x, [at])[at.name]
    where = np.zeros((4, 4), bool)
    where[1:3, 2] = True
    at_mask = torch.as_tensor(where)
    for do, value in (("set", 5.0), ("mean", None), ("add", 1.0)):
        with model.hooks([Intervention(at.name, [1, 2], do, value=value, where=where)]):
            masked = model.values(x, [at])[at.name]
        with model.hooks([Intervention(at.name, [1, 2], do, value=value)]):
            everywhere = model.values(x, [at])[at.name]
        assert torch.equal(masked[..., at_mask], everywhere[..., at_mask])
        assert torch.equal(masked[..., ~at_mask], before[..., ~at_mask])
        assert not torch.equal(masked, before)


def test_masks_are_frozen_compared_and_hashed_by_content():
    where = np.eye(2, dtype=bool)
    one, other = (Intervention("encoder.conv0", 0, where=w) for w in (where, ~where))
    where[:] = False
    assert one == Intervention("encoder.conv0", 0, where=np.eye(2, dtype=bool))
    assert one != other
    assert len({one, other, Intervention("encoder.conv0", 0)}) == 3
    assert one.where.array.dtype == bool


@pytest.mark.parametrize(
    ("site", "shape", "message"),
    [
        ("encoder.conv0", (2, 2), r"shape \(2, 2\); the positions of site 'encoder\.conv0' are \(4, 4\)"),
        ("latent.mu", (3,), r"site 'latent\.mu' has no positions"),
    ],
)
def test_a_mask_of_another_shape_is_refused_before_the_pass(conv_vae, images, site, shape, message):
    with pytest.raises(SiteError, match=message):
        wrap(conv_vae()).run_with_hooks(images(2), [Intervention(site, 0, where=np.ones(shape, bool))])


def test_several_sites_in_one_run(conv_vae, images):
    model, x = wrap(conv_vae()), images(6)
    plan = [
        Intervention("encoder.conv0", slice(0, 2), "zero"),
        Intervention("latent.mu", 1, "set", value=2.0),
        Intervention("decoder.fc0", [3, 4], "mean"),
    ]
    together = model.run_with_hooks(x, plan)
    with model.hooks(plan[:1]):
        mu = model.encode(x).mu
    mu[:, 1] = 2
    assert torch.equal(together.mu, mu)
    with model.hooks(plan[2:]):
        assert torch.equal(together.image, model.decode(mu))


def test_units_and_values_that_do_not_fit_are_refused_before_the_pass(conv_vae, images):
    model = wrap(conv_vae())
    with pytest.raises(SiteError, match=r"unit 4 does not exist at site 'encoder\.conv0', which has units 0 to 3"):
        model.run_with_hooks(images(2), [Intervention("encoder.conv0", 4)])
    with pytest.raises(SiteError, match=r"does not fit site 'latent\.mu'"):
        model.run_with_hooks(images(2), [Intervention("latent.mu", [0, 1], "set", value=[1.0, 2.0, 3.0])])
    with pytest.raises(SiteError, match="needs 1 or 2 source examples, not 3"):
        model.run_with_hooks(images(2), [Intervention("latent.mu", 0, "swap", source=images(3))])


def test_a_slice_takes_its_units(conv_vae, images):
    model = wrap(conv_vae())
    out = model.run_with_hooks(images(3), [Intervention("latent.mu", slice(1, None), "set", value=4.0)])
    assert torch.equal(out.mu[:, 1:], torch.full((3, 2), 4.0))
    assert torch.equal(out.mu[:, 0], model.encode(images(3)).mu[:, 0])


def test_several_at_once(conv_vae, images):
    model = wrap(conv_vae())
    x = images(5)
    out = model.run_with_hooks(
        x, [Intervention("latent.mu", 0, "set", value=1.0), Intervention("latent.mu", 0, "add", value=2.0)]
    )
    assert torch.equal(out.mu[:, 0], torch.full((5,), 3.0))
    assert torch.equal(out.mu[:, 1:], model.encode(x).mu[:, 1:])


@pytest.mark.parametrize(
    "site", ["encoder.conv0", "encoder.conv1.pre", "encoder.fc0", "latent.mu", "latent.z", "decoder.fc0"]
)
def test_swapping_a_whole_site_gives_the_source_downstream(conv_vae, images, site):
    model = wrap(conv_vae(norm=True))
    base, source = images(6), images(6, seed=1)
    patched = model.run_with_hooks(base, [Intervention(site, None, "swap", source=source)])
    wanted = model.run_with_hooks(source, [])
    assert torch.equal(patched.image, wanted.image)
    itself = model.run_with_hooks(base, [Intervention(site, [0, 2], "swap", source=base)])
    assert torch.equal(itself.image, model.run_with_hooks(base, []).image)
