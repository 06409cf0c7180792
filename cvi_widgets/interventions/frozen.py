"""Slices and arrays that cannot change, compare by content, can be hashed, and travel as JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError

_BOOL = np.dtype(bool).str


@dataclass(frozen=True)
class Span:
    """Units from `start` to before `stop` in steps, with a slice's meaning of None."""

    start: int | None
    stop: int | None
    step: int | None

    @property
    def slice(self) -> slice:
        """The same as a Python slice, which cannot be hashed before 3.12."""
        return slice(self.start, self.stop, self.step)


@dataclass(frozen=True)
class FrozenArray:
    """An array that cannot change, compares by content and can be hashed."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: ArrayLike | Tensor) -> FrozenArray:
        """Copy of `array` as float32 (uint8 is refused later, where images are expected)."""
        plain = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
        if plain.dtype.kind not in "fiub":
            raise ConfigError(f"an intervention takes numbers, not an array of type {plain.dtype}.")
        kept = np.ascontiguousarray(plain.astype(np.float32), dtype="<f4")
        return cls(kept.dtype.str, kept.shape, kept.tobytes())

    @classmethod
    def mask(cls, array: ArrayLike | Tensor) -> FrozenArray:
        """Copy of a boolean array."""
        plain = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
        if plain.dtype != np.bool_ or plain.ndim not in (1, 2):
            raise ConfigError(
                f"where= is {plain.dtype} of shape {plain.shape}; it must be a boolean mask of shape (y, x) or (cell,)."
            )
        return cls(plain.dtype.str, plain.shape, np.ascontiguousarray(plain).tobytes())

    @property
    def array(self) -> NDArray[Any]:
        """A writable copy."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape).copy()

    def __repr__(self) -> str:
        return f"FrozenArray(shape={self.shape})"


def plain(value: float | FrozenArray | None) -> object:
    if isinstance(value, FrozenArray):
        kind = "bool" if value.dtype == _BOOL else "float32"
        return {"shape": list(value.shape), kind: base64.b64encode(value.data).decode()}
    return value


def thawed(value: Any) -> Any:
    if isinstance(value, dict):
        kind = "bool" if "bool" in value else "float32"
        frozen = FrozenArray(
            _BOOL if kind == "bool" else "<f4", tuple(value["shape"]), base64.b64decode(value[kind], validate=True)
        )
        # Raises here, not in the middle of a pass, when the bytes do not fill the shape.
        return FrozenArray.mask(frozen.array) if kind == "bool" else FrozenArray.of(frozen.array)
    return value
