"""Held-out figures against a slow twin; weights that come back, or are refused in a sentence; device and memory."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_squares
from torch.distributions import Bernoulli, Normal, kl_divergence

from cvi_widgets import training
from cvi_widgets.errors import ConfigError, StoreError

DATA, CONFIG = toy_squares.Squares(), toy_squares.settings()


def test_evaluation_is_that_of_one_image_after_the_other() -> None:
    model = toy_squares.fresh(CONFIG)
    index = np.array([5, 200, 17, 9, 280])
    got = training.evaluate(model, DATA, index, seed=3)
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    for i, one in enumerate(index):
        x = torch.from_numpy(DATA.images(np.array([one]), "float32"))
        with torch.no_grad():
            mu, logvar = model.encode(x)
            posterior = Normal(mu, torch.exp(logvar / 2))
            z = posterior.loc + posterior.scale * noise[i]
            sampled = -Bernoulli(logits=model.decode_logits(z)).log_prob(x).sum().item()
            at_mean = -Bernoulli(logits=model.decode_logits(mu)).log_prob(x).sum().item()
        assert got.reconstruction[i] == pytest.approx(sampled, rel=1e-5)
        assert got.reconstruction_at_mean[i] == pytest.approx(at_mean, rel=1e-5)
        np.testing.assert_allclose(got.kl[i], kl_divergence(posterior, Normal(0.0, 1.0))[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(got.mu[i], mu[0], atol=1e-6)
        np.testing.assert_allclose(got.logvar[i], logvar[0], atol=1e-6)


def test_the_drawn_z_depends_on_the_seed_and_not_on_the_batch_size() -> None:
    model, index = toy_squares.fresh(CONFIG), np.arange(20)
    whole = training.evaluate(model, DATA, index)
    pieces = training.evaluate(model, DATA, index, batch_size=7)
    np.testing.assert_allclose(pieces.reconstruction, whole.reconstruction, rtol=1e-5)
    other = training.evaluate(model, DATA, index, seed=1)
    assert (other.reconstruction != whole.reconstruction).all()
    np.testing.assert_array_equal(other.reconstruction_at_mean, whole.reconstruction_at_mean)


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model = toy_squares.fresh(CONFIG).to(memory_format=torch.channels_last)
    training.save_weights(model, tmp_path / "model.safetensors")
    other = toy_squares.fresh(toy_squares.settings(seed=1))
    training.load_weights(other, tmp_path / "model.safetensors")
    assert all(torch.equal(other.state_dict()[name], t) for name, t in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\x04pickle", "cannot be read"),
        ("cut", "cannot be read"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: bytes | str | None, sentence: str) -> None:
    path = tmp_path / "model.safetensors"
    if content == "cut":
        training.save_weights(toy_squares.fresh(CONFIG), path)
        content = path.read_bytes()[:-10]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(StoreError, match=sentence) as refused:
        training.load_weights(toy_squares.fresh(CONFIG), path)
    assert "model.safetensors" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [({"latents": 5}, r"tensor 'latent_mu.weight' of shape"), ({"network": "paper"}, r"(lacks|has an extra) tensor")],
)
def test_weights_of_another_architecture_are_refused_and_change_nothing(
    tmp_path: Path, other: dict[str, object], sentence: str
) -> None:
    path = tmp_path / "model.safetensors"
    training.save_weights(toy_squares.fresh(toy_squares.settings(**other)), path)
    model = toy_squares.fresh(CONFIG)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(StoreError, match=sentence):
        training.load_weights(model, path)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


def test_the_device_is_what_was_asked_for_or_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.resolve_device(toy_squares.settings(device="auto")).type == "cpu"
    with pytest.raises(ConfigError, match="device 'cuda' is not available here; allowed are auto and cpu"):
        training.resolve_device(toy_squares.settings(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kinds = {name: training.resolve_device(toy_squares.settings(device=name)).type for name in ("auto", "cpu", "cuda")}
    assert kinds == {"auto": "cuda", "cpu": "cpu", "cuda": "cuda"}


def test_threads_are_set_when_given_and_left_when_not() -> None:
    before = torch.get_num_threads()
    assert training.use_threads(None) == before
    assert training.use_threads(1) == torch.get_num_threads() == 1
    training.use_threads(before)


def test_large_buffers_are_kept_on_glibc_and_nothing_is_asked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = training.keep_large_buffers.__wrapped__
    assert keep() is (platform.system() == "Linux" and platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert keep() is False
