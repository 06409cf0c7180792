from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions import Intervention, wrap
from cvi_widgets.interventions.halves import Halves


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


class Block(nn.Module):
    """A residual block whose activation is shared, and which answers with a tuple."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.act = act

    def forward(self, x):
        return self.act(x + self.conv1(self.act(self.conv0(x)))), "more"


Named = namedtuple("Named", ["value", "rest"])


@dataclass
class Boxed:
    value: torch.Tensor
    rest: str = "more"


class Nested(nn.Module):
    image_shape = (1, 8, 8)

    def __init__(self, answer=lambda value: value) -> None:
        super().__init__()

        class Head(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(128, 6)

            def forward(self, x):
                return answer(torch.tanh(self.fc(x)))

        self.answer = answer
        self.act = nn.ELU()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.block = Block(self.act)
        self.head = Head()
        self.mu = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(3, 64)

    def encode(self, x):
        found = self.head(self.block(self.act(self.stem(x)))[0].flatten(1))
        first = found if isinstance(found, torch.Tensor) else getattr(found, "value", None)
        if first is None:
            first = found["a"] if isinstance(found, dict) else found[0]
        return self.mu(first)

    def decode(self, z):
        return self.out(z).view(-1, 1, 8, 8)


def test_a_shared_activation_leaves_the_layers_around_it_sites(images):
    torch.manual_seed(0)
    model = wrap(Nested())
    assert {"encoder.stem", "encoder.block.conv0", "encoder.block.conv1"} <= set(model.sites().index)
    for path in ("act", "block.act"):
        with pytest.raises(SiteError, match=r"module act runs 3 times in one pass"):
            model.site(path)
    base, source = images(3), images(3, seed=1)
    stem = model.run_with_hooks(base, [Intervention("encoder.stem", None, "swap", source=source)])
    assert torch.equal(stem.mu, model.encode(source).mu)


def test_modules_that_did_not_run_are_refused_with_the_reason():
    with pytest.raises(SiteError, match="module unused runs in neither encode nor decode"):
        wrap(Nested()).site("unused")


def test_a_container_is_a_site_whatever_it_does_inside(images):
    torch.manual_seed(0)
    model = wrap(Nested())
    base, source = images(3), images(3, seed=1)
    assert model.site("block").shape == (2, 8, 8)
    patched = model.run_with_hooks(base, [Intervention("block", None, "swap", source=source)])
    assert torch.equal(patched.mu, model.encode(source).mu)
    # The layers inside do not carry the skip connection, so swapping them is not the same.
    inside = model.run_with_hooks(base, [Intervention("encoder.block.conv1", None, "swap", source=source)])
    assert not torch.allclose(inside.mu, patched.mu)


@pytest.mark.parametrize(
    "answer",
    [
        lambda value: (value, "more"),
        lambda value: [value, "more"],
        lambda value: Named(value, "more"),
        lambda value: Boxed(value),
        lambda value: {"a": value, "b": "more"},
    ],
)
def test_the_first_entry_of_what_a_module_returns_is_its_value(images, answer):
    torch.manual_seed(0)
    plain, model = wrap(Nested()), wrap(Nested(answer))
    model.module.load_state_dict(plain.module.state_dict())
    edit = [("head", lambda value, site: value * 0 + 1)]
    assert model.site("head").shape == (6,)
    found, wanted = (m.run_with_hooks(images(3), edit) for m in (model, plain))
    assert torch.equal(found.mu, wanted.mu)
    assert not torch.equal(found.mu, plain.encode(images(3)).mu)
    _, cache = model.run_with_cache(images(3), "head")
    assert cache.children.keys() == {"head"}


def test_a_module_with_parametrised_weights_is_still_a_layer(conv_vae, images):
    module = conv_vae()
    before = wrap(module).encode(images(2)).mu
    nn.utils.parametrizations.weight_norm(module.encoder.conv1)
    model = wrap(module)
    assert list(model.sites().index) == list(wrap(conv_vae()).sites().index)
    torch.testing.assert_close(model.encode(images(2)).mu, before)


def test_the_code_may_be_a_map(images):
    class Map(nn.Module):
        image_shape = (1, 8, 8)

        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(1, 2, 2, 2), nn.ConvTranspose2d(2, 1, 2, 2)

        def encode(self, x):
            return self.down(x)

        def decode(self, z):
            return self.up(z)

    torch.manual_seed(0)
    model = wrap(Map())
    found = model.run_with_hooks(images(70), [])
    assert model.latent_shape == (2, 4, 4) and model.n_latents == 2
    assert found.mu.shape == (70, 2, 4, 4) and found.logvar is None
    assert torch.equal(model.decode(found.mu), found.image)
    assert (
        repr(model)
        == "<Model of Map: images (1, 8, 8), 2 latents on 4x4 positions, sites 0 encoder, 2 latent, 2 decoder>"
    )
    with pytest.raises(DataError, match=r"\(n, 2, 4, 4\)"):
        model.decode(torch.zeros(3, 2))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("half", ["encode", "decode"])
def test_an_error_in_the_module_leaves_everything_as_it_was(conv_vae, images, error, half):
    module = conv_vae(norm=True).train()
    module.encoder.norm0.eval()
    model = wrap(module)
    state = [m.training for m in module.modules()]
    grads = [p.requires_grad for p in module.parameters()]

    def fail(*args):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, half, fail)
        broken = wrap_without_probe(model, module)
        with pytest.raises(error), torch.autocast("cpu", dtype=torch.bfloat16):
            broken.run_with_hooks(images(2), [("encoder.conv0", lambda v, s: v), ("latent.z", lambda v, s: v)])
    assert hook_count(module) == 0
    assert not any(broken.through.values())
    assert [m.training for m in module.modules()] == state
    assert [p.requires_grad for p in module.parameters()] == grads
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def wrap_without_probe(model, module):
    """The same model, its halves looked up anew."""
    model._halves = Halves(module.encode, module.decode, model.image_shape)
    return model


def test_autocast_is_off_inside_and_on_again_after(conv_vae, images):
    model = wrap(conv_vae())
    seen = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.run_with_hooks(images(2), [("encoder.conv0", lambda v, s: seen.append(v.dtype))])
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.float32]


def test_a_generator_that_is_closed_takes_its_hooks_away(conv_vae, images):
    module = conv_vae()
    model = wrap(module)

    def walk():
        with model.hooks([("encoder.conv0", lambda v, s: v * 0), ("latent.mu", lambda v, s: v * 0)]):
            yield model.encode(images(2))

    steps = walk()
    next(steps)
    assert hook_count(module) == 2
    steps.close()
    assert hook_count(module) == 0


def test_a_wrap_that_fails_leaves_no_hooks(conv_vae):
    module = conv_vae().train()

    def interrupted(x):
        module.encode(x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wrap(module, encode=interrupted)
    assert hook_count(module) == 0
    assert all(m.training for m in module.modules())


def test_weights_that_cannot_be_measured_are_refused(conv_vae):
    mixed = conv_vae()
    mixed.latent_mu.half()
    with pytest.raises(
        ConfigError, match=r"weight latent_mu\.weight of the module is torch\.float16.*call \.float\(\)"
    ):
        wrap(mixed)
    split = conv_vae()
    split.decoder.to("meta")
    with pytest.raises(ConfigError, match="weights are on cpu and meta; measuring needs them on one device"):
        wrap(split)
    lazy = conv_vae()
    lazy.latent_mu = nn.LazyLinear(3)
    with pytest.raises(ConfigError, match=r"weight latent_mu\.weight has no shape yet: run the module once"):
        wrap(lazy)


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
