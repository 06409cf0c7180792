"""Ctrl-C between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C; yields a function that says whether it came.

    An optimiser step that is broken off half-way leaves weights that belong to no step, so nothing that could be saved.
    A second Ctrl-C interrupts at once, for people who mean it. Where signals are not ours (a thread), nothing changes.
    """
    came = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.getsignal(signal.SIGINT)
        if before is None or before == signal.SIG_IGN:
            yield lambda: False
            return
        signal.signal(signal.SIGINT, hold)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)
