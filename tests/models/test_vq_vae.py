"""The discrete model: cells, nearest codes, the straight-through gradient, and what `wrap` sees of it."""

from __future__ import annotations

import pytest
import torch

import cvi_widgets as cvi
from cvi_widgets.config import VQVAEConfig
from cvi_widgets.models import NETWORKS, VQVAE, build


def made(**settings: object) -> VQVAE:
    torch.manual_seed(0)
    shape = settings.pop("shape", (1, 32, 32))
    model = build(VQVAEConfig(**{"latents": 6, "codes": 20, **settings}), shape)
    assert isinstance(model, VQVAE)
    return model


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 32, 32)])
def test_every_network_makes_a_map_of_codes_and_images_of_it(network: str, shape: tuple[int, int, int]) -> None:
    side = shape[1] // {"paper": 8, "slim": 8, "dlib": 16}[network]
    model = made(network=network, shape=shape)
    out = model(torch.rand(3, *shape))
    assert out.mu.shape == out.z.shape == (3, 6, side, side)
    assert out.codes.shape == (3, 1, side, side) and out.codes.dtype == torch.int64
    assert out.logits.shape == (3, *shape)
    torch.testing.assert_close(model.decode(out.z), torch.sigmoid(out.logits))


def test_each_cell_gets_the_nearest_entry() -> None:
    model = made()
    mu = 0.05 * torch.randn(2, 6, 4, 4)
    codes = model.quantise(mu)
    distance = torch.cdist(mu.movedim(1, -1).reshape(-1, 6), model.codebook)
    assert torch.equal(codes.flatten(), distance.argmin(1))
    assert torch.equal(model.quantise(model.lookup(codes)), codes)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_the_encoder_gets_the_gradient_of_what_left_the_quantiser(codebook: str) -> None:
    model = made(codebook=codebook)
    x = torch.rand(2, 1, 32, 32)
    out = model(x)
    out.mu.retain_grad()
    out.logits.square().sum().backward()
    z = out.z.detach().requires_grad_()
    model.decode_logits(z).square().sum().backward()
    torch.testing.assert_close(out.mu.grad, z.grad)
    assert isinstance(model.codebook, torch.nn.Parameter) == (codebook == "loss")
    assert model.codebook.grad is None


def test_wrapped_it_is_discrete_and_exchanging_codes_changes_the_picture() -> None:
    model = made()
    with torch.no_grad():
        model.codebook.normal_()
        model.latent_mu.weight.mul_(30)
    wrapped = cvi.wrap(model.eval(), quantise="quantise", lookup="lookup")
    assert wrapped.discrete and wrapped.n_codes == 20
    x = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    codes = model.quantise(model.encode(x))
    torch.testing.assert_close(wrapped.decode_codes(codes), model.decode(model.lookup(codes)), atol=1e-5, rtol=1e-5)
    other = (codes + 1) % 20
    assert (wrapped.decode_codes(other) - wrapped.decode_codes(codes)).abs().mean() > 1e-4
