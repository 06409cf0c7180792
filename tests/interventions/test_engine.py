"""Every fast path against the slow twin, on architectures nobody wrote down."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions import wrap
from cvi_widgets.interventions.engine import (
    each_unit,
    method_for,
    pairs_per_batch,
    reached,
    read,
    traced,
    trusted,
    unit_groups,
)
from cvi_widgets.interventions.outcomes import readout
from cvi_widgets.interventions.trace import record

CHANNELS, SIDE = 2, 12


class Residual(nn.Module):
    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace)
        self.conv1 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv1(self.act(self.norm(self.conv0(x)))))


class Functional(nn.Module):
    """No modules for what it does: a gate, a split, a concatenation, an addition in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        a, b = y.split([1, y.shape[1] - 1], dim=1)
        y = torch.cat([b * torch.sigmoid(a), a], dim=1)
        y += 0.5 * x
        return torch.nn.functional.elu(y)


class RandomVAE(nn.Module):
    image_shape = (CHANNELS, SIDE, SIDE)

    def __init__(self, encoder: nn.Sequential, latents: int, flat: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(flat, 2 * latents)
        self.decoder = nn.Sequential(
            nn.Linear(latents, 18),
            nn.Unflatten(1, (2, 3, 3)),
            nn.ReLU(),
            nn.ConvTranspose2d(2, 3, 4, 2, 1),
            nn.GroupNorm(1, 3),
            nn.LeakyReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(3, CHANNELS, 3, padding=1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.head(self.encoder(x).flatten(1)).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))


@st.composite
def vaes(draw: st.DrawFn) -> RandomVAE:
    """Two to four blocks of convolutions, norms, activations, pooling and branches."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    blocks: list[nn.Module] = []
    width, side = CHANNELS, SIDE
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "residual", "functional", "transposed"]))
        if kind == "conv":
            kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 2))
            padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
            after = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            if after < 2:
                continue
            out = draw(st.sampled_from([4, 6]))
            groups = draw(st.sampled_from([1, 2])) if width % 2 == 0 else 1
            blocks.append(nn.Conv2d(width, out, kernel, stride, padding, dilation, groups))
            width, side = out, after
        elif kind == "residual":
            blocks.append(Residual(width, draw(st.booleans())))
        elif kind == "functional":
            blocks.append(Functional(width))
        elif side <= SIDE:
            blocks.append(nn.ConvTranspose2d(width, 4, 2, 2))
            width, side = 4, 2 * side
        norm = draw(st.sampled_from(["none", "batch", "group", "instance"]))
        if norm == "batch":
            blocks.append(nn.BatchNorm2d(width))
        elif norm != "none":
            blocks.append(nn.GroupNorm(1, width) if norm == "group" else nn.InstanceNorm2d(width, affine=True))
        act = draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Tanh, nn.Identity, None]))
        if act is not None:
            blocks.append(act(inplace=True) if act is nn.ReLU and draw(st.booleans()) else act())
        if side >= 4 and draw(st.booleans()):
            blocks.append(draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])))
            side //= 2
    model = RandomVAE(nn.Sequential(*blocks), draw(st.integers(1, 4)), width * side * side)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model


def by_plain_hooks(module: RandomVAE, path: str, base: Tensor, source: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """One forward per unit and pair with nothing but torch's own hooks: mu and reconstruction, pair by pair."""
    module.eval()
    target = module.get_submodule(path)
    rows = []
    with torch.no_grad():
        for b, s in zip(base, source, strict=True):
            kept: list[Tensor] = []
            handle = target.register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out.clone()))
            module.decode(module.encode(s[None])[0])
            handle.remove()

            def swap(_m, _a, out, kept=kept):
                new = out.clone()
                new[:, unit] = kept[0][:, unit]
                return new

            handle = target.register_forward_hook(swap)
            mu = module.encode(b[None])[0]
            rows.append((mu, module.decode(mu)))
            handle.remove()
    return torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(vaes(), st.integers(0, 2**16))
def test_every_method_agrees_with_one_hooked_forward_per_unit_and_pair(module: RandomVAE, seed: int) -> None:
    model = wrap(module)
    generator = torch.Generator().manual_seed(seed)
    base, source = torch.rand((2, 3, *model.image_shape), generator=generator)
    outcomes = readout(model, "mu"), readout(model, "reconstruction")
    (run,) = traced(model, base, source, decode=True)
    for site in model.site_map.sites.values():
        if site.module is None or site.name == "latent.logvar":
            continue
        unit = int(torch.randint(site.n_units, (), generator=generator))
        twins = by_plain_hooks(module, site.module, base, source, unit)
        new = run.source.value(site.name)
        for outcome, twin in zip(outcomes, twins, strict=True):
            if site.side == "decoder" and outcome.name == "mu":
                continue
            for method in ("hooks", "suffix", "linear"):
                (found,) = each_unit(model, run.base, base, site, new, [[unit]], outcome, method)
                found = found[0].reshape(twin.shape)
                scale = float(twin.abs().max())
                torch.testing.assert_close(found, twin, rtol=1e-4, atol=2e-5 * max(1.0, scale), msg=f"{site} {method}")


@pytest.mark.parametrize("path", ["encoder.act0", "encoder.act1"])
def test_a_site_inside_the_network_reaches_the_next_as_hooks_say(
    conv_vae: Callable, images: Callable, path: str
) -> None:
    model = wrap(conv_vae(norm=True))
    base, source = images(4), images(4, seed=1)
    site, target = model.site(path), model.site("encoder.fc0")
    (run,) = traced(model, base, source, decode=False)
    new = run.source.value(site.name)
    groups = unit_groups(site, [0, [1, 3], [2, 3]])
    for group, found in zip(groups, reached(model, run.base, base, site, new, groups, target), strict=True):

        def swap(value, _site, group=group):
            out = value.clone()
            out[:, group] = new[:, group]
            return out

        with model.hooks([(path, swap)]):
            expected = model.values(base, [target])[target.name]
        torch.testing.assert_close(found, expected)


def test_several_sites_change_in_one_run_in_the_order_of_the_pass(conv_vae: Callable, images: Callable) -> None:
    model = wrap(conv_vae())
    x = images(5)
    trace = record(model, x, decode=True)
    changes = {"encoder.conv0": lambda v: v * 2, "encoder.conv1": lambda v: v + v.mean(), "latent.mu": torch.tanh}
    mu, image = trace.run(changes, ("latent.mu", "decoder.output"))
    expected = model.run_with_hooks(x, [(name, lambda v, _s, f=f: f(v)) for name, f in changes.items()])
    torch.testing.assert_close(mu, expected.mu)
    torch.testing.assert_close(image, expected.image)


class Peeking(nn.Module):
    """Looks at the image in Python, which no record of tensor operations can follow."""

    image_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(64, 6)
        self.mu, self.logvar = nn.Linear(6, 2), nn.Linear(6, 2)
        self.back = nn.Linear(2, 64)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fc0(x.flatten(1))
        h = h * 2 if float(h.sum()) > 0 else h - 1
        return self.mu(h), self.logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.back(z).reshape(-1, 1, 8, 8)


class ThroughNumpy(Peeking):
    """Leaves torch in the middle, which the recorder does not see at all."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.from_numpy(self.fc0(x.flatten(1)).numpy() ** 2)
        return self.mu(h), self.logvar(h)


class OldView(Peeking):
    """Reads memory through a view after it was changed in place."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fc0(x.flatten(1)) + 0
        seen = h.view(-1, 6)
        h.mul_(3)
        return self.mu(seen), self.logvar(seen)


class WrittenInPieces(Peeking):
    """Fills a buffer piece by piece, as circular padding does."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fc0(x.flatten(1))
        out = torch.empty_like(h)
        out[:, :3] = h[:, 3:]
        out[:, 3:] = h[:, :3]
        return self.mu(out), self.logvar(out)


@pytest.mark.parametrize("kind", [Peeking, ThroughNumpy, OldView, WrittenInPieces])
def test_a_pass_that_cannot_be_recorded_is_found_out_and_hooked(kind: type[Peeking], images: Callable) -> None:
    torch.manual_seed(0)
    module = kind()
    model = wrap(module)
    site, outcome = model.site("fc0"), readout(model, "mu")
    assert not trusted(model, site, outcome.targets)
    assert method_for(model, site, outcome) == "hooks"
    with pytest.raises(ConfigError, match="allowed is hooks"):
        method_for(model, site, outcome, "linear")
    base, source = images(3), images(3, seed=1)
    (run,) = traced(model, base, source, decode=False)
    new = run.source.value(site.name)
    (found,) = each_unit(model, run.base, base, site, new, [[0, 1, 2, 3, 4, 5]], outcome)
    torch.testing.assert_close(found[0], model.encode(source).mu)


def test_what_follows_mu_is_recorded_even_where_the_encoder_cannot_be(images: Callable) -> None:
    model = wrap(ThroughNumpy())
    outcome = readout(model, "reconstruction")
    assert method_for(model, model.site("latent.mu"), outcome) == "hooks"


def test_a_batch_takes_no_more_than_its_budget(conv_vae: Callable, images: Callable) -> None:
    model = wrap(conv_vae())
    one = record(model, images(1), decode=True).n_bytes
    assert pairs_per_batch(model, True, 4 * one * 10) == 10
    assert pairs_per_batch(model, True, 10**12) == 64
    sizes = [
        len(read(run.base, readout(model, "mu"))) for run in traced(model, images(7), images(7), True, 4 * one * 3)
    ]
    assert sizes == [3, 3, 1]
    with pytest.raises(ConfigError, match="one pair of this model needs"):
        pairs_per_batch(model, True, 1000)


def test_unknown_units_and_methods_are_refused_with_one_sentence(conv_vae: Callable) -> None:
    model = wrap(conv_vae())
    site, outcome = model.site("encoder.conv0"), readout(model, "mu")
    with pytest.raises(ConfigError, match=r"units 'every' .*each"):
        unit_groups(site, "every")
    with pytest.raises(ConfigError, match=r"unit 4 does not exist .* units 0 to 3"):
        unit_groups(site, [[0, 4]])
    with pytest.raises(ConfigError, match="linear"):
        method_for(model, site, outcome, "liner")
    assert math.prod(len(g) for g in unit_groups(site, "all")) == 4
