"""Device, threads and memory: where training runs and what it asks of the C library."""

from __future__ import annotations

import ctypes
import functools
import platform

import torch

from cvi_widgets.config import RunConfig
from cvi_widgets.errors import ConfigError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def resolve_device(config: RunConfig) -> torch.device:
    """The device that `config.device` means here; "auto" is a CUDA GPU where there is one.

    Raises
    ------
    ConfigError
        When "cuda" is asked for and PyTorch sees none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' is not available here; allowed are auto and cpu.")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def use_threads(n: int | None) -> int:
    """Let PyTorch use `n` threads (None: leave its choice) and return how many it uses.

    Bits are reproducible for equal thread counts; sums are split differently for different ones.
    """
    if n is not None:
        torch.set_num_threads(n)
    return torch.get_num_threads()


@functools.cache
def keep_large_buffers() -> bool:
    """Ask glibc to keep freed memory instead of giving it back to the kernel; True where that was done.

    Activations are large buffers, freed and allocated again at every step. By default glibc returns each to the kernel
    and the next step takes a page fault per 4 KiB: at batches of 256 and more that halves the speed.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 256 << 20}
    return all([libc.mallopt(name, value) == 1 for name, value in settings.items()])
