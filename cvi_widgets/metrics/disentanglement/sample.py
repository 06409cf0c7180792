"""What every disentanglement metric takes: codes and factors, checked once, or a model and data to draw them from.

A metric is called as `metric(codes, factors)` with plain arrays, or as `metric(represent, data)`, where
`represent(index)` gives codes and `data` is a `FactorData`; then `SAMPLE` images are drawn from the data's own
distribution and encoded once. Groups of examples that share a factor are drawn from those: nothing is encoded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.errors import ConfigError, DataError
from cvi_widgets.metrics.causal import ACTIVE_VARIANCE
from cvi_widgets.names import unknown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAMPLE = 10_000
"""Images drawn when a metric is given a model and a data set; the number of disentanglement_lib's study."""
MIN_EXAMPLES = 20


@runtime_checkable
class FactorSource(Protocol):
    """The part of `FactorData` that metrics need; no images."""

    @property
    def factor_names(self) -> tuple[str, ...]: ...

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]: ...

    def factors(self, index: NDArray[np.int64]) -> NDArray[np.int64]: ...


Codes = ArrayLike | xr.DataArray | Callable[[Ints], ArrayLike]
Labels = ArrayLike | xr.DataArray | FactorSource
HeldOut = tuple[ArrayLike, ArrayLike]


class Sample(NamedTuple):
    """Checked codes and factors."""

    codes: Floats
    """Shape (example, latent)."""
    classes: Ints
    """Shape (example, factor), recoded to 0, 1, ... in ascending order of the given classes."""
    names: tuple[str, ...]
    dead: NDArray[np.bool_]
    """Shape (latent,): variance over examples at or below the threshold."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of classes of each factor."""
        return tuple(int(k) for k in self.classes.max(0) + 1)

    @property
    def alive(self) -> Floats:
        """Codes of the latents that are not dead, shape (example, alive latent)."""
        return np.asarray(self.codes[:, ~self.dead])


class SplitSample(NamedTuple):
    """A sample to fit on and held-out examples to score on, with the same classes and the same dead latents."""

    train: Sample
    test: Sample


def checked(
    codes: Codes,
    factors: Labels,
    *,
    factor_names: Sequence[str] | None = None,
    dead_variance: float = ACTIVE_VARIANCE,
    min_factors: int = 1,
    seed: int = 0,
) -> Sample:
    """Codes and factors as a `Sample`, or one sentence about what is wrong with them.

    Parameters
    ----------
    codes : shape (example, latent), or a callable from an index, shape (example,), to such codes
    factors : integer classes of shape (example, factor), or a `FactorData` where `codes` is a callable
    factor_names
        Names of the columns of `factors`; else those of the data set or of the coordinate `factor`, else f0, f1, ...
    dead_variance
        Latents with a variance at or below this are dead; the default suits means of posteriors with a unit prior.
        Give 0 for codes in other units.
    min_factors : factors that the metric needs to be defined

    Raises
    ------
    DataError
        Wrong shapes, NaN, factors that are not whole numbers, constant, or with nearly a class per example.
    """
    if not dead_variance >= 0:
        raise ConfigError(f"setting 'dead_variance' is {dead_variance}: it must be a number of at least 0.")
    if callable(codes) or isinstance(factors, FactorSource):
        if not callable(codes) or not isinstance(factors, FactorSource):
            raise DataError(
                "codes and factors do not belong together; give two arrays, or a callable of an index and a data set."
            )
        factor_names = factor_names or factors.factor_names
        codes, factors = drawn(codes, factors, SAMPLE, seed)
    z, classes = _checked_codes(codes), _checked_factors(factors)
    if len(z) != len(classes):
        raise DataError(f"codes have {len(z)} examples and factors have {len(classes)}; both need the same number.")
    if len(z) < MIN_EXAMPLES:
        raise DataError(f"codes have {len(z)} examples; at least {MIN_EXAMPLES} are needed.")
    names = _names(factors, factor_names, classes.shape[1])
    if len(names) < min_factors:
        raise DataError(f"factors have {len(names)} column; this metric tells factors apart and needs {min_factors}.")
    # The variance of a constant column is a rounding error, not always 0.
    dead = (z.var(axis=0) <= dead_variance) | (np.ptp(z, axis=0) == 0)
    return Sample(z, _recoded(classes, names), names, dead)


def drawn(represent: Callable[[Ints], ArrayLike], data: FactorSource, n: int, seed: int) -> tuple[Floats, Ints]:
    """Codes and factors of `n` images drawn from the data's own distribution; each image is encoded once."""
    index = data.sample(n, np.random.default_rng(seed))
    distinct, inverse = np.unique(index, return_inverse=True)
    return _checked_codes(represent(distinct))[inverse], np.asarray(data.factors(index), np.int64)


def split(
    codes: Codes,
    factors: Labels,
    test: HeldOut | None,
    *,
    held_out: float = 1 / 3,
    seed: int = 0,
    **options: Any,
) -> SplitSample:
    """`checked`, with held-out examples: those of `test`, else a seeded random third that is not fitted on."""
    if test is None:
        whole = checked(codes, factors, seed=seed, **options)
        order = np.random.default_rng(seed).permutation(len(whole.codes))
        cut = round(held_out * len(order))
        parts = [_part(whole, order[cut:]), _part(whole, order[:cut])]
    else:
        whole = checked(codes, factors, seed=seed, **options)
        z, raw = _checked_codes(test[0]), _checked_factors(test[1])
        if z.shape[1] != whole.codes.shape[1] or raw.shape[1] != whole.classes.shape[1] or len(z) != len(raw):
            raise DataError(
                f"test has codes {z.shape} and factors {raw.shape}; "
                f"(n, {whole.codes.shape[1]}) and (n, {whole.classes.shape[1]}) are needed."
            )
        given = _checked_factors(factors)
        classes = np.stack([_coded_as(given[:, k], raw[:, k], name) for k, name in enumerate(whole.names)], axis=1)
        parts = [whole, Sample(z, classes, whole.names, whole.dead)]
    train, held = parts
    for k, name in enumerate(train.names):
        if len(np.unique(train.classes[:, k])) < 2 or len(np.unique(held.classes[:, k])) < 2:
            raise DataError(
                f"factor {name!r} is constant in the {len(train.codes)} examples to fit on or in the "
                f"{len(held.codes)} held out; give more examples."
            )
    return SplitSample(train, held)


def chosen(convention: str, conventions: Mapping[str, Any] | Sequence[str]) -> str:
    """`convention` when it is one of the allowed ones, else one sentence with the nearest."""
    if convention not in conventions:
        raise ConfigError(unknown("convention", convention, list(conventions)))
    return convention


def count(name: str, value: object, least: int = 0) -> int:
    """`value` as a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"setting {name!r} is {value!r}: it must be a whole number of at least {least}.")
    return int(value)


def checked_codes(codes: ArrayLike, what: str = "codes") -> Floats:
    """Codes as float64 of shape (example, latent), all finite, or one sentence."""
    return _checked_codes(codes, what)


def _checked_codes(codes: Any, what: str = "codes") -> Floats:
    try:
        z = np.asarray(codes, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} are no array of numbers; shape (example, latent) is needed.") from None
    if z.ndim != 2 or 0 in z.shape:
        raise DataError(f"{what} have shape {z.shape}; (example, latent) with at least one latent is needed.")
    if not np.isfinite(z).all():
        bad = int((~np.isfinite(z)).any(axis=1).sum())
        raise DataError(f"{what} have NaN or infinite values in {bad} of {len(z)} examples; all must be finite.")
    return z


def _checked_factors(factors: Any) -> Ints:
    classes = np.asarray(factors)
    if classes.ndim != 2 or 0 in classes.shape:
        raise DataError(f"factors have shape {classes.shape}; (example, factor) with at least one factor is needed.")
    if classes.dtype.kind not in "iub":
        raise DataError(f"factors have values of type {classes.dtype}; integer classes are needed.")
    return classes.astype(np.int64)


def _names(factors: Any, given: Sequence[str] | None, n: int) -> tuple[str, ...]:
    if given is None and isinstance(factors, xr.DataArray) and "factor" in factors.coords:
        given = [str(name) for name in factors["factor"].values]
    names = tuple(f"f{k}" for k in range(n)) if given is None else tuple(str(name) for name in given)
    if len(names) != n or len(set(names)) != n:
        raise DataError(f"factor names are {', '.join(names)}; {n} different ones are needed, one per column.")
    return names


def _recoded(classes: Ints, names: tuple[str, ...]) -> Ints:
    columns = []
    for k, name in enumerate(names):
        values, codes = np.unique(classes[:, k], return_inverse=True)
        if len(values) < 2:
            raise DataError(f"factor {name!r} is constant at {values[0]}; every factor needs at least 2 classes.")
        if len(values) > len(classes) / 2:
            raise DataError(
                f"factor {name!r} has {len(values)} classes in {len(classes)} examples; at most half as many are "
                "allowed, so give more examples or cut it into classes."
            )
        columns.append(codes)
    return np.stack(columns, axis=1).astype(np.int64)


def _coded_as(train: Ints, test: Ints, name: str) -> Ints:
    values = np.unique(train)
    codes = np.searchsorted(values, test).clip(max=len(values) - 1)
    strange = values[codes] != test
    if strange.any():
        raise DataError(f"factor {name!r} has class {test[strange][0]} in test that no example to fit on has.")
    return np.asarray(codes, np.int64)


def _part(whole: Sample, rows: Ints) -> Sample:
    return Sample(whole.codes[rows], whole.classes[rows], whole.names, whole.dead)
