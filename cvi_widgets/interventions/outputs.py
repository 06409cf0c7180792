"""What a module returns may hold more than one value; the first tensor is the one that a site stands for."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensor_of(output: object) -> Tensor | None:
    """The tensor that a module's output stands for: itself, or the first entry (attention returns weights too)."""
    name = _first(output)
    value = output if name is None else _entry(output, name)
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def with_tensor(output: object, value: Tensor) -> object:
    """A copy of a module's output with `value` where `tensor_of` finds the tensor."""
    name = _first(output)
    if name is None:
        return value
    if isinstance(output, tuple):
        parts = (value, *output[1:])
        # A named tuple takes its fields one by one.
        return type(output)(*parts) if hasattr(output, "_fields") else parts
    changed: Any = copy(output)
    if isinstance(changed, MutableMapping | list):
        changed[name] = value
    if is_dataclass(changed):
        object.__setattr__(changed, str(name), value)
    return changed


def _first(output: object) -> Any:
    """Index, key or field name of the first entry; None where the output has no entries."""
    if isinstance(output, tuple | list):
        return 0 if output else None
    if isinstance(output, Mapping):
        return next(iter(output), None)
    if is_dataclass(output) and fields(output):
        return fields(output)[0].name
    return None


def _entry(output: Any, name: Any) -> object:
    return output[name] if isinstance(output, tuple | list | Mapping) else getattr(output, str(name))
