"""What a training says while it runs, and a bar that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import tqdm


@dataclass(frozen=True)
class Progress:
    """Where a training stands; `terms` are loss, reconstruction and kl in nats, smoothed over about 50 steps."""

    images: int
    total: int
    images_per_second: float
    seconds_left: float
    terms: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[Progress], None]


class Pulse:
    """Calls a listener about twice a second, at the first call and at the last."""

    def __init__(self, listener: Listener | None, every: float = 0.5) -> None:
        self._listener = listener
        self._every = every
        self._next = 0.0

    def __call__(self, make: Callable[[], Progress], last: bool = False) -> None:
        """Tell the listener what `make` returns, if it is time to."""
        now = time.monotonic()
        if self._listener and (last or now >= self._next):
            self._next = now + self._every
            self._listener(make())


class TqdmProgress:
    """A progress bar with images/s and time left; call it with a `Progress`, or use it in a `with` block."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        """Show `progress`; the bar starts at the first call, where a resumed training left off."""
        if self._bar is None:
            options: dict[str, Any] = {"unit": "img", "unit_scale": True, "dynamic_ncols": True, "desc": "training"}
            self._bar = tqdm.tqdm(total=progress.total, initial=progress.images, **options | self._options)
        self._bar.set_postfix({name: f"{value:.1f}" for name, value in progress.terms.items()}, refresh=False)
        self._bar.update(progress.images - self._bar.n)
        if progress.images >= progress.total:
            self.close()

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tqdm_progress(**options: Any) -> TqdmProgress:
    """A listener for `train` that draws a tqdm bar; `options` go to `tqdm.tqdm` (`file`, `disable`, `leave`, ...)."""
    return TqdmProgress(**options)
