"""Loss terms against closed forms, torch.distributions and exact arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from cvi_widgets.objectives import bernoulli_nats, beta_vae, gaussian_nats, kl_standard_normal

finite = st.floats(-6, 6, width=32)


def images(seed: int, n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(n, 1, 5, 7, generator=generator)
    return logits, (torch.rand(logits.shape, generator=generator) > 0.5).float()


def test_an_undecided_pixel_costs_log_2() -> None:
    x = torch.ones(2, 1, 4, 4)
    torch.testing.assert_close(bernoulli_nats(torch.zeros_like(x), x), torch.full((2,), 16 * math.log(2)))


@given(st.integers(0, 10_000))
def test_bernoulli_is_the_distributions_log_probability(seed: int) -> None:
    logits, x = images(seed)
    expected = -Independent(Bernoulli(logits=logits), 3).log_prob(x)
    torch.testing.assert_close(bernoulli_nats(logits, x), expected)


def test_bernoulli_is_exact_where_the_probability_rounds_to_one() -> None:
    logits = torch.tensor([200.0, -200.0, 200.0]).reshape(3, 1, 1, 1)
    x = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1, 1)
    assert bernoulli_nats(logits, x).tolist() == [0.0, 0.0, 200.0]


@given(st.integers(0, 10_000))
def test_gaussian_is_the_unit_normals_log_density(seed: int) -> None:
    logits, x = images(seed)
    expected = -Independent(Normal(torch.sigmoid(logits), 1.0), 3).log_prob(x)
    torch.testing.assert_close(gaussian_nats(logits, x), expected)


@given(finite, finite)
def test_kl_is_that_of_the_distributions(mu: float, logvar: float) -> None:
    m, v = torch.tensor([[mu]], dtype=torch.float64), torch.tensor([[logvar]], dtype=torch.float64)
    expected = kl_divergence(Normal(m, torch.exp(v / 2)), Normal(0.0, 1.0)).float()
    torch.testing.assert_close(kl_standard_normal(m, v), expected, rtol=1e-5, atol=1e-6)


def test_kl_of_a_nearly_unused_latent_keeps_its_digits() -> None:
    tiny = 1e-4
    kl = kl_standard_normal(torch.zeros(1, 1), torch.full((1, 1), tiny))
    # exp(t) - 1 - t = t^2/2 + t^3/6 + ...: 2.5e-9 after halving; float32 differences of exp would give 0 or 1e-8
    assert kl.item() == pytest.approx(tiny**2 / 4, rel=0.02, abs=1e-12)


def test_loss_is_the_batch_mean_of_reconstruction_plus_beta_times_kl() -> None:
    logits, x = images(1)
    mu, logvar = torch.randn(3, 4), torch.randn(3, 4)
    terms = beta_vae(logits, mu, logvar, x, beta=4.0)
    nats = [bernoulli_nats(logits[i : i + 1], x[i : i + 1]).item() for i in range(3)]
    kl = [kl_standard_normal(mu[i : i + 1], logvar[i : i + 1]).sum().item() for i in range(3)]
    assert terms.reconstruction.item() == pytest.approx(sum(nats) / 3, rel=1e-5)
    assert terms.kl.item() == pytest.approx(sum(kl) / 3, rel=1e-5)
    assert terms.loss.item() == pytest.approx(sum(nats) / 3 + 4 * sum(kl) / 3, rel=1e-5)
    torch.testing.assert_close(terms.kl_latent.sum(), terms.kl)


def test_beta_1_is_the_negative_elbo_and_beta_0_an_autoencoder() -> None:
    logits, x = images(2)
    mu, logvar = torch.randn(3, 4), torch.randn(3, 4)
    vae = beta_vae(logits, mu, logvar, x, beta=1.0)
    torch.testing.assert_close(vae.loss, vae.reconstruction + vae.kl)
    plain = beta_vae(logits, mu, logvar, x, beta=0.0, reconstruction="gaussian")
    torch.testing.assert_close(plain.loss, gaussian_nats(logits, x).mean())


def test_half_precision_logits_are_summed_in_full_precision() -> None:
    logits, x = torch.full((2, 1, 64, 64), -3.0), torch.zeros(2, 1, 64, 64)
    nats = bernoulli_nats(logits.bfloat16(), x)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, bernoulli_nats(logits, x))
