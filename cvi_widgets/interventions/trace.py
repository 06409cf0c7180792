"""A pass written down operation by operation, so that a changed value needs only what follows from it.

`record` runs the model once and keeps every tensor operation that depends on the images, whatever the module tree
looks like: residual branches, functional non-linearities, attention, modules called twice. `Trace.run` then repeats, of
these operations, those between the changed sites and the wanted ones, with all other values as they were. This is the
computation a hook would cause, without the part that cannot change.

A trace is not believed because it looks right: `engine.trusted` compares it with hooks, site by site, before it is
used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cvi_widgets.interventions.hooks import attached
from cvi_widgets.interventions.sites import Site

if TYPE_CHECKING:
    from cvi_widgets.interventions.model import Model

Change = Callable[[Tensor], Tensor]
"""From the value at a site, shape (n, unit, ...), to the value to go on with."""


class Ref(NamedTuple):
    """Stands for the value of this number among an operation's arguments."""

    number: int


class Op(NamedTuple):
    """One operation of the pass."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    writes: int | None
    """Position of the argument that the operation changes in place."""


class Slice(NamedTuple):
    """The operations that a change at some sites makes necessary for some targets."""

    ops: tuple[Op, ...]
    last_use: dict[int, int]


@dataclass
class Trace:
    """One recorded pass over a batch.

    Attributes
    ----------
    ops : operations that depend on the images, in order
    values : value by number; of a value that was later changed in place, a copy from before
    sites : number of the value at each site
    flaw : why the trace cannot stand for the model, or None
    """

    ops: list[Op] = field(repr=False)
    values: dict[int, Tensor] = field(repr=False)
    sites: dict[str, int]
    flaw: str | None
    _slices: dict[tuple[tuple[str, ...], tuple[str, ...]], Slice] = field(default_factory=dict, repr=False)

    def value(self, site: str) -> Tensor:
        """The recorded value at a site, shape (n, unit, ...)."""
        return self.values[self.sites[site]]

    @property
    def n_bytes(self) -> int:
        """Bytes of the values that the operations made; views are counted once."""
        made = {n for op in self.ops for n in op.outputs if n is not None}
        storages = {self.values[n].untyped_storage().data_ptr(): self.values[n].untyped_storage() for n in made}
        return sum(storage.nbytes() for storage in storages.values())

    def slice(self, changed: Sequence[str], targets: Sequence[str]) -> Slice:
        """Operations from the sites `changed` to the sites `targets`; empty where none leads there."""
        key = (tuple(changed), tuple(targets))
        if key not in self._slices:
            self._slices[key] = self._sliced(*key)
        return self._slices[key]

    def run(self, changes: Mapping[str, Change], targets: Sequence[str]) -> list[Tensor]:
        """Values at `targets` when the values at some sites are changed; sites are changed in order of execution.

        Parameters
        ----------
        changes : site to a function of its value, which sees what earlier changes made of it
        targets : sites to read, after any change there
        """
        part = self.slice(tuple(changes), tuple(targets))
        by_number = {self.sites[name]: change for name, change in changes.items()}
        wanted = {self.sites[name] for name in targets}
        made: dict[int, Tensor] = {}
        produced = {n for op in part.ops for n in op.outputs}
        for number, change in by_number.items():
            if number not in produced:
                made[number] = change(self.values[number])
        for step, op in enumerate(part.ops):
            for out, value in zip(op.outputs, self.call(op, made), strict=True):
                if out is not None and value is not None:
                    made[out] = by_number[out](value) if out in by_number else value
            for used in set(op.inputs):
                if part.last_use.get(used) == step and used not in wanted:
                    made.pop(used, None)
        return [made.get(self.sites[name], self.values[self.sites[name]]) for name in targets]

    def call(self, op: Op, made: Mapping[int, Tensor]) -> tuple[Tensor | None, ...]:
        """Run one operation with new values where there are some; nothing recorded is written to."""
        args = _mapped(op.args, lambda ref: made.get(ref.number, self.values[ref.number]))
        if op.writes is not None:
            args = (*args[: op.writes], args[op.writes].clone(), *args[op.writes + 1 :])
        out = op.func(*args, **_mapped(op.kwargs, lambda ref: made.get(ref.number, self.values[ref.number])))
        return _flat(out)

    def _sliced(self, changed: tuple[str, ...], targets: tuple[str, ...]) -> Slice:
        sources = {self.sites[name] for name in changed}
        dirty = set(sources)
        touched = []
        for op in self.ops:
            if any(n in dirty for n in op.inputs):
                dirty.update(n for n in op.outputs if n is not None)
                touched.append(op)
        needed = {self.sites[name] for name in targets} | sources
        kept: list[Op] = []
        for op in reversed(touched):
            if any(n in needed for n in op.outputs):
                # What is computed only to be overwritten at the first changed site is still needed by later changes.
                needed.update(n for n in op.inputs if n in dirty)
                kept.append(op)
        kept.reverse()
        last_use = {n: step for step, op in enumerate(kept) for n in op.inputs if n in dirty}
        return Slice(tuple(kept), last_use)


def record(model: Model, images: Tensor, *, decode: bool, sites: Iterable[Site] | None = None) -> Trace:
    """Run the model once over a checked batch and write the pass down.

    Parameters
    ----------
    images : (n, channel, y, x), as `Model.images` returns them
    decode : whether the decoder runs too
    sites : whose values can be read and changed; None for all that run
    """
    every = {s.name: s for s in (*model.site_map.aliases.values(), *model.site_map.sites.values())}
    recorder = _Recorder(images)
    edits = [(site, recorder.mark) for site in (every.values() if sites is None else sites)]
    with model.running(), attached(model.module, edits, model.through), recorder:
        model.forward(images, decode=decode)
    return recorder.trace()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below autograd, where composite functions have been taken apart."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self.values: dict[int, Tensor] = {}
        self.sites: dict[str, int] = {}
        self.flaws: list[str] = []
        self._numbers: dict[int, int] = {}
        # Python reuses the identity of an object that is gone, so everything numbered stays alive until the end.
        self._alive: list[Tensor] = []
        self._sharing: dict[int, list[int]] = {}
        self._stale: set[int] = set()
        self._dependent = {self._number(images)}

    def mark(self, value: Tensor, site: Site) -> Tensor:
        """Give the value at a site a name of its own, so that changing it reaches what reads this output only."""
        own: Tensor = torch.ops.aten.alias.default(value)
        self.sites[site.name] = self._numbers[id(own)]
        return own

    def trace(self) -> Trace:
        """What was recorded; a site of a module that ran twice has no one value and is left out."""
        used = {n for op in self.ops for n in (*op.inputs, *op.outputs) if n is not None} | set(self.sites.values())
        values = {n: value for n, value in self.values.items() if n in used}
        return Trace(self.ops, values, self.sites, self.flaws[0] if self.flaws else None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs: list[int] = []

        def ref(tensor: Tensor) -> Ref:
            inputs.append(self._number(tensor))
            return Ref(inputs[-1])

        refs, named = _mapped(args, ref, Tensor), _mapped(kwargs, ref, Tensor)
        depends = any(n in self._dependent for n in inputs)
        if depends and self._stale.intersection(inputs):
            self.flaws.append(f"{func} reads a view of memory that was changed in place")
        writes = self._prepare_write(func, args) if func._schema.is_mutable else None
        out = func(*args, **kwargs)
        outputs = _flat(out)
        if depends and any(o is None for o in outputs) and not any(isinstance(o, Tensor) for o in outputs):
            self.flaws.append(f"{func} reads a value that depends on the image into Python")
        numbers = tuple(self._number(o, new=True) if isinstance(o, Tensor) else None for o in outputs)
        if depends:
            self._dependent.update(n for n in numbers if n is not None)
            self.ops.append(Op(func, refs, named, tuple(inputs), numbers, writes))
        return out

    def _prepare_write(self, func: Any, args: tuple[Any, ...]) -> int | None:
        """Keep copies of all that is about to be overwritten."""
        written = [
            k for k, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
        ]
        if len(written) != 1 or written[0] >= len(args) or not isinstance(args[written[0]], Tensor):
            self.flaws.append(f"{func} changes more than one tensor in place")
            return None
        target = args[written[0]]
        number = self._numbers[id(target)]
        for other in self._sharing.pop(target.untyped_storage().data_ptr(), []):
            self.values[other] = self.values[other].clone()
            if other != number:
                self._stale.add(other)
        return written[0]

    def _number(self, tensor: Tensor, new: bool = False) -> int:
        if new or id(tensor) not in self._numbers:
            number = len(self.values)
            self._numbers[id(tensor)] = number
            self._alive.append(tensor)
            self.values[number] = tensor
            self._sharing.setdefault(tensor.untyped_storage().data_ptr(), []).append(number)
        return self._numbers[id(tensor)]


def _mapped(value: Any, function: Callable[[Any], Any], kind: type = Ref) -> Any:
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(v, function, kind) for v in value)
    if isinstance(value, dict):
        return {k: _mapped(v, function, kind) for k, v in value.items()}
    return value


def _flat(out: Any) -> tuple[Tensor | None, ...]:
    parts = out if isinstance(out, list | tuple) else (out,)
    return tuple(part if isinstance(part, Tensor) else None for part in parts)
