"""The training curve: a fixed number of rows, each the mean of the loss terms since the row before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.objectives import Terms

ROWS = 200
SCALARS = ("loss", "reconstruction", "kl")
_EMA_STEPS = 50


class Schedule(NamedTuple):
    """What the schedules said at one step."""

    kl_weight: float
    learning_rate: float


class Recorder:
    """Accumulates loss terms, weighted by images, and closes a row whenever another 1/200 of the budget is done.

    `extras` names the scalars that only this objective has.
    """

    def __init__(self, total: int, latents: int, extras: Sequence[str] = ()) -> None:
        self._total = total
        self._latents, self._extras = latents, tuple(extras)
        self._width = len(SCALARS) + latents + len(self._extras) + len(Schedule._fields)
        self._rows: list[list[float]] = []
        self._sum = torch.zeros(self._width, dtype=torch.float64)
        self._count = 0
        self._ema = torch.zeros(len(SCALARS), dtype=torch.float64)
        self._ema_weight = 0.0

    def add(self, terms: Terms, schedule: Schedule, n: int, seen: int, steps: int) -> None:
        """Add the terms of a batch of `n` images, after which `seen` images and `steps` updates are done."""
        scalars = torch.stack([terms.loss, terms.reconstruction, terms.kl]).detach().double().cpu()
        latents = terms.kl_latent.detach().double().cpu()
        extras = [terms.extras[name].detach().double().cpu().reshape(1) for name in self._extras]
        self._sum += n * torch.cat([scalars, latents, *extras, torch.tensor(schedule, dtype=torch.float64)])
        self._count += n
        keep = 1 - 1 / _EMA_STEPS
        self._ema = keep * self._ema + (1 - keep) * scalars
        self._ema_weight = keep * self._ema_weight + (1 - keep)
        if seen * ROWS // self._total > (seen - n) * ROWS // self._total:
            self.close(seen, steps)

    def close(self, seen: int, steps: int) -> None:
        """End a row here, unless nothing came since the last one."""
        if self._count:
            self._rows.append([float(steps), float(seen), *(self._sum / self._count).tolist()])
            self._sum, self._count = torch.zeros_like(self._sum), 0

    def smoothed(self) -> dict[str, float]:
        """Exponential moving averages of loss, reconstruction and KL over about the last 50 steps, in nats."""
        weight = self._ema_weight or 1.0
        return {name: value / weight for name, value in zip(SCALARS, self._ema.tolist(), strict=True)}

    def tensors(self) -> dict[str, Tensor]:
        """The recorder's state, for a checkpoint."""
        rows = torch.tensor(self._rows, dtype=torch.float64).reshape(-1, 2 + self._width)
        counts = torch.tensor([self._count, self._ema_weight], dtype=torch.float64)
        return {"rows": rows, "sum": self._sum, "ema": self._ema, "counts": counts}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `tensors()`."""
        self._rows = tensors["rows"].tolist()
        self._sum, self._ema = tensors["sum"].clone(), tensors["ema"].clone()
        count, self._ema_weight = tensors["counts"].tolist()
        self._count = int(count)

    def dataset(self) -> xr.Dataset:
        """The curve: dims step and latent; coords step (updates) and images (seen)."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 2 + self._width)
        latents = self._latents
        values: dict[str, tuple[tuple[str, ...], NDArray[np.float64], dict[str, str]]] = {}
        for i, name in enumerate(SCALARS):
            values[name] = (("step",), rows[:, 2 + i], _attrs(_LONG[name], "nats"))
        first = 2 + len(SCALARS)
        values["kl_latent"] = (("step", "latent"), rows[:, first : first + latents], _attrs("KL per latent", "nats"))
        for i, name in enumerate(self._extras):
            values[name] = (("step",), rows[:, first + latents + i], _attrs(*_EXTRAS[name]))
        values["kl_weight"] = (("step",), rows[:, -2], _attrs("weight of the KL", "1"))
        values["learning_rate"] = (("step",), rows[:, -1], _attrs("learning rate", "1"))
        coords = {
            "step": ("step", rows[:, 0].astype(np.int64), _attrs("updates done", "1")),
            "images": ("step", rows[:, 1].astype(np.int64), _attrs("images seen", "images")),
            "latent": ("latent", np.arange(latents), _attrs("latent", "1")),
        }
        return xr.Dataset(values, coords)


_LONG = {
    "loss": "loss (reconstruction + weight x KL + any penalties)",
    "reconstruction": "reconstruction, sampled z",
    "kl": "KL to the prior, all latents",
}
_EXTRAS = {
    "mutual_information": ("mutual information of image and code", "nats"),
    "total_correlation": ("total correlation of the latents", "nats"),
    "dimension_kl": ("KL of each latent's marginal, summed", "nats"),
    "squared_covariances": ("squared covariances of the codes, summed", "1"),
    "squared_variance_errors": ("squared differences of the codes' variances from 1, summed", "1"),
    "capacity": ("nats that the KL is drawn to", "nats"),
    "commitment_distance": ("squared distance of what enters the quantiser to its code", "1"),
    "perplexity": ("exp of the entropy of the codes of a batch", "codes"),
    "discriminator_loss": ("cross-entropy of telling codes from permuted codes", "nats"),
}


def _attrs(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}
