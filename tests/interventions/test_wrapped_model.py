from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions import Intervention, wrap


def hook_count(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_sites_are_named_after_the_layer_with_the_value_after_its_activation(conv_vae):
    table = wrap(conv_vae()).sites()
    assert list(table.index) == [
        "encoder.conv0.pre",
        "encoder.conv0",
        "encoder.conv1.pre",
        "encoder.conv1",
        "encoder.fc0.pre",
        "encoder.fc0",
        "latent.mu",
        "latent.logvar",
        "latent.z",
        "decoder.fc0.pre",
        "decoder.fc0",
        "decoder.fc1",
        "decoder.output",
    ]
    assert list(table.columns) == ["module", "shape", "n_units", "side"]
    assert table.loc["encoder.conv1", "module"] == "encoder.act1"
    assert table.loc["encoder.conv1", "shape"] == (6, 2, 2)
    assert table.loc["encoder.conv1", "n_units"] == 6
    assert table.loc["latent.mu", "side"] == "latent"


def test_a_norm_between_layer_and_activation_is_part_of_the_layer_and_still_has_its_alias(conv_vae):
    model = wrap(conv_vae(norm=True))
    assert model.site("encoder.conv0").module == "encoder.act0"
    assert model.site("encoder.conv0.pre").module == "encoder.conv0"
    assert model.site("encoder.norm0").module == "encoder.norm0"


def test_module_paths_are_aliases(conv_vae):
    model = wrap(conv_vae())
    assert model.site("encoder.act1") == model.site("encoder.conv1")
    assert model.site("latent_mu") == model.site("latent.mu")
    assert model.site("encoder.flatten").shape == (24,)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("encoder.conv9", "encoder.conv"), ("latent.mean", "latent.mu"), ("encodr.conv1", "encoder.conv1")],
)
def test_an_unknown_site_is_refused_with_the_nearest(conv_vae, name, guess):
    with pytest.raises(SiteError, match=rf"'{name}' is unknown.*did you mean {guess}"):
        wrap(conv_vae()).site(name)


def test_a_module_that_runs_twice_is_refused_with_the_reason(images):
    class Twice(nn.Module):
        image_shape = (1, 8, 8)

        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(64, 64), nn.Linear(64, 2)

        def encode(self, x):
            h = self.head(self.fc(torch.relu(self.fc(x.flatten(1)))))
            return h, h

        def decode(self, z):
            return z.sum(1).view(-1, 1, 1, 1).expand(-1, *self.image_shape)

    model = wrap(Twice())
    with pytest.raises(SiteError, match=r"fc.*runs 2 times"):
        model.site("fc")
    assert model.encode(images(3)).mu.shape == (3, 2)


def test_the_wrapper_gives_the_numbers_of_the_module(conv_vae, images):
    module = conv_vae(norm=True).eval()
    x = images(130)
    with torch.no_grad():
        mu, logvar = module.encode(x)
        picture = module.decode(mu)
    model = wrap(module)
    torch.testing.assert_close(model.encode(x.numpy()).mu, mu)
    torch.testing.assert_close(model.encode(x).logvar, logvar)
    torch.testing.assert_close(model.decode(mu), picture)


def test_mode_of_every_part_and_gradients_are_put_back(conv_vae, images):
    module = conv_vae(norm=True).train()
    module.encoder.norm0.eval()
    module.latent_logvar.weight.requires_grad_(False)
    before = [(m.training) for m in module.modules()]
    statistics = module.encoder.norm0.running_mean.clone()
    model = wrap(module)
    model.encode(images(4))
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(images(4), [("encoder.conv0", lambda value, site: 1 / 0)])
    assert [m.training for m in module.modules()] == before
    assert torch.equal(module.encoder.norm0.running_mean, statistics)
    assert [p.requires_grad for p in module.latent_logvar.parameters()] == [False, True]
    assert torch.is_grad_enabled()
    module.encode(images(4))[0].sum().backward()
    assert module.encoder.conv0.weight.grad is not None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("site", ["encoder.conv1", "latent.z", "decoder.output"])
def test_hooks_never_leak(conv_vae, images, error, site):
    module = conv_vae()
    model = wrap(module)
    x = images(3)
    clean = model.run_with_hooks(x, [])

    def fail(value, at):
        raise error

    with pytest.raises(error):
        model.run_with_hooks(x, [("encoder.conv0", lambda v, s: v * 0), (site, fail)])
    with pytest.raises(error), model.hooks([(site, lambda v, s: v * 0)]):
        raise error
    assert hook_count(module) == 0
    again = model.run_with_hooks(x, [])
    assert all(torch.equal(a, b) for a, b in zip(clean[:4], again[:4], strict=True))


def test_a_bad_hook_in_a_list_leaves_none_of_the_others_behind(conv_vae, images):
    module = conv_vae()
    model = wrap(module)
    with pytest.raises(SiteError):
        model.run_with_hooks(images(2), [("encoder.conv0", lambda v, s: v), ("encoder.conv7", lambda v, s: v)])
    assert hook_count(module) == 0


def test_hooks_act_on_the_module_itself_inside_the_block_only(conv_vae, images):
    module = conv_vae().eval()
    model = wrap(module)
    x = images(3)
    with torch.no_grad():
        before = module.encode(x)[0]
        with model.hooks([("latent.mu", lambda value, site: value + 1)]):
            torch.testing.assert_close(module.encode(x)[0], before + 1)
        assert torch.equal(module.encode(x)[0], before)


def test_a_hook_sees_all_examples_at_once_and_what_it_returns_goes_on(conv_vae, images):
    model = wrap(conv_vae())
    x = images(200)
    seen = []

    def watch(value, site):
        seen.append((site.name, tuple(value.shape)))

    model.run_with_hooks(x, [("encoder.conv0", watch)])
    with model.hooks([("encoder.conv0", watch)]):
        model.encode(x)
    assert seen == [("encoder.conv0", (200, 4, 4, 4))] * 2
    out = model.run_with_hooks(x, [("latent.mu", lambda v, s: torch.zeros_like(v))])
    assert torch.equal(out.z, torch.zeros(200, 3))
    torch.testing.assert_close(out.image, model.decode(torch.zeros(200, 3)))


def test_an_edit_that_changes_the_shape_is_refused(conv_vae, images):
    with pytest.raises(SiteError, match=r"shape \(3, 2, 4, 4\); it must keep \(3, 4, 4, 4\)"):
        wrap(conv_vae()).run_with_hooks(images(3), [("encoder.conv0", lambda v, s: v[:, :2])])


def test_the_cache_holds_post_intervention_values_with_names(conv_vae, images):
    model = wrap(conv_vae())
    x = images(70)
    out, cache = model.run_with_cache(x)
    assert list(cache.children) == list(model.sites().index)
    assert cache["encoder.conv1"]["act"].dims == ("example", "channel", "y", "x")
    assert cache["latent.mu"]["act"].dims == ("example", "channel")
    assert cache.attrs["values"] == "post-intervention"
    np.testing.assert_array_equal(cache["latent.mu"]["act"], out.mu)
    with model.hooks([Intervention("encoder.conv0", units=1, do="set", value=7.0)]):
        _, changed = model.run_with_cache(x, "encoder.conv0")
    assert list(changed.children) == ["encoder.conv0"]
    assert (changed["encoder.conv0"]["act"].sel(channel=1) == 7).all()
    kept = [0, 2, 3]
    np.testing.assert_array_equal(
        changed["encoder.conv0"]["act"].isel(channel=kept), cache["encoder.conv0"]["act"].isel(channel=kept)
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("encoder.act0", ["encoder.conv0"]),
        (["latent.mu", "decoder.fc0"], ["latent.mu", "decoder.fc0"]),
        (
            lambda name: name.endswith(".pre"),
            ["encoder.conv0.pre", "encoder.conv1.pre", "encoder.fc0.pre", "decoder.fc0.pre"],
        ),
    ],
)
def test_names_filter(conv_vae, images, names, expected):
    assert list(wrap(conv_vae()).run_with_cache(images(2), names)[1].children) == expected


def test_a_value_before_an_in_place_activation_is_the_value_before_it(images):
    class InPlace(nn.Module):
        image_shape = (1, 8, 8)

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))

        def encode(self, x):
            mu = self.net(x)
            return mu, mu

        def decode(self, z):
            return z.sum(1).view(-1, 1, 1, 1).expand(-1, *self.image_shape)

    torch.manual_seed(1)
    model = wrap(InPlace())
    _, cache = model.run_with_cache(images(20))
    pre, post = cache["encoder.net.1.pre"]["act"].values, cache["encoder.net.1"]["act"].values
    assert (pre < 0).any()
    np.testing.assert_array_equal(post, pre.clip(0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 1, 8, 8), np.uint8), "uint8; give float32"),
        (np.zeros((2, 1, 8, 7), np.float32), r"\(2, 1, 8, 7\); the model takes \(n, 1, 8, 8\)"),
        (np.zeros((0, 1, 8, 8), np.float32), "n at least 1"),
        (np.zeros((8, 8), np.float32), r"\(8, 8\)"),
    ],
)
def test_wrong_images_get_a_sentence(conv_vae, x, message):
    with pytest.raises(DataError, match=message):
        wrap(conv_vae()).encode(x)


def test_wrong_codes_get_a_sentence(conv_vae):
    with pytest.raises(DataError, match=r"\(n, 3\)"):
        wrap(conv_vae()).decode(np.zeros((4, 2), np.float32))


def test_wrap_refuses_what_it_cannot_measure(conv_vae):
    module = conv_vae()
    with pytest.raises(ConfigError, match="encode='embed' is no method of ConvVAE"):
        wrap(module, encode="embed")
    with pytest.raises(ConfigError, match="must return mu and logvar"):
        wrap(module, encode=lambda x: (module.encode(x)[0], "no tensor"))
    assert wrap(module, encode=lambda x: module.encode(x)[0]).encode(torch.zeros(1, 1, 8, 8)).logvar is None
    with pytest.raises(ConfigError, match="decode returned"):
        wrap(module, decode=lambda z: z)
    with pytest.raises(ConfigError, match="image_shape is unknown"):
        wrap(nn.Sequential(nn.Linear(2, 2)), encode=lambda x: x, decode=lambda z: z)
    with pytest.raises(ConfigError, match=r"call \.float\(\)"):
        wrap(conv_vae().double())


def test_callables_stand_for_methods(conv_vae, images):
    module = conv_vae()
    named, given = wrap(module), wrap(module, encode=lambda x: module.encode(x), decode=lambda z: module.decode(z))
    assert torch.equal(named.encode(images(3)).mu, given.encode(images(3)).mu)
    assert list(named.sites().index) == list(given.sites().index)


def test_the_repr_counts_sites(conv_vae):
    assert (
        repr(wrap(conv_vae()))
        == "<Model of ConvVAE: images (1, 8, 8), 3 latents, sites 6 encoder, 3 latent, 4 decoder>"
    )
