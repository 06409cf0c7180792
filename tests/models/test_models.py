"""Networks: shapes, names, sizes known by arithmetic, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cvi_widgets.config import BetaVAEConfig, VAEConfig
from cvi_widgets.errors import ConfigError
from cvi_widgets.models import NETWORKS, GaussianVAE, Posterior, build

SHAPES = [(1, 64, 64), (3, 64, 64), (1, 32, 32), (3, 32, 32)]


def made(network: str = "paper", shape: tuple[int, int, int] = (1, 64, 64), latents: int = 10) -> GaussianVAE:
    torch.manual_seed(0)
    return build(BetaVAEConfig(network=network, latents=latents), shape)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_network_maps_images_to_images(network: str, shape: tuple[int, int, int]) -> None:
    model = made(network, shape, latents=6)
    x = torch.rand(3, *shape)
    out = model(x, torch.zeros(3, 6))
    assert out.logits.shape == x.shape
    assert out.posterior.mu.shape == out.posterior.logvar.shape == (3, 6)
    image = model.decode(out.z)
    assert 0 < image.min() and image.max() < 1
    torch.testing.assert_close(image, torch.sigmoid(out.logits))


@pytest.mark.parametrize(
    ("network", "convs", "features", "parameters"),
    # weights + biases by hand: convolutions, heads, fully connected layers, transposed convolutions
    [
        (
            "paper",
            [(32, 4), (64, 4), (128, 4)],
            8192,
            (16 * 32 + 32)
            + (16 * 32 * 64 + 64)
            + (16 * 64 * 128 + 128)
            + 2 * (8192 * 10 + 10)
            + (10 * 8192 + 8192)
            + (16 * 128 * 64 + 64)
            + (16 * 64 * 32 + 32)
            + (16 * 32 + 1),
        ),
        (
            "dlib",
            [(32, 4), (32, 4), (64, 2), (64, 2)],
            256,
            (16 * 32 + 32)
            + (16 * 32 * 32 + 32)
            + (4 * 32 * 64 + 64)
            + (4 * 64 * 64 + 64)
            + (1024 * 256 + 256)
            + 2 * (256 * 10 + 10)
            + (10 * 256 + 256)
            + (256 * 1024 + 1024)
            + (16 * 64 * 64 + 64)
            + (16 * 64 * 32 + 32)
            + (16 * 32 * 32 + 32)
            + (16 * 32 + 1),
        ),
    ],
)
def test_networks_are_those_of_their_papers(
    network: str, convs: list[tuple[int, int]], features: int, parameters: int
) -> None:
    model = made(network)
    layers = [m for m in model.encoder if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0]) for m in layers] == convs
    assert {m.stride for m in layers} == {(2, 2)}
    assert model.latent_mu.in_features == features
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_children_carry_the_names_that_sites_are_made_of() -> None:
    model = made()
    encoder = ["conv0", "act0", "conv1", "act1", "conv2", "act2", "flatten"]
    decoder = ["fc0", "act0", "unflatten", "deconv0", "act1", "deconv1", "act2", "deconv2"]
    assert [name for name, _ in model.encoder.named_children()] == encoder
    assert [name for name, _ in model.decoder.named_children()] == decoder


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_but_the_last_is_followed_by_its_own_activation(network: str) -> None:
    model = made(network)
    for stack in (model.encoder, model.decoder):
        modules = [m for m in stack if not isinstance(m, nn.Flatten | nn.Unflatten)]
        weighted = [m for m in modules if not isinstance(m, nn.ReLU)]
        activations = [m for m in modules if isinstance(m, nn.ReLU)]
        assert len({id(m) for m in activations}) == len(activations)
        assert not any(m.inplace for m in activations)
        assert len(weighted) - len(activations) == (0 if stack is model.encoder else 1)


def test_equal_seeds_give_equal_weights() -> None:
    first, again = made().state_dict(), made().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    other = build(VAEConfig(), (1, 64, 64)).state_dict()
    assert not torch.equal(first["encoder.conv0.weight"], other["encoder.conv0.weight"])


def test_sampling_is_mean_plus_scaled_noise() -> None:
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.log(torch.tensor([[4.0, 0.25]])))
    z = made(latents=2).sample(posterior, torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(z, torch.tensor([[3.0, -1.0]]))


def test_under_autocast_the_posterior_stays_in_full_precision() -> None:
    model = made()
    x = torch.rand(2, 1, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(x)
    assert posterior.mu.dtype == torch.float32
    torch.testing.assert_close(posterior.mu, model.encode(x).mu, atol=0.02, rtol=0.02)
    assert model.double().encode(x.double()).mu.dtype == torch.float64


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 64, 64), (1, 64, 32), (1, 128, 128)])
def test_images_that_do_not_fit_are_refused_with_what_does(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"image_shape .* 1 or 3 channels and 32x32 or 64x64") as refused:
        build(BetaVAEConfig(), shape)
    assert str(shape) in str(refused.value)
