"""Interventions as values: what to do, where, with what. Frozen, hashable, and the same after a trip through JSON."""

from __future__ import annotations

import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions.frozen import FrozenArray, Span, plain, thawed
from cvi_widgets.names import unknown

if TYPE_CHECKING:
    from cvi_widgets.interventions.sites import Site

Do = Literal["swap", "zero", "mean", "resample", "noise", "add", "set"]
_NEEDS_SOURCE = ("swap",)
_MAY_HAVE_SOURCE = ("swap", "mean", "resample")
_NEEDS_VALUE = ("noise", "add", "set")
FOR_CODES = ("set", "swap", "resample")
CODE_SITE = "latent.code"


@dataclass(frozen=True)
class Intervention:
    """One change to the values at a site.

    Parameters
    ----------
    site : name of a site, or the path of a module
    units : int, list, slice or None
        Which channels or neurons; None means all of them.
    do : what replaces the value of these units
        `swap`: the value from the source run, example by example. `zero`: 0. `mean`: the mean over examples (of the
        source run if there is a source), position by position. `resample`: the value of another example, drawn from the
        source run if there is a source, else a shuffle of the same examples. `noise`: Gaussian noise of standard
        deviation `value` is added. `add`: `value` is added. `set`: `value`.
    source : images (n, channel, y, x), float32 in [0, 1]; as many as the base, or one for all
    value : a number, or an array that broadcasts to (n, len(units), ...)
    seed : of `noise` and `resample`
    where : boolean mask (y, x), or (cell,) where positions are in a row; the other positions keep their value
    when : at `latent.code` only: replace a code only where it equals this one, so that `set` exchanges one code for
        another

    At `latent.code` units are codebooks, and only `set`, `swap` and `resample` are allowed: codes are names, whose
    sums and means say nothing.

    Raises
    ------
    ConfigError
        When `do` is unknown, or lacks what it needs, or gets what it does not use.
    """

    site: str
    units: int | tuple[int, ...] | Span | None = None
    do: Do = "zero"
    source: FrozenArray | None = None
    value: float | FrozenArray | None = None
    seed: int = 0
    where: FrozenArray | None = None
    when: int | None = None

    def __init__(
        self,
        site: str,
        units: int | Sequence[int] | slice | Span | None = None,
        do: Do = "zero",
        source: ArrayLike | Tensor | FrozenArray | None = None,
        value: ArrayLike | Tensor | FrozenArray | None = None,
        seed: int = 0,
        where: ArrayLike | Tensor | FrozenArray | None = None,
        when: int | None = None,
    ) -> None:
        if do not in get_args(Do):
            raise ConfigError(unknown("do", do, get_args(Do)))
        if do in _NEEDS_SOURCE and source is None:
            raise ConfigError(f"do={do!r} at site {site!r} needs source=, the images of the run the values come from.")
        if do not in _MAY_HAVE_SOURCE and source is not None:
            raise ConfigError(f"do={do!r} at site {site!r} uses no source=; those that do are swap, mean, resample.")
        if do in _NEEDS_VALUE and value is None:
            raise ConfigError(f"do={do!r} at site {site!r} needs value=, a number or an array.")
        if do not in _NEEDS_VALUE and value is not None:
            raise ConfigError(f"do={do!r} at site {site!r} uses no value=; those that do are noise, add, set.")
        if site == CODE_SITE and do not in FOR_CODES:
            raise ConfigError(f"do={do!r} is no change of codes, which are names; allowed are {', '.join(FOR_CODES)}.")
        if when is not None and (site != CODE_SITE or isinstance(when, bool) or int(when) != when):
            raise ConfigError(f"when={when!r} at site {site!r}: it must be the number of a code, at {CODE_SITE} only.")
        set_ = object.__setattr__
        set_(self, "site", str(site))
        set_(self, "units", _units(units))
        set_(self, "do", do)
        set_(self, "source", _frozen(source))
        number = float(value) if isinstance(value, int | float | np.floating | np.integer) else _frozen(value)
        set_(self, "value", number)
        set_(self, "seed", int(seed))
        set_(self, "where", where if where is None or isinstance(where, FrozenArray) else FrozenArray.mask(where))
        set_(self, "when", None if when is None else int(when))

    def explain(self) -> str:
        """One sentence saying what happens."""
        units = self.units
        word = "codebook" if self.site == CODE_SITE else "unit"
        if units is None:
            who = f"all {word}s"
        elif isinstance(units, Span):
            who = f"{word}s {':'.join('' if v is None else str(v) for v in (units.start, units.stop, units.step))}"
        elif isinstance(units, int):
            who = f"{word} {units}"
        else:
            who = f"{word}s {', '.join(map(str, units))}"
        amount = f"{self.value:g}" if isinstance(self.value, float) else "the given array"
        if self.site == CODE_SITE and isinstance(self.value, float):
            amount = f"code {amount}"
        origin = "the source run" if self.source else "the same examples"
        what = {
            "swap": f"take {who} from the source run",
            "zero": f"set {who} to zero",
            "mean": f"set {who} to the mean over {origin}",
            "resample": f"give {who} the value of another example of {origin} (seed {self.seed})",
            "noise": f"add Gaussian noise of standard deviation {amount} to {who} (seed {self.seed})",
            "add": f"add {amount} to {who}",
            "set": f"set {who} to {amount}",
        }[self.do]
        if self.where is not None:
            mask = self.where.array
            what += f", at {int(mask.sum())} of {mask.size} positions"
        if self.when is not None:
            what += f", where the code is {self.when}"
        return f"At {self.site}, {what}."

    def to_json(self) -> str:
        """JSON text from which `from_json` makes an equal intervention; arrays travel as base64."""
        units: Any = self.units
        if isinstance(units, Span):
            units = {"start": units.start, "stop": units.stop, "step": units.step}
        return json.dumps(
            {
                "site": self.site,
                "units": units,
                "do": self.do,
                "source": plain(self.source),
                "value": plain(self.value),
                "seed": self.seed,
                "where": plain(self.where),
                "when": self.when,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Intervention:
        """The intervention that `to_json` wrote.

        Raises
        ------
        ConfigError
            When the text is not one.
        """
        try:
            fields = json.loads(text)
            units = fields.get("units")
            if isinstance(units, dict):
                fields["units"] = Span(units["start"], units["stop"], units["step"])
            for name in ("source", "value", "where"):
                fields[name] = thawed(fields.get(name))
            return cls(**fields)
        except ConfigError:
            raise
        except (json.JSONDecodeError, binascii.Error, TypeError, KeyError, AttributeError, ValueError) as error:
            raise ConfigError(f"this text is no intervention ({error}).") from error

    def apply(self, value: Tensor, source: Tensor | None = None) -> Tensor:
        """The value at the site after the intervention; `value` itself stays as it is.

        Parameters
        ----------
        value : shape (n, unit, ...)
        source : the source run's value at the same site, shape (n or 1, unit, ...)

        Raises
        ------
        SiteError
            When a unit does not exist at the site, or `value=` or `where=` does not fit it.
        """
        index = self._index(value.shape[1])
        old = value[:, index]
        new = self._new(old, None if source is None else source[:, index])
        if self.when is not None:
            new = torch.where(old == self.when, new, old)
        if self.where is not None:
            self._check_positions(tuple(value.shape[2:]))
            new = torch.where(torch.as_tensor(self.where.array, device=old.device), new, old)
        out = value.clone()
        out[:, index] = new
        return out

    def check(self, site: Site, n_codes: int | None = None) -> None:
        """Raise `SiteError` when units, positions or codes do not exist at the site.

        Parameters
        ----------
        n_codes : size of the codebooks, for `latent.code`; None where it is not known
        """
        self.check_units(site.n_units)
        if self.where is not None:
            self._check_positions(site.shape[1:])
        if site.name == CODE_SITE:
            given = self.value.array if isinstance(self.value, FrozenArray) else self.value
            codes = np.concatenate([np.ravel(v) for v in (given, self.when) if v is not None] or [np.zeros(0)])
            wrong = codes[(codes != np.round(codes)) | (codes < 0) | (codes >= (n_codes or np.inf))]
            if wrong.size:
                raise SiteError(
                    f"code {wrong[0]:g} does not exist at site {site.name!r}; codes are {numbered(n_codes)}."
                )

    def check_units(self, n_units: int) -> None:
        """Raise `SiteError` when one of the units does not exist among `n_units`."""
        self._index(n_units)

    def _check_positions(self, shape: tuple[int, ...]) -> None:
        if self.where is None or self.where.shape == shape:
            return
        if not shape:
            raise SiteError(
                f"where= has shape {self.where.shape}, but site {self.site!r} has no positions, only units."
            )
        raise SiteError(f"where= has shape {self.where.shape}; the positions of site {self.site!r} are {shape}.")

    def _new(self, old: Tensor, source: Tensor | None) -> Tensor:
        if self.do == "zero":
            return torch.zeros_like(old)
        if self.do == "mean":
            return (old if source is None else source).mean(0, keepdim=True).expand_as(old)
        if self.do == "resample":
            pool = old if source is None else source
            generator = torch.Generator().manual_seed(self.seed)
            if source is None:
                pick = torch.randperm(len(pool), generator=generator)
            else:
                pick = torch.randint(len(pool), (len(old),), generator=generator)
            return pool[pick.to(old.device)]
        if self.do == "swap":
            if source is None or source.shape[0] not in (1, old.shape[0]):
                n = 0 if source is None else source.shape[0]
                raise SiteError(f"a swap at {self.site!r} needs 1 or {old.shape[0]} source examples, not {n}.")
            return source.expand_as(old)
        amount = torch.as_tensor(
            self.value.array if isinstance(self.value, FrozenArray) else self.value, dtype=old.dtype, device=old.device
        )
        if self.do == "noise":
            generator = torch.Generator().manual_seed(self.seed)
            amount = amount * torch.randn(old.shape, generator=generator).to(old)
        try:
            amount = amount.expand_as(old) if self.do == "set" else (old + amount).expand_as(old)
        except RuntimeError as error:
            raise SiteError(
                f"value= of shape {tuple(amount.shape)} does not fit site {self.site!r}, "
                f"whose chosen units have shape {tuple(old.shape)} (example, unit, ...)."
            ) from error
        return amount

    def _index(self, n_units: int) -> list[int]:
        if self.units is None:
            return list(range(n_units))
        if isinstance(self.units, Span):
            return list(range(n_units))[self.units.slice]
        index = [self.units] if isinstance(self.units, int) else list(self.units)
        for unit in index:
            if not 0 <= unit < n_units:
                raise SiteError(
                    f"unit {unit} does not exist at site {self.site!r}, which has units 0 to {n_units - 1}."
                )
        return index


def numbered(n_codes: int | None) -> str:
    """Which codes there are, for a message."""
    return "whole numbers from 0" if n_codes is None else f"0 to {n_codes - 1}"


def _units(units: int | Sequence[int] | slice | Span | None) -> int | tuple[int, ...] | Span | None:
    if isinstance(units, slice):
        return Span(units.start, units.stop, units.step)
    if units is None or isinstance(units, Span):
        return units
    if isinstance(units, int | np.integer):
        return int(units)
    return tuple(int(u) for u in units)


def _frozen(array: ArrayLike | Tensor | FrozenArray | None) -> FrozenArray | None:
    return array if array is None or isinstance(array, FrozenArray) else FrozenArray.of(array)
