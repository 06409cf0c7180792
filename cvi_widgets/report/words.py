"""Numbers as people read them: intervals, durations, counts, directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\u2212"
_READOUT_WORDS = {
    "centroid_x": ("to the right", "to the left"),
    "centroid_y": ("down", "up"),
}


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits without an exponent, thousands parted, a true minus sign.

    >>> number(1234.5), number(0.04567), number(-2.0), number(float("nan"))
    ('1,234', '0.0457', '−2.00', 'undefined')
    """
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    places = max(0, min(6, digits - 1 - math.floor(math.log10(abs(value)))))
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) != 0 else text


def with_interval(value: float, low: float, high: float, unit: str = "") -> str:
    """`4.1 px [3.8, 4.4]`, all three to the same decimals.

    >>> with_interval(4.123, 3.81, 4.42, "px")
    '4.12 px [3.81, 4.42]'
    """
    unit = "" if unit in ("", "1") else f" {unit}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{number(value)}{unit}"
    places = _places(max(abs(value), abs(low), abs(high)))
    return f"{_fixed(value, places)}{unit} [{_fixed(low, places)}, {_fixed(high, places)}]"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 2 s`, `1 h 4 min`.

    >>> duration(182.4), duration(3.21), duration(3900)
    ('3 min 2 s', '3.2 s', '1 h 5 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', 'none')
    """
    if not items:
        return "none"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def count(n: int, noun: str) -> str:
    """`1 latent`, `3 latents`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def direction(readout: str, slope: float) -> str:
    """Which way a read-out with this slope goes: image coordinates have y pointing down."""
    words = _READOUT_WORDS.get(readout, (f"up in {readout}", f"down in {readout}"))
    return words[0] if slope >= 0 else words[1]


def chance(p: float) -> str:
    """A p-value in words; permutation tests cannot go below one over their draws.

    >>> chance(0.0004), chance(0.62)
    ('p < 0.001', 'p = 0.62')
    """
    if not math.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _places(size: float) -> int:
    return 2 if size == 0 or not math.isfinite(size) else max(0, min(4, 2 - math.floor(math.log10(size))))


def _fixed(value: float, places: int) -> str:
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) != 0 else text
