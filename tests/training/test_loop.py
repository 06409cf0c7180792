"""What a training does: its steps against a plain loop, its curve, its budgets and its failures."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_squares
from torch.nn import functional
from toy_squares import Squares, fresh, settings

from cvi_widgets import training
from cvi_widgets.data.protocol import Split
from cvi_widgets.errors import DataError, DivergenceError
from cvi_widgets.training import Progress
from cvi_widgets.training.batches import Order
from cvi_widgets.training.loop import _seed


def test_the_loop_takes_the_steps_of_a_plain_one(tmp_path: Path) -> None:
    config = settings(images=96, lr_warmup=0, lr_decay=0.0, kl_warmup=0, network="paper", learning_rate=1e-4)
    model, result = toy_squares.run(tmp_path, config)

    data, twin = Squares(), fresh(config)
    order = Order(data.split(32, 0).train, 0)
    noise = torch.Generator().manual_seed(_seed(0))
    optimiser = torch.optim.Adam(twin.parameters(), lr=1e-4)
    losses = []
    for seen in range(0, 96, 16):
        x = torch.from_numpy(data.images(order.take(seen, 16), "float32"))
        mu, logvar = twin.encode(x)
        logits = twin.decode_logits(mu + (logvar / 2).exp() * torch.randn(16, 4, generator=noise))
        nats = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 16
        loss = nats + 4 * 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / 16
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-4)
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-3, atol=2e-5, msg=name)


def test_training_learns_and_its_curve_says_what_each_row_means(tmp_path: Path) -> None:
    config = settings(images=3_200, checkpoint_seconds=3600.0)
    model, result = toy_squares.run(tmp_path, config)
    curve = result.history
    assert curve.loss[-10:].mean() < 0.5 * curve.loss[:10].mean()
    assert len(curve.step) == 200
    np.testing.assert_array_equal(curve.images, np.arange(1, 201) * 16)
    np.testing.assert_array_equal(curve.step, np.arange(1, 201))
    np.testing.assert_allclose(curve.loss, curve.reconstruction + curve.kl_weight * curve.kl, rtol=1e-5)
    np.testing.assert_allclose(curve.kl_latent.sum("latent"), curve.kl, rtol=1e-5)
    assert curve.kl_weight[0] == pytest.approx(4 * 0.0) and curve.kl_weight[-1] == 4
    assert curve.learning_rate.max() == pytest.approx(2e-3) and curve.learning_rate[-1] < 1e-4
    assert all({"long_name", "units"} <= set(v.attrs) for v in curve.variables.values())
    assert curve.attrs["images"] == result.images == 3_200
    assert curve.attrs["stopped"] == result.stopped == "images"
    assert result.images_per_second == pytest.approx(3_200 / result.seconds)

    data = Squares()
    held_out = training.evaluate(model, data, data.split(32, 0).test).reconstruction.mean()
    blank = 1024 * 0.0317 * (1 - np.log(0.0317))  # nats of knowing only how many pixels are on
    assert held_out < 0.7 * blank


def test_the_last_batch_ends_exactly_on_the_budget(tmp_path: Path) -> None:
    _, result = toy_squares.run(tmp_path, settings(images=50))
    assert result.history.images.values.tolist() == [16, 32, 48, 50]


def test_a_budget_in_seconds_ends_training_and_says_so(tmp_path: Path) -> None:
    config = settings(images=10_000_000, seconds=0.2, checkpoint_seconds=3600.0)
    _, result = toy_squares.run(tmp_path, config)
    assert result.stopped == result.history.attrs["stopped"] == "seconds"
    assert result.seconds >= 0.2 and 0 < result.images < 10_000_000
    again = toy_squares.run(tmp_path, config)[1]
    assert (again.images, again.seconds) == (result.images, result.seconds)


def test_bfloat16_follows_float32_and_repeats_its_bits(tmp_path: Path) -> None:
    full = toy_squares.run(tmp_path / "full", settings(checkpoint_seconds=3600.0))[1]
    half = settings(precision="bfloat16", checkpoint_seconds=3600.0)
    first = toy_squares.run(tmp_path / "first", half)[1]
    again = toy_squares.run(tmp_path / "again", half)[1]
    np.testing.assert_array_equal(first.history.loss, again.history.loss)
    np.testing.assert_allclose(first.history.loss, full.history.loss, rtol=0.1)
    assert (first.history.loss != full.history.loss).any()


def test_divergence_names_step_and_term_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        DivergenceError, match=r"diverged at step \d+ after \d+ images: .*(term is|not finite)"
    ) as error:
        toy_squares.run(tmp_path, settings(learning_rate=1e15, lr_warmup=0))
    kept = re.search(r"last good checkpoint is '(.*?)'", str(error.value))
    assert kept, str(error.value)
    weights = fresh(settings())
    tensors = training.state._read(Path(kept[1]))[1]
    assert all(torch.isfinite(tensors[f"model.{name}"]).all() for name in weights.state_dict())


def test_divergence_before_any_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    data, config = Squares(), settings()
    model = fresh(config)
    torch.nn.init.constant_(model.latent_logvar.bias, 200.0)
    with pytest.raises(DivergenceError, match=r"step 0 after 0 images: the reconstruction term is .*no checkpoint had"):
        training.train(model, config, data, data.split(32, 0), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_split_without_training_images_is_refused(tmp_path: Path) -> None:
    config, nothing = settings(), np.arange(0)
    with pytest.raises(DataError, match="'squares' leaves no image to train on"):
        training.train(fresh(config), config, Squares(), Split(nothing, np.arange(288)), tmp_path)


def test_progress_says_where_training_stands_and_ends_at_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    _, result = toy_squares.run(tmp_path, settings(), seen.append)
    assert seen[0].images == 16 and seen[0].total == 310 and seen[0].seconds_left > 0
    assert (seen[-1].images, seen[-1].seconds_left) == (310, 0.0)
    assert set(seen[-1].terms) == {"loss", "reconstruction", "kl"}
    assert seen[-1].images_per_second > 0
    # The first value of a moving average is the first value, not a fraction of it.
    assert seen[0].terms["loss"] == pytest.approx(float(result.history.loss[0]))


def test_the_bar_shows_rate_and_time_left_and_starts_where_a_resumed_training_stands(tmp_path: Path) -> None:
    out = io.StringIO()
    with training.tqdm_progress(file=out, mininterval=0, ncols=120) as show:
        show(Progress(100, 1000, 50.0, 18.0, {"loss": 80.0}))
        show(Progress(300, 1000, 50.0, 14.0, {"loss": 70.0}))
    last = out.getvalue().split("\r")[-1]
    assert "30%" in last and "300/1.00k" in last and "img/s" in last and "loss=70.0" in last
    assert out.getvalue().endswith("\n")
    assert " 10%" in out.getvalue() and " 0%" not in out.getvalue()
