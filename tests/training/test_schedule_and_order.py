"""Schedules by value; the order of images as a function of nothing but the seed and the number seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toy_squares
from hypothesis import given
from hypothesis import strategies as st

from cvi_widgets.config import TrainingConfig
from cvi_widgets.training.batches import Order, _Resident, fetcher
from cvi_widgets.training.schedule import kl_weight, learning_rate

TRAIN = np.arange(100, 137)


@pytest.mark.parametrize(("seen", "rate"), [(0, 0.1), (400, 0.5), (900, 1.0), (5000, 1.0), (9000, 0.5), (9900, 0.05)])
def test_the_learning_rate_rises_stays_and_falls(seen: int, rate: float) -> None:
    config = TrainingConfig(images=10_000, batch_size=100, learning_rate=1.0, lr_warmup=1000, lr_decay=0.2)
    assert learning_rate(config, seen) == pytest.approx(rate)


def test_without_warm_up_and_decay_both_are_constant() -> None:
    config = TrainingConfig(images=10_000, learning_rate=3e-4, lr_warmup=0, lr_decay=0.0, kl_warmup=0)
    assert {learning_rate(config, seen) for seen in (0, 64, 9_999)} == {3e-4}
    assert {kl_weight(config, seen, 4.0) for seen in (0, 64, 9_999)} == {4.0}


def test_the_kl_weight_rises_from_zero_to_beta_and_stays() -> None:
    config = TrainingConfig(kl_warmup=1000)
    assert [kl_weight(config, seen, 4.0) for seen in (0, 250, 1000, 50_000)] == [0.0, 1.0, 4.0, 4.0]


@given(seen=st.integers(0, 200), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_the_order_does_not_depend_on_how_it_is_cut_or_where_one_starts(seen: int, sizes: list[int], seed: int) -> None:
    whole = Order(TRAIN, seed).take(0, seen + sum(sizes))[seen:]
    order, at, parts = Order(TRAIN, seed), seen, []
    for size in sizes:
        parts.append(order.take(at, size))
        at += size
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    first, second = Order(TRAIN, 0).take(0, 2 * len(TRAIN)).reshape(2, -1)
    assert set(first) == set(second) == set(TRAIN)
    assert (first != second).any()
    assert (Order(TRAIN, 1).take(0, len(TRAIN)) != first).any()


def test_batches_are_the_images_of_their_indices_from_data_and_from_bits_on_a_device() -> None:
    data = toy_squares.Squares()
    index = np.array([7, 3, 250, 7])
    expected = torch.from_numpy(data.images(index, "float32"))
    assert torch.equal(fetcher(data, np.arange(288), torch.device("cpu"))(index), expected)
    assert torch.equal(_Resident(data, torch.device("cpu"))(index), expected)
