"""DIP-VAE's covariance, the annealed VAE's capacity, FactorVAE's density ratio and its permuted codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cvi_widgets.objectives import (
    annealed_vae,
    beta_vae,
    code_covariance,
    dip_vae,
    discriminator_loss,
    factor_vae,
    permute_dims,
    total_correlation,
)


def batch(seed: int, n: int = 6, latents: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, x = torch.randn(n, 3, 4, 4, generator=generator), torch.rand(n, 3, 4, 4, generator=generator)
    return logits, torch.randn(n, latents, generator=generator), torch.randn(n, latents, generator=generator), x


@given(st.integers(0, 10_000))
def test_the_codes_covariance_is_numpys(seed: int) -> None:
    _, mu, logvar, _ = batch(seed)
    of_means = np.cov(mu.double().numpy(), rowvar=False, bias=True)
    np.testing.assert_allclose(code_covariance(mu, logvar, "i"), of_means, atol=1e-5)
    expected = of_means + np.diag(np.exp(logvar.double().numpy()).mean(0))
    np.testing.assert_allclose(code_covariance(mu, logvar, "ii"), expected, atol=1e-4)


def test_variant_two_is_the_covariance_of_sampled_codes() -> None:
    _, mu, logvar, _ = batch(1, n=40)
    draws = torch.randn(4000, 40, 3, generator=torch.Generator().manual_seed(2))
    z = (mu + (logvar / 2).exp() * draws).reshape(-1, 3)
    sampled = np.cov(z.numpy(), rowvar=False, bias=True)
    np.testing.assert_allclose(code_covariance(mu, logvar, "ii"), sampled, atol=0.05)


@pytest.mark.parametrize("variant", ["i", "ii"])
def test_dip_penalises_covariances_and_variances_other_than_one(variant: str) -> None:
    logits, mu, logvar, x = batch(3)
    plain = beta_vae(logits, mu, logvar, x, beta=1.0)
    terms = dip_vae(logits, mu, logvar, x, lambda_od=10.0, lambda_d=7.0, variant=variant, weight=0.5)
    covariance = code_covariance(mu, logvar, variant).tolist()
    off = sum(covariance[i][j] ** 2 for i in range(3) for j in range(3) if i != j)
    on = sum((covariance[i][i] - 1) ** 2 for i in range(3))
    assert terms.extras["squared_covariances"].item() == pytest.approx(off, rel=1e-4)
    assert terms.extras["squared_variance_errors"].item() == pytest.approx(on, rel=1e-4)
    assert terms.loss.item() == pytest.approx((plain.reconstruction + 0.5 * (plain.kl + 10 * off + 7 * on)).item())


def test_white_codes_cost_nothing_and_their_rotation_neither() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    turn = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    logits, x = torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2)
    for mu in (corners, corners @ turn):
        extras = dip_vae(logits, mu, torch.zeros(4, 2), x, lambda_od=1.0, lambda_d=1.0, variant="i").extras
        assert [v.item() for v in extras.values()] == pytest.approx([0.0, 0.0], abs=1e-10)


@pytest.mark.parametrize(("capacity", "sign"), [(0.0, 1.0), (1e4, -1.0)])
def test_annealing_draws_the_kl_to_the_capacity_from_either_side(capacity: float, sign: float) -> None:
    logits, mu, logvar, x = batch(4)
    mu.requires_grad_()
    terms = annealed_vae(logits, mu, logvar, x, gamma=1000.0, capacity=capacity)
    plain = beta_vae(logits, mu, logvar, x, beta=1.0)
    expected = plain.reconstruction + 1000 * abs(plain.kl - capacity)
    torch.testing.assert_close(terms.loss, expected)
    (pull,) = torch.autograd.grad(terms.loss, mu)
    torch.testing.assert_close(pull, sign * 1000 * mu.detach() / len(mu))


def test_the_density_ratio_of_two_logits_is_their_difference() -> None:
    judged = torch.tensor([[2.0, -1.0], [0.5, 1.0]])
    assert total_correlation(judged).item() == pytest.approx((3.0 - 0.5) / 2)
    logits, mu, logvar, x = batch(5)
    plain = beta_vae(logits, mu, logvar, x, beta=1.0)
    terms = factor_vae(logits, mu, logvar, judged, x, gamma=40.0, weight=0.25)
    torch.testing.assert_close(terms.loss, plain.reconstruction + 0.25 * (plain.kl + 40 * 1.25))


def test_the_discriminators_loss_is_two_halves_of_cross_entropy() -> None:
    assert discriminator_loss(torch.zeros(5, 2), torch.zeros(3, 2)).item() == pytest.approx(math.log(2))
    real, permuted = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0], [0.0, -3.0]])
    first = math.log(1 + math.exp(-1))
    second = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(3))) / 2
    assert discriminator_loss(real, permuted).item() == pytest.approx((first + second) / 2)


def test_the_best_discriminator_of_gaussian_codes_reads_their_total_correlation() -> None:
    # At the optimum the logits differ by log q(z) - sum_j log q(z_j); for correlation r its mean is -log(1 - r^2) / 2.
    r, n = 0.8, 200_000
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    z = torch.stack([noise[:, 0], r * noise[:, 0] + math.sqrt(1 - r * r) * noise[:, 1]], 1)
    joint = -0.5 * ((z.square().sum(1) - 2 * r * z.prod(1)) / (1 - r * r)) - 0.5 * math.log(1 - r * r)
    judged = torch.stack([joint, -0.5 * z.square().sum(1)], 1)
    assert total_correlation(judged).item() == pytest.approx(-0.5 * math.log(1 - r * r), abs=0.01)


def test_permuting_keeps_each_column_and_breaks_what_ties_them() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(5000, 1, generator=generator).repeat(1, 3) * torch.tensor([1.0, 2.0, -1.0])
    permuted = permute_dims(z, torch.rand(z.shape, generator=generator).argsort(0))
    torch.testing.assert_close(permuted.sort(0).values, z.sort(0).values, rtol=0, atol=0)
    between = torch.corrcoef(permuted.T) - torch.eye(3)
    assert torch.corrcoef(z.T).abs().min() > 0.999 and between.abs().max() < 0.06
