"""beta-TC-VAE's decomposition: weights by arithmetic, sums against a double loop, values of known distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from cvi_widgets.objectives import beta_tc_vae, beta_vae, decompose, kl_standard_normal, stratified_log_weights


def posterior(seed: int, n: int, latents: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mu, logvar, noise = (torch.randn(n, latents, generator=generator) for _ in range(3))
    return mu, logvar, mu + (logvar / 2).exp() * noise


@given(n=st.integers(1, 40), more=st.integers(0, 10_000))
def test_the_stratified_weights_of_each_code_sum_to_one(n: int, more: int) -> None:
    weights = stratified_log_weights(n, n + more).double().exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(n, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (weights >= 0).all()


def test_a_codes_own_image_weighs_what_one_image_of_all_does() -> None:
    weights = stratified_log_weights(6, 1000).exp()
    torch.testing.assert_close(weights.diagonal(), torch.full((6,), 0.001))
    one_other = (1000 - 5) / (1000 * 5)
    for i in range(6):
        others = sorted(weights[i, [j for j in range(6) if j != i]].tolist())
        assert others == pytest.approx([one_other, 0.2, 0.2, 0.2, 0.2], rel=1e-5)
    # Every image is the one other of exactly one code, so that columns sum to 1 as well.
    torch.testing.assert_close(weights.sum(0), torch.ones(6))


@pytest.mark.parametrize("n", [20, 8])
def test_a_batch_of_all_images_or_more_gives_them_all_the_same_weight(n: int) -> None:
    weights = stratified_log_weights(n, 8).exp() if n > 8 else stratified_log_weights(n, n).exp()
    assert weights.diagonal().tolist() == pytest.approx([1 / n] * n, rel=1e-5)
    assert weights.min().item() == pytest.approx(1 / (n * (n - 1)), rel=1e-5)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_parts_are_those_of_a_loop_over_codes_images_and_latents(estimator: str) -> None:
    n, latents, images = 5, 3, 100
    mu, logvar, z = posterior(1, n, latents)
    q = [[[Normal(mu[j, k], (logvar[j, k] / 2).exp()).log_prob(z[i, k]).exp().item() for k in range(latents)]
          for j in range(n)] for i in range(n)]  # fmt: skip
    weights = stratified_log_weights(n, images).exp().tolist()
    if estimator == "weighted":
        weights = [[1 / (n * images)] * n for _ in range(n)]
    information = correlation = dimension = 0.0
    for i in range(n):
        given_x = math.log(math.prod(q[i][i]))
        joint = math.log(sum(weights[i][j] * math.prod(q[i][j]) for j in range(n)))
        marginals = sum(math.log(sum(weights[i][j] * q[i][j][k] for j in range(n))) for k in range(latents))
        prior = Normal(0.0, 1.0).log_prob(z[i]).sum().item()
        information += (given_x - joint) / n
        correlation += (joint - marginals) / n
        dimension += (marginals - prior) / n
    got = decompose(mu, logvar, z, images, estimator)
    assert [part.item() for part in got] == pytest.approx([information, correlation, dimension], rel=1e-4)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_parts_sum_to_the_kl(estimator: str) -> None:
    # At one draw to log q(z|x) - log p(z) of this very draw, and over many draws to the KL itself.
    mu, logvar, z = posterior(2, 64, 4)
    parts = decompose(mu, logvar, z, 10_000, estimator)
    drawn = (Normal(mu, (logvar / 2).exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1).mean()
    torch.testing.assert_close(sum(parts), drawn, rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    sums = [sum(decompose(mu, logvar, mu + (logvar / 2).exp() * torch.randn(64, 4), 10_000, estimator))
            for _ in range(200)]  # fmt: skip
    kl = kl_standard_normal(mu, logvar).sum(1).mean()
    assert torch.stack(sums).mean().item() == pytest.approx(kl.item(), rel=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_the_total_correlation_of_a_gaussian_is_found(correlation: float) -> None:
    # q(z) = N(0, [[1, r], [r, 1]]), made as means of N(0, that - 0.2^2 I) with posterior deviation 0.2.
    n, sd = 3000, 0.2
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]]) - sd**2 * torch.eye(2)
    generator = torch.Generator().manual_seed(3)
    mu = torch.randn(n, 2, generator=generator) @ torch.linalg.cholesky(covariance).T
    z = mu + sd * torch.randn(n, 2, generator=generator)
    found = decompose(mu, torch.full_like(mu, 2 * math.log(sd)), z, n).total_correlation.item()
    assert found == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.05)


def test_of_small_batches_the_stratified_estimate_is_the_closer_one() -> None:
    # Independent latents, 64 of 100,000 images: the truth is 0; the weighted estimate is high by about log N.
    mu, logvar, z = posterior(4, 64, 2)
    mu, logvar, z = 0.3 * mu, torch.zeros_like(mu), 0.3 * mu + (z - mu) / (logvar / 2).exp()
    stratified = decompose(mu, logvar, z, 100_000, "stratified").total_correlation.item()
    weighted = decompose(mu, logvar, z, 100_000, "weighted").total_correlation.item()
    assert abs(stratified) < 0.1
    assert weighted == pytest.approx(math.log(100_000), abs=0.5)


def test_the_loss_is_the_elbo_plus_the_weighted_excess_of_total_correlation() -> None:
    mu, logvar, z = posterior(5, 8, 4)
    generator = torch.Generator().manual_seed(6)
    logits, x = torch.randn(8, 3, 4, 4, generator=generator), torch.rand(8, 3, 4, 4, generator=generator)
    plain = beta_vae(logits, mu, logvar, x, beta=1.0)
    one = beta_tc_vae(logits, mu, logvar, z, x, beta=1.0, images=500)
    torch.testing.assert_close(one.loss, plain.loss)
    six = beta_tc_vae(logits, mu, logvar, z, x, beta=6.0, images=500, weight=0.5)
    correlation = decompose(mu, logvar, z, 500).total_correlation
    torch.testing.assert_close(six.extras["total_correlation"], correlation)
    torch.testing.assert_close(six.loss, plain.reconstruction + 0.5 * (plain.kl + 5 * correlation))


def test_a_batch_of_one_has_no_total_correlation() -> None:
    parts = decompose(*posterior(7, 1, 3), 1000)
    assert parts.total_correlation.item() == pytest.approx(0.0, abs=1e-5)
    assert parts.mutual_information.item() == pytest.approx(0.0, abs=1e-5)
