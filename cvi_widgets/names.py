"""Sentences about names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option closest to `name` by spelling, or None when nothing is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def unknown(kind: str, name: object, options: Iterable[str]) -> str:
    """One sentence saying that `name` is no `kind`, what is allowed, and the nearest match.

    >>> unknown("model", "betavae", ["vae", "beta_vae"])
    "model 'betavae' is unknown; allowed are vae, beta_vae; did you mean beta_vae?"
    """
    listed = list(options)
    guess = nearest(str(name), listed)
    hint = f"; did you mean {guess}?" if guess else "."
    return f"{kind} {name!r} is unknown; allowed are {', '.join(listed)}{hint}"
