"""Every model through the one loop: what it minimises, what its curve holds, and that it learns and resumes."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import toy_squares
import xarray as xr

from cvi_widgets import training
from cvi_widgets.config import RunConfig, TrainingConfig
from cvi_widgets.errors import DivergenceError
from cvi_widgets.models.discriminator import discriminator
from cvi_widgets.training import Progress, schedule
from cvi_widgets.training.adversary import Adversary
from cvi_widgets.training.objective import objective

SMALL = {"discriminator_layers": 2, "discriminator_width": 32, "discriminator_learning_rate": 1e-3}
MODELS: dict[str, dict[str, Any]] = {
    "vae": {},
    "beta_tc_vae": {},
    "dip_vae": {},
    "annealed_vae": {"gamma": 5.0, "capacity": 6.0},
    "factor_vae": SMALL,
    "vq_vae": {"network": "slim", "latents": 8, "codes": 32, "ema_decay": 0.9, "restart_below": 0.1},
}


def settings(model: str, **changes: Any) -> RunConfig:
    flat = toy_squares.settings().flat() | {"model": model} | MODELS[model] | changes
    del flat["beta"]
    return RunConfig.of(flat.pop("dataset"), flat.pop("model"), **flat)


def in_loss(model: str, curve: xr.Dataset) -> xr.DataArray:
    """The loss from the other rows of the curve, with the published weights; one row is one batch."""
    weight, kl = curve.kl_weight, curve.kl
    if model == "annealed_vae":
        return curve.reconstruction + 5.0 * abs(kl - curve.capacity)
    if model == "vq_vae":
        return curve.reconstruction + 0.25 * curve.commitment_distance
    penalty = {
        "vae": lambda: 0 * kl,
        "beta_tc_vae": lambda: 5 * curve.total_correlation,
        "dip_vae": lambda: 10 * curve.squared_covariances + 10 * curve.squared_variance_errors,
        "factor_vae": lambda: 40 * curve.total_correlation,
    }[model]()
    return curve.reconstruction + weight * (kl + penalty)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns_and_its_curve_adds_up_to_the_loss(tmp_path: Path, model: str) -> None:
    config = settings(model, images=1_600, kl_warmup=160, checkpoint_seconds=3600.0)
    _, result = toy_squares.run(tmp_path, config)
    curve = result.history
    np.testing.assert_allclose(curve.loss, in_loss(model, curve), rtol=1e-4, atol=1e-3)
    assert curve.loss[-10:].mean() < 0.5 * curve.loss[:5].mean()
    assert curve.reconstruction[-10:].mean() < 0.5 * curve.reconstruction[:5].mean()
    assert all({"long_name", "units"} <= set(v.attrs) for v in curve.variables.values())


def test_dips_penalty_draws_the_covariance_to_the_identity(tmp_path: Path) -> None:
    found = []
    for weight in (0.0, 10.0):
        # The KL's weight is still small at the end, so that the latents are in use and free to vary together.
        plain = settings("dip_vae", images=3_200, kl_warmup=32_000, checkpoint_seconds=3600.0)
        config = RunConfig.of(**plain.flat() | {"lambda_od": weight, "lambda_d": weight})
        found.append(toy_squares.run(tmp_path / str(weight), config)[1].history.isel(step=slice(-20, None)).mean())
    free, drawn = found
    assert free.squared_covariances > 1
    assert drawn.squared_covariances < 0.1 * free.squared_covariances
    assert drawn.squared_variance_errors < 0.1 * free.squared_variance_errors


def test_the_capacity_rises_over_its_share_of_the_budget_and_stays() -> None:
    config = TrainingConfig(images=9_000)
    grown = [schedule.capacity(config, seen, 25.0, 1 / 3) for seen in (0, 600, 3_000, 8_999)]
    assert grown == pytest.approx([0.0, 5.0, 25.0, 25.0])
    assert schedule.capacity(config, 0, 25.0, 0.0) == 25.0


def test_the_discriminator_is_the_papers() -> None:
    network = discriminator(10)
    sizes = [10, *[1000] * 6, 2]
    assert sum(p.numel() for p in network.parameters()) == sum((a + 1) * b for a, b in pairwise(sizes))
    slopes = [m.negative_slope for m in network if isinstance(m, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * 6


def pieces(seed: int = 0) -> tuple[RunConfig, torch.nn.Module, Adversary]:
    config = settings("factor_vae", kl_warmup=0)
    return config, toy_squares.fresh(config), Adversary(config.model, seed, torch.device("cpu"))


def test_no_gradient_passes_between_the_two_players() -> None:
    config, model, adversary = pieces()
    x = torch.rand(16, *toy_squares.Squares.image_shape)
    out = model(x, torch.randn(16, 4))
    terms = objective(config, 256, adversary.judge).terms(out, x, 0)
    terms.loss.backward(retain_graph=True)
    assert all(p.grad is None for p in adversary.network.parameters())
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    weights = [p.detach().clone() for p in adversary.network.parameters()]
    adversary.learn(out.z, model(x, torch.randn(16, 4)).z, torch.rand(16, 4).argsort(0))
    assert all(torch.equal(before[name], p.grad) for name, p in model.named_parameters())
    assert any(not torch.equal(a, b) for a, b in zip(weights, adversary.network.parameters(), strict=True))


def test_the_encoder_feels_the_total_correlation_at_the_full_gamma() -> None:
    # A discriminator's loss that reached the codes would take part of it away.
    _, model, adversary = pieces()
    x, noise = torch.rand(16, *toy_squares.Squares.image_shape), torch.randn(16, 4)
    gradients = []
    for gamma in (0.0, 40.0):
        changed = settings("factor_vae", kl_warmup=0, gamma=gamma)
        model.zero_grad()
        objective(changed, 256, adversary.judge).terms(model(x, noise), x, 0).loss.backward()
        gradients.append(model.latent_mu.weight.grad.clone())
    model.zero_grad()
    z = model(x, noise).z
    judged = adversary.network(z)
    (40 * (judged[:, 0] - judged[:, 1]).mean()).backward()
    torch.testing.assert_close(gradients[1] - gradients[0], model.latent_mu.weight.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_a_trained_discriminator_reads_the_total_correlation_of_gaussian_codes(correlation: float) -> None:
    config = settings("factor_vae", latents=2, discriminator_width=64)
    adversary = Adversary(config.model, 0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)

    def codes(n: int) -> torch.Tensor:
        noise = torch.randn(n, 2, generator=generator)
        return torch.stack([noise[:, 0], correlation * noise[:, 0] + (1 - correlation**2) ** 0.5 * noise[:, 1]], 1)

    for _ in range(600):
        adversary.learn(codes(512), codes(512), torch.rand(512, 2, generator=generator).argsort(0))
    judged = adversary.judge(codes(20_000))
    found = (judged[:, 0] - judged[:, 1]).mean().item()
    assert found == pytest.approx(-0.5 * np.log(1 - correlation**2), abs=0.08)


def test_a_new_discriminator_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (Adversary(settings("factor_vae").model, s, torch.device("cpu")) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [a.network.fc0.weight for a in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_training_of_two_players_that_is_stopped_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    config = settings("factor_vae", images=128)
    model, straight = toy_squares.run(tmp_path / "straight", config)
    stopped: list[Progress] = []

    def press(progress: Progress) -> None:
        stopped.append(progress)
        if len(stopped) == 1:
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):  # at its first step, and at the first after that
        stopped.clear()
        with pytest.raises(KeyboardInterrupt):
            toy_squares.run(tmp_path / "cut", config, press)
    again, resumed = toy_squares.run(tmp_path / "cut", config)
    assert all(torch.equal(again.state_dict()[name], t) for name, t in model.state_dict().items())
    for name in straight.history.variables:
        np.testing.assert_array_equal(resumed.history[name], straight.history[name])
    ends = [sorted((tmp_path / run / "checkpoint").glob("*.safetensors"))[-1] for run in ("straight", "cut")]
    first, second = (safetensors.torch.load_file(end) for end in ends)
    rival = [name for name in first if name.startswith("discriminator.")]
    assert len(rival) == 4 * 2 * 3  # weights, three numbers of Adam's, of three layers' weight and bias
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_a_codebook_goes_on_with_the_same_bits(tmp_path: Path, codebook: str) -> None:
    config = settings("vq_vae", images=128, codebook=codebook, restart_below=0.5)
    model, straight = toy_squares.run(tmp_path / "straight", config)
    begun: list[Progress] = []

    def press(progress: Progress) -> None:
        begun.append(progress)
        if len(begun) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        toy_squares.run(tmp_path / "cut", config, press)
    again, resumed = toy_squares.run(tmp_path / "cut", config)
    fresh = toy_squares.fresh(config).state_dict()
    assert {"codebook", "usage", "total"} <= set(fresh)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
        assert not torch.equal(fresh[name], tensor), name
    np.testing.assert_array_equal(resumed.history.loss, straight.history.loss)


def test_codes_that_start_anew_are_used_more(tmp_path: Path) -> None:
    found = []
    for below in (0.0, 0.1):
        config = settings("vq_vae", images=1_600, restart_below=below, checkpoint_seconds=3600.0)
        found.append(float(toy_squares.run(tmp_path / str(below), config)[1].history.perplexity[-20:].mean()))
    assert found[1] > 1.2 * found[0] >= 1.2
    assert found[1] <= 32


def test_held_out_figures_of_a_discrete_model_are_those_of_its_codes() -> None:
    config, data = settings("vq_vae"), toy_squares.Squares()
    model = toy_squares.fresh(config)
    found = training.evaluate(model, data, np.arange(5), batch_size=2)
    x = torch.from_numpy(data.images(np.arange(5), "float32"))
    with torch.no_grad():
        out = model(x)
        nats = torch.nn.functional.binary_cross_entropy_with_logits(out.logits, x, reduction="none").sum((1, 2, 3))
    np.testing.assert_allclose(found.reconstruction, nats, rtol=1e-5)
    np.testing.assert_array_equal(found.reconstruction_at_mean, found.reconstruction)
    np.testing.assert_allclose(found.mu, out.z.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.kl.sum(1), 16 * np.log(32), rtol=1e-5)


def test_a_diverging_discriminator_is_named(tmp_path: Path) -> None:
    config = settings("factor_vae", gamma=0.0, discriminator_learning_rate=1e30)
    with pytest.raises(DivergenceError, match="discriminator"):
        toy_squares.run(tmp_path, config)


@pytest.mark.parametrize("model", ["beta_tc_vae", "factor_vae"])
def test_a_last_batch_of_one_image_trains(tmp_path: Path, model: str) -> None:
    _, result = toy_squares.run(tmp_path, settings(model, images=17))
    assert result.history.images.values.tolist() == [16, 17]
    assert np.isfinite(result.history.loss).all()
