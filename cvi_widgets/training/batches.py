"""Which images come when, and their way to the device.

The order is stateless: it depends on the seed and on how many images have been seen, so that a resumed training needs
no state but that count. Batches are gathered in the main process; one costs well under 1 % of a training step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cvi_widgets.data.protocol import FactorData, Index

Fetch = Callable[[Index], Tensor]
"""Indices of images -> float32 images (n, channel, y, x) on the device."""

_ORDER_STREAM = 0x0DE2
SECOND_STREAM = 0x0DE3
"""The order of a second batch, independent of the first."""

_RESIDENT_CHUNK = 16_384


class Order:
    """An endless sequence of the training indices: every epoch is a permutation drawn from (stream, seed, epoch)."""

    def __init__(self, train: Index, seed: int, stream: int = _ORDER_STREAM) -> None:
        self._stream = stream
        self._train = train
        self._seed = seed
        self._epoch = -1
        self._permuted = train[:0]

    def take(self, seen: int, n: int) -> Index:
        """The `n` indices that follow the first `seen` ones; may run over the end of an epoch."""
        parts = []
        while n > 0:
            epoch, offset = divmod(seen, len(self._train))
            part = self._of(epoch)[offset : offset + n]
            parts.append(part)
            seen, n = seen + len(part), n - len(part)
        return np.concatenate(parts)

    def _of(self, epoch: int) -> Index:
        if epoch != self._epoch:
            rng = np.random.default_rng([self._stream, self._seed, epoch])
            self._permuted, self._epoch = rng.permutation(self._train), epoch
        return self._permuted


def fetcher(data: FactorData, train: Index, device: torch.device) -> Fetch:
    """How to get a batch: straight from `data` on a CPU, from bits resident on the device on a GPU.

    Images with grey levels are not kept on the GPU; they are sent batch by batch.
    """
    if device.type != "cpu" and _is_binary(data, train):
        return _Resident(data, device)
    return lambda index: torch.from_numpy(data.images(index, "float32")).to(device)


def _is_binary(data: FactorData, train: Index) -> bool:
    sample = data.images(train[:: max(1, len(train) // 256)], "float32")
    return bool(np.isin(sample, (0.0, 1.0)).all())


class _Resident:
    """All images of a binary data set as bits on one device: 512 bytes per 64x64 image."""

    def __init__(self, data: FactorData, device: torch.device) -> None:
        self._shape = data.image_shape
        self._pixels = int(np.prod(self._shape))
        packed = [
            np.packbits(data.images(np.arange(start, stop), "float32").reshape(stop - start, -1) > 0.5, axis=1)
            for start, stop in _chunks(len(data))
        ]
        self._bits = torch.from_numpy(np.concatenate(packed)).to(device)
        self._shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)

    def __call__(self, index: Index) -> Tensor:
        rows = self._bits[torch.from_numpy(index).to(self._bits.device)]
        bits = (rows[:, :, None] >> self._shifts) & 1
        return bits.flatten(1)[:, : self._pixels].reshape(-1, *self._shape).float()


def _chunks(n: int) -> list[tuple[int, int]]:
    return [(start, min(n, start + _RESIDENT_CHUNK)) for start in range(0, n, _RESIDENT_CHUNK)]
