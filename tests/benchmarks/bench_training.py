"""Training speed: images per second, the share of the data path, and a plain loop beside it.

    python tests/benchmarks/bench_training.py [--network paper] [--images 3200] [--threads 2]

CPU-seconds are printed beside wall-clock, since they hold on a busy machine. The three variants are interleaved and the
best of the rounds counts; nothing is asserted here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from cvi_widgets import data, training
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import FactorData, Split
from cvi_widgets.models import build
from cvi_widgets.training.batches import Order


def plain_loop(config: RunConfig, images: FactorData, split: Split) -> None:
    """The shortest correct loop: Adam, contiguous float32, uint8 images in memory, no checkpoint, no history."""
    torch.manual_seed(config.seed)
    model = build(config.model, images.image_shape)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate)
    memory = torch.from_numpy(images.images(split.train[: config.training.images]))
    for batch in torch.randperm(len(memory)).split(config.training.batch_size):
        x = memory[batch].float()
        mu, logvar = model.encode(x)
        logits = model.decode_logits(mu + torch.exp(logvar / 2) * torch.randn_like(mu))
        nats = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        loss = nats + 4 * 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def our_loop(config: RunConfig, images: FactorData, split: Split) -> None:
    """`training.train` with all that it does."""
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        training.train(build(config.model, images.image_shape), config, images, split, Path(folder), lambda _: None)


def data_path(config: RunConfig, images: FactorData, split: Split) -> None:
    """Order and images of every batch, and nothing else."""
    order, size = Order(split.train, config.seed), config.training.batch_size
    for seen in range(0, config.training.images, size):
        torch.from_numpy(images.images(order.take(seen, size), "float32"))


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", default=None)
    options.add_argument("--images", type=int, default=3200)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--precision", default=None)
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    chosen = {k: v for k, v in vars(given).items() if k != "rounds" and v is not None}
    config = RunConfig.of("dsprites", "beta_vae", device="cpu", **chosen)
    images = data.load("dsprites")
    split = images.split(config.training.test_images, config.seed)
    training.use_threads(given.threads)
    variants: dict[str, Callable[[RunConfig, FactorData, Split], None]] = {
        "plain loop": plain_loop,
        "training.train": our_loop,
        "data path alone": data_path,
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(given.rounds):
        for name, variant in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            variant(config, images, split)
            taken = (time.process_time() - cpu, time.perf_counter() - wall)
            best[name] = min(best.get(name, taken), taken)
    print(f"network {config.model.network}, batches of {config.training.batch_size}, {given.threads} threads")
    for name, (cpu, wall) in best.items():
        print(f"{name:16s} {given.images / wall:9.0f} images/s {given.images / cpu:9.0f} images/CPU-s")
    share = best["data path alone"][0] / best["training.train"][0]
    gain = best["plain loop"][0] / best["training.train"][0]
    print(
        f"data path: {share:.2%} of the training's CPU time; training.train does {gain:.2f} x the plain loop's images"
    )


if __name__ == "__main__":
    main()
