"""The training loop."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from cvi_widgets.config import FactorVAEConfig, RunConfig, VQVAEConfig
from cvi_widgets.data.protocol import FactorData, Index, Split
from cvi_widgets.errors import DataError, DivergenceError
from cvi_widgets.models import VQVAE, GaussianVAE
from cvi_widgets.objectives import Terms
from cvi_widgets.training import codebook, schedule, state
from cvi_widgets.training.adversary import Adversary
from cvi_widgets.training.batches import SECOND_STREAM, Fetch, Order, fetcher
from cvi_widgets.training.hardware import keep_large_buffers, resolve_device, use_threads
from cvi_widgets.training.history import Recorder, Schedule
from cvi_widgets.training.interrupt import held_interrupt
from cvi_widgets.training.objective import objective
from cvi_widgets.training.progress import Listener, Progress, Pulse

_NOISE_STREAM = 0x4E01
_ADVERSARY_STREAM = 0x4E02


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves besides the weights in the model; `stopped` is the budget that ended it."""

    history: xr.Dataset
    images: int
    seconds: float
    images_per_second: float
    stopped: str


def train(
    model: GaussianVAE | VQVAE,
    config: RunConfig,
    data: FactorData,
    split: Split,
    folder: Path,
    progress: Listener | None = None,
) -> TrainingResult:
    """Train `model` in place on the images `split.train`, from the newest checkpoint in `folder/checkpoint` if any.

    The result depends on the configuration, the model's first weights and the data only, whatever kills and resumes lie
    between (for one number of threads and one library version; a budget in seconds depends on the machine).

    Parameters
    ----------
    model
        From `models.build`; moved to the configured device.
    config
        Read are `training` (budget, schedules), `model` (the objective and its weights), seed, threads, device.
    data, split
        Images by index, and the indices to learn from.
    folder
        The run's folder; `checkpoint/` is made in it.
    progress
        Called about twice a second, and at the end, with a `Progress`.

    Returns
    -------
    TrainingResult
        `history` has dims step and latent; loss terms are in nats, means over the images since the row before.

    Raises
    ------
    DivergenceError
        At the first loss or weight that is not finite; the last good checkpoint stays.
    StoreError
        When the checkpoint found belongs to another training.
    KeyboardInterrupt
        After a checkpoint has been written.
    """
    if not len(split.train):
        raise DataError(f"data {data.name!r} leaves no image to train on; test_images must be below {len(data)}.")
    use_threads(config.threads)
    keep_large_buffers()
    device = resolve_device(config)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _Training(model, config, data, split.train, folder / "checkpoint", Pulse(progress), device).run()


class _Training:
    def __init__(
        self,
        model: GaussianVAE | VQVAE,
        config: RunConfig,
        data: FactorData,
        train: Index,
        folder: Path,
        pulse: Pulse,
        device: torch.device,
    ) -> None:
        self.config, self.settings, self.folder, self.pulse = config, config.training, folder, pulse
        self.data, self.train_index, self.device = data, train, device
        self.order, self.second = Order(train, config.seed), Order(train, config.seed, SECOND_STREAM)
        adversary = None
        if isinstance(config.model, FactorVAEConfig):
            adversary = Adversary(config.model, _seed(config.seed, _ADVERSARY_STREAM), device)
        self.objective = objective(config, len(train), adversary.judge if adversary else None)
        self.identity = {"config": config.hashed, "data": data.name, "training images": _digest(train)}
        self.state = state.State(
            model,
            torch.optim.Adam(model.parameters(), lr=self.settings.learning_rate, fused=True),
            torch.Generator().manual_seed(_seed(config.seed)),
            Recorder(self.settings.images, config.model.latents, self.objective.extras),
            adversary,
        )

    def run(self) -> TrainingResult:
        state.restore(self.state, self.folder, self.identity)
        if not self.state.stopped:
            fetch = fetcher(self.data, self.train_index, self.device)
            with held_interrupt() as interrupted:
                self._loop(fetch, interrupted)
        return self._result()

    def _loop(self, fetch: Fetch, interrupted: Callable[[], bool]) -> None:
        now, settings = self.state, self.settings
        before, started, first = now.seconds, time.monotonic(), now.images
        saved = started
        while not now.stopped:
            self._step(fetch)
            clock = time.monotonic()
            now.seconds = before + clock - started
            speed = (now.images - first) / max(clock - started, 1e-9)
            now.stopped = self._budget()
            try:
                self.pulse(partial(self._progress, speed), last=bool(now.stopped))
                if interrupted():
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                self._save()
                raise
            if now.stopped:
                now.recorder.close(now.images, now.steps)
            if now.stopped or clock - saved >= settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()

    def _step(self, fetch: Fetch) -> None:
        now, settings = self.state, self.settings
        n = min(settings.batch_size, settings.images - now.images)
        planned = Schedule(self.objective.kl_weight(now.images), schedule.learning_rate(settings, now.images))
        x = _batch(fetch, self.order, now.images, n)
        with self._autocast():
            out = now.model(x) if isinstance(now.model, VQVAE) else now.model(x, self._noise(n))
        terms = self.objective.terms(out, x, now.images)
        self._guard(terms)
        now.optimiser.zero_grad(set_to_none=True)
        terms.loss.backward()  # type: ignore[no-untyped-call]
        for group in now.optimiser.param_groups:
            group["lr"] = planned.learning_rate
        now.optimiser.step()
        if isinstance(now.model, VQVAE) and isinstance(self.config.model, VQVAEConfig):
            codebook.learn(now.model, out, self.config.model, now.noise)
        if now.adversary and isinstance(now.model, GaussianVAE):
            loss = self._contest(now.model, now.adversary, out.z, _batch(fetch, self.second, now.images, n))
            terms = terms._replace(extras={**terms.extras, "discriminator_loss": loss})
        now.images += n
        now.steps += 1
        now.recorder.add(terms, planned, n, now.images, now.steps)

    def _contest(self, model: GaussianVAE, adversary: Adversary, z: Tensor, x: Tensor) -> Tensor:
        """The discriminator's step (Kim & Mnih 2018, algorithm 2): the permuted codes are those of a second batch."""
        noise, order = self._noise(len(x)), self._noise(len(x)).argsort(0)
        with torch.no_grad(), self._autocast():
            other = model.sample(model.encode(x), noise)
        loss = adversary.learn(z, other, order)
        if not math.isfinite(loss.item()):
            raise self._diverged(f"the discriminator_loss term is {loss.item()}")
        return loss

    def _noise(self, n: int) -> Tensor:
        return torch.randn(n, self.state.model.latents, generator=self.state.noise).to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _budget(self) -> str:
        if self.state.images >= self.settings.images:
            return "images"
        if self.settings.seconds is not None and self.state.seconds >= self.settings.seconds:
            return "seconds"
        return ""

    def _progress(self, speed: float) -> Progress:
        now, settings = self.state, self.settings
        left = (settings.images - now.images) / max(speed, 1e-9)
        if settings.seconds is not None:
            left = min(left, max(0.0, settings.seconds - now.seconds))
        left = 0.0 if now.stopped else left
        return Progress(now.images, settings.images, speed, left, now.recorder.smoothed())

    def _guard(self, terms: Terms) -> None:
        for name in ("reconstruction", "kl", "loss"):
            value = getattr(terms, name).item()
            if not math.isfinite(value):
                raise self._diverged(f"the {name} term is {value}")

    def _save(self) -> None:
        # A finite loss can still leave weights that are not; such a state must not replace the last good one.
        rival = self.state.adversary.network.named_parameters(prefix="discriminator") if self.state.adversary else ()
        for name, parameter in (*self.state.model.named_parameters(), *rival):
            if not torch.isfinite(parameter).all():
                raise self._diverged(f"weight {name!r} is not finite")
        state.save(self.state, self.folder, self.identity)

    def _diverged(self, what: str) -> DivergenceError:
        now = self.state
        good = state.newest(self.folder)
        kept = f"the last good checkpoint is {str(good)!r}" if good else "no checkpoint had been written yet"
        return DivergenceError(
            f"training diverged at step {now.steps} after {now.images} images: {what}; {kept}; "
            "a lower learning_rate or a longer lr_warmup may help."
        )

    def _result(self) -> TrainingResult:
        now = self.state
        history = now.recorder.dataset()
        speed = now.images / max(now.seconds, 1e-9)
        history.attrs = {
            "images": now.images,
            "seconds": now.seconds,
            "images_per_second": speed,
            "stopped": now.stopped,
        }
        return TrainingResult(history, now.images, now.seconds, speed, now.stopped)


def _digest(index: Index) -> str:
    return hashlib.sha256(np.ascontiguousarray(index, dtype=np.int64).tobytes()).hexdigest()[:16]


def _batch(fetch: Fetch, order: Order, seen: int, n: int) -> Tensor:
    return fetch(order.take(seen, n)).contiguous(memory_format=torch.channels_last)


def _seed(seed: int, stream: int = _NOISE_STREAM) -> int:
    return int(np.random.SeedSequence([stream, seed]).generate_state(1, np.uint64)[0] >> np.uint64(1))
