"""Path patching against its definition spelled out with hooks, and on circuits where every path is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cvi_widgets as cvi
from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions import wrap


def by_definition(model, base, source, sender, receiver, s, r):
    """mu when sender s is swapped and only receiver r sees it."""
    new = model.values(source, [model.site(sender)])[sender]

    def swap(value, _site):
        out = value.clone()
        out[:, s] = new[:, s]
        return out

    with model.hooks([(sender, swap)]):
        arrived = model.values(base, [model.site(receiver)])[receiver]

    def receive(value, _site):
        out = value.clone()
        out[:, r] = arrived[:, r]
        return out

    return model.run_with_hooks(base, [(receiver, receive)]).mu


@pytest.mark.parametrize("method", ["auto", "suffix", "hooks"])
def test_every_path_is_the_one_of_the_definition(conv_vae, images, method):
    model = wrap(conv_vae(norm=True))
    base, source = images(6), images(6, seed=1)
    sender, receiver = "encoder.conv0", "encoder.fc0"
    found = cvi.path_patch(model, base, source, sender, receiver, method=method, keep_pairs=True, draws=10)
    assert dict(found.sizes) == {"sender": 4, "receiver": 5, "latent": 3, "pair": 6}
    before = model.encode(base).mu
    for s in range(4):
        for r in range(5):
            wanted = by_definition(model, base, source, sender, receiver, s, r) - before
            change = found["change_pair"].sel(sender=s, receiver=r).transpose("pair", "latent")
            np.testing.assert_allclose(change, wanted.numpy(), atol=1e-5)
    assert found["receiver_site"].values.tolist() == [receiver] * 5


def test_paths_through_all_receivers_are_the_senders_whole_effect(conv_vae, images):
    # There is no way around a layer of a plain stack.
    model = wrap(conv_vae())
    base, source = images(9), images(9, seed=1)
    through = cvi.path_patch(model, base, source, "encoder.conv0", "encoder.conv1", receivers="all", draws=10)
    direct = cvi.patch(model, base, source, "encoder.conv0", draws=10)
    np.testing.assert_allclose(through["transfer"].values[:, 0], direct["transfer"], atol=1e-5)


def test_only_planted_paths_carry_anything():
    truth = cvi.planted("mixed", factors=5, depth=2, noise_units=2)
    rng = np.random.default_rng(0)
    index = truth.data.sample(30, rng), truth.data.sample(30, rng)
    base, source = (torch.as_tensor(truth.data.images(i, "float32")) for i in index)
    found = cvi.path_patch(truth.model, base, source, "encoder.fc0", "encoder.fc1", draws=10)
    moved = found["effect"].max("latent")
    carried = {
        (int(s), int(r))
        for s in found["sender"]
        for r in found["receiver"]
        if float(moved.sel(sender=s, receiver=r)) > 1e-4
    }
    planted = {(u, v) for (a, u), (b, v) in truth.graph.edges if (a, b) == ("encoder.fc0", "encoder.fc1")}
    assert carried == planted


def test_paths_reach_into_the_decoder(conv_vae, images):
    model = wrap(conv_vae())
    base, source = images(5), images(5, seed=1)
    found = cvi.path_patch(model, base, source, "latent.mu", "decoder.fc0", receivers="all", outcome="reconstruction")
    whole = cvi.patch(model, base, source, "latent.mu", outcome="reconstruction")
    np.testing.assert_allclose(found["transfer"].values[:, 0], whole["transfer"], atol=1e-5)


@pytest.mark.parametrize(
    ("sender", "receiver", "error", "said"),
    [
        ("encoder.conv1", "encoder.conv0", SiteError, "no path leads from site"),
        ("encoder.conv0", "encoder.conv0", SiteError, "no path leads"),
        ("encoder.conv0", "decoder.fc0", SiteError, "does not act on mu"),
        ("encoder.conv7", "encoder.fc0", SiteError, "unknown"),
    ],
)
def test_impossible_paths_get_a_sentence(conv_vae, images, sender, receiver, error, said):
    with pytest.raises(error, match=said):
        cvi.path_patch(wrap(conv_vae()), images(3), images(3), sender, receiver)


def test_units_that_do_not_exist_get_a_sentence(conv_vae, images):
    with pytest.raises(ConfigError, match="units 0 to 3"):
        cvi.path_patch(wrap(conv_vae()), images(3), images(3), "encoder.conv0", "encoder.fc0", senders=[4])
