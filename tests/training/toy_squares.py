"""A small data set that follows the protocol, and a training on it; run as a script, trainings that kill themselves.

    python toy_squares.py FOLDER WHERE:COUNT [WHERE:COUNT ...]

trains in FOLDER, in one process after the other, each of which sends itself SIGKILL at WHERE of its checkpoint number
COUNT: `writing` (half of the file is on disk), `written` (whole, not renamed), `renamed` (the oldest checkpoint is not
yet dropped), or `between` two steps. Prints, for each, its exit code and the checkpoints that it left.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cvi_widgets import training
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import Factors, Index, Pairs, Split
from cvi_widgets.models import GaussianVAE, build
from cvi_widgets.training import Progress, TrainingResult, state

SIDE, PLACES, SIZES = 32, 12, (4, 7)


class Squares:
    """Squares of two sizes at 12 x 12 places in 32 x 32 pixels: 288 images."""

    name = "squares"
    factor_names = ("size", "x", "y")
    factor_sizes = (2, PLACES, PLACES)
    factor_values: Mapping[str, NDArray[np.float64]] = {
        "size": np.array(SIZES, dtype=float),
        "x": np.arange(PLACES, dtype=float),
        "y": np.arange(PLACES, dtype=float),
    }
    image_shape = (1, SIDE, SIDE)
    provenance = "drawn for tests."
    licence = "Apache-2.0"

    def __len__(self) -> int:
        return 2 * PLACES**2

    def images(self, index: Index, dtype: Literal["uint8", "float32"] = "uint8") -> NDArray[np.uint8 | np.float32]:
        size, x, y = self.factors(index).T[:, :, None]
        pixel, side = np.arange(SIDE), np.array(SIZES)[size]
        across = (pixel >= 2 * x) & (pixel < 2 * x + side)
        down = (pixel >= 2 * y) & (pixel < 2 * y + side)
        return (down[:, None, :, None] & across[:, None, None, :]).astype(dtype)

    def factors(self, index: Index) -> Factors:
        return np.stack(np.unravel_index(index, self.factor_sizes), axis=1)

    def index(self, factors: Factors) -> Index:
        return np.ravel_multi_index(tuple(factors.T), self.factor_sizes)

    def sample(self, n: int, rng: np.random.Generator) -> Index:
        return rng.integers(len(self), size=n)

    def pairs(self, factor: str, n: int, rng: np.random.Generator) -> Pairs:
        base = self.sample(n, rng)
        changed, column = self.factors(base), self.factor_names.index(factor)
        size = self.factor_sizes[column]
        changed[:, column] = (changed[:, column] + rng.integers(1, size, size=n)) % size
        return Pairs(base, self.index(changed))

    def split(self, test: int, seed: int) -> Split:
        order = np.random.default_rng(seed).permutation(len(self))
        return Split(np.sort(order[test:]), np.sort(order[:test]))


def settings(**changes: Any) -> RunConfig:
    """A training of 20 steps on one thread that saves at every step."""
    plain = {
        "images": 310,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "lr_warmup": 64,
        "lr_decay": 0.5,
        "kl_warmup": 128,
        "test_images": 32,
        "checkpoint_seconds": 1e-9,
        "precision": "float32",
        "threads": 1,
        "device": "cpu",
        "latents": 4,
        "network": "dlib",
    }
    return RunConfig.of("dsprites", "beta_vae", **plain | changes)


def fresh(config: RunConfig) -> GaussianVAE:
    torch.manual_seed(config.seed)
    return build(config.model, Squares.image_shape)


def run(
    folder: Path, config: RunConfig | None = None, progress: training.Listener | None = None
) -> tuple[GaussianVAE, TrainingResult]:
    """Train a fresh model in `folder`, as a person would who starts or resumes a run."""
    config = config or settings()
    data, model = Squares(), fresh(config)
    split = data.split(config.training.test_images, config.seed)
    return model, training.train(model, config, data, split, folder, progress)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(where: str, count: int) -> training.Listener | None:
    real_fsync, real_replace, real_save, saves = os.fsync, os.replace, state.save, 0

    def save(*args: Any) -> Path:
        nonlocal saves
        saves += 1
        return real_save(*args)

    def fsync(file: int) -> None:
        if where == "writing" and saves == count:
            os.ftruncate(file, os.fstat(file).st_size // 2)
        real_fsync(file)
        if where in ("writing", "written") and saves == count:
            _kill()

    def replace(old: Path, new: Path) -> None:
        real_replace(old, new)
        if where == "renamed" and saves == count:
            _kill()

    def between(progress: Progress) -> None:
        if where == "between" and saves >= count:
            _kill()

    state.save, os.fsync, os.replace = save, fsync, replace
    return between


def _killed(folder: Path, where: str, count: int) -> int:
    # Forked before anything is computed: the imports, which take longer than the training, are paid for once.
    child = os.fork()
    if child == 0:
        run(folder, progress=_kill_at(where, count))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much of torch the first time
    for point in sys.argv[2:]:
        where, count = point.split(":")
        code = _killed(folder, where, int(count))
        print(code, *sorted(p.name for p in (folder / "checkpoint").glob("*.safetensors")), flush=True)
