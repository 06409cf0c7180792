"""Changing units one by one and reading an outcome: exactly, by the shortest computation that gives the same.

Three methods, each exact up to rounding. `hooks` runs the whole model once per unit with a hook in place; it works for
every model and is the twin that the others are tested against. `suffix` repeats only the operations that follow from
the site (see `trace`). `linear` also sends the change of a unit through the linear operations that follow by itself,
and adds it to what was recorded before the first operation that is not linear (see `linear`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cvi_widgets.errors import ConfigError, DataError
from cvi_widgets.interventions.linear import Delta, change_of, projected
from cvi_widgets.interventions.model import BATCH, Images, Model
from cvi_widgets.interventions.outcomes import Readout
from cvi_widgets.interventions.sites import Site
from cvi_widgets.interventions.trace import Change, Slice, Trace, record
from cvi_widgets.names import unknown

Method = Literal["auto", "hooks", "suffix", "linear"]
METHODS = ("auto", "hooks", "suffix", "linear")
Units = str | int | Sequence[int] | Sequence[Sequence[int]]
"""`each` unit of a site by itself, `all` of them at once, the units of a list one by one, or lists of units."""
Groups = list[list[int]]
BUDGET = 2**30
"""Bytes that the traces of one batch of pairs and the re-runs on them may take, unless told otherwise."""
TRACES = 4
"""Base and source are kept, and a re-run makes at most as much again of either."""


class Traced(NamedTuple):
    """One batch of pairs, run."""

    base: Trace
    source: Trace


_TRUSTED: WeakKeyDictionary[Model, dict[tuple[str, tuple[str, ...]], bool]] = WeakKeyDictionary()


def paired(model: Model, base: Images, source: Images) -> tuple[Tensor, Tensor]:
    """Both stacks of images, checked to be equally many."""
    b, s = model.images(base), model.images(source)
    if len(b) != len(s):
        raise DataError(f"base has {len(b)} images and source {len(s)}; pairs need as many of each.")
    return b, s


def batches(n: int, size: int = BATCH) -> Iterator[slice]:
    """Slices of a fixed size over `n` pairs, so that memory does not grow with their number."""
    for start in range(0, n, size):
        yield slice(start, start + size)


def pairs_per_batch(model: Model, decode: bool, budget: int = BUDGET) -> int:
    """How many pairs fit into the budget at once; at most 64, beyond which nothing gets faster.

    Raises
    ------
    ConfigError
        When not even one pair fits.
    """
    probe = torch.zeros((2, *model.image_shape), device=model.device)
    each = record(model, probe, decode=decode).n_bytes / 2
    fitting = int(budget / (each * TRACES))
    if fitting < 1:
        raise ConfigError(
            f"setting 'budget' is {budget} bytes: one pair of this model needs {int(each * TRACES):,} bytes."
        )
    return min(BATCH, fitting)


def traced(model: Model, base: Tensor, source: Tensor, decode: bool, budget: int = BUDGET) -> Iterator[Traced]:
    """Base and source runs of all pairs, a batch at a time."""
    for b in batches(len(base), pairs_per_batch(model, decode, budget)):
        yield Traced(record(model, base[b], decode=decode), record(model, source[b], decode=decode))


def unit_groups(site: Site, units: Units) -> Groups:
    """Which units of a site change together.

    Raises
    ------
    ConfigError
        When the word is none of `each` and `all`, or a unit does not exist.
    """
    if isinstance(units, str):
        if units not in ("each", "all"):
            raise ConfigError(unknown("units", units, ("each", "all")))
        return [[u] for u in range(site.n_units)] if units == "each" else [list(range(site.n_units))]
    listed: list[Any] = [units] if isinstance(units, int) else list(units)
    groups = [[int(v) for v in u] if isinstance(u, Sequence) else [int(u)] for u in listed]
    for unit in (u for group in groups for u in group):
        if not 0 <= unit < site.n_units:
            raise ConfigError(
                f"unit {unit} does not exist at site {site.name!r}, which has units 0 to {site.n_units - 1}."
            )
    return groups


def method_for(model: Model, site: Site, outcome: Readout, method: Method = "auto") -> Method:
    """The method that will be used at a site.

    Raises
    ------
    ConfigError
        When a method is asked for that the model does not allow there.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if method == "hooks":
        return method
    if not trusted(model, site, outcome.targets):
        if method == "auto":
            return "hooks"
        raise ConfigError(
            f"method {method!r} cannot be used at site {site.name!r}, because a recorded pass does not give what hooks "
            "give there; allowed is hooks."
        )
    if site.name == "latent.code":
        # Codes are names: their differences mean nothing.
        return "suffix"
    return "linear" if method == "auto" else method


def trusted(model: Model, site: Site, targets: tuple[str, ...]) -> bool:
    """Whether a recorded pass gives what hooks give when this site changes; tried once on two random images."""
    known = _TRUSTED.setdefault(model, {})
    key = (site.name, targets)
    if key not in known:
        known[key] = _agrees(model, site, targets)
    return known[key]


def each_unit(
    model: Model,
    trace: Trace,
    images: Tensor,
    site: Site,
    new: Tensor,
    groups: Groups,
    outcome: Readout,
    method: Method = "auto",
) -> Iterator[Tensor]:
    """The outcome when one group of units after the other takes its new value and the rest of the site is as recorded.

    Parameters
    ----------
    trace, images : the recorded run and its images, shape (n, channel, y, x); images are used by `hooks` only
    new : values at the site, shape (n, unit, ...)
    groups : units that change together

    Yields
    ------
    Tensor (group, n, component, ...): blocks of groups, in order
    """
    chosen = method_for(model, site, outcome, method)
    for values in _values(model, trace, images, site, new, groups, outcome.targets, chosen):
        block, n = next(iter(values.values())).shape[:2]
        found = outcome.read({name: value.flatten(0, 1) for name, value in values.items()})
        yield found.reshape(block, n, *found.shape[1:])


def reached(
    model: Model,
    trace: Trace,
    images: Tensor,
    site: Site,
    new: Tensor,
    groups: Groups,
    target: Site,
    method: Method = "auto",
) -> Iterator[Tensor]:
    """Values (n, unit, ...) at a site further on, when one group of units after the other takes its new value."""
    chosen = "linear" if method == "auto" else method
    if not trusted(model, site, (target.name,)):
        chosen = "hooks"
    for values in _values(model, trace, images, site, new, groups, (target.name,), chosen):
        yield from values[target.name]


def read(trace: Trace, outcome: Readout) -> Tensor:
    """The outcome of a recorded run, shape (n, component, ...)."""
    return outcome.read({name: trace.value(name) for name in outcome.targets})


def _values(
    model: Model,
    trace: Trace,
    images: Tensor,
    site: Site,
    new: Tensor,
    groups: Groups,
    targets: tuple[str, ...],
    method: Method,
) -> Iterator[dict[str, Tensor]]:
    blocks: Iterator[dict[str, Tensor]]
    if method == "hooks":
        blocks = (_block(_hooked(model, images, site, new, group, targets)) for group in groups)
    elif method == "suffix":
        blocks = (_block(_rerun(trace, site.name, new, group, targets)) for group in groups)
    else:
        blocks = _travelled(trace, site.name, new, groups, targets)
    # Never left open across a yield: a generator that nobody finishes would keep the mode switched.
    while True:
        with model.running():
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _rerun(trace: Trace, site: str, new: Tensor, group: Sequence[int], targets: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(zip(targets, trace.run({site: _swap(new, group)}, targets), strict=True))


def _travelled(
    trace: Trace, site: str, new: Tensor, groups: Groups, targets: tuple[str, ...]
) -> Iterator[dict[str, Tensor]]:
    base = trace.value(site)
    change = new - base
    matrix = projected(trace, site, targets[0]) if len(targets) == 1 else None
    if matrix is not None and all(len(group) == 1 for group in groups):
        units = [group[0] for group in groups]
        flat = change.flatten(2) if change.ndim > 2 else change[..., None]
        moved = torch.bmm(flat[:, units].transpose(0, 1), matrix[units])
        yield {targets[0]: trace.value(targets[0]) + moved}
        return
    part = trace.slice((site,), targets)
    for group in groups:
        yield _block(_travel(trace, part, site, _delta(change, group), targets))


def _travel(trace: Trace, part: Slice, site: str, delta: Delta, targets: Sequence[str]) -> dict[str, Tensor]:
    deltas, made = {trace.sites[site]: delta}, dict[int, Tensor]()
    used = {n for op in part.ops for n in op.inputs}
    wanted = {trace.sites[name] for name in targets}
    for step, op in enumerate(part.ops):
        first = op.outputs[0]
        change = None
        if first is not None and used.isdisjoint(op.outputs[1:]) and made.keys().isdisjoint(op.inputs):
            change = change_of(trace, op, deltas)
        if change is not None and first is not None:
            deltas[first] = change
        else:
            for number in deltas.keys() & set(op.inputs):
                made[number] = deltas[number].added_to(trace.values[number])
            made |= {
                n: v for n, v in zip(op.outputs, trace.call(op, made), strict=True) if n is not None and v is not None
            }
        for number in set(op.inputs):
            if part.last_use.get(number) == step and number not in wanted:
                made.pop(number, None)
                deltas.pop(number, None)
    out = {}
    for name in targets:
        number = trace.sites[name]
        if number in deltas:
            out[name] = deltas[number].added_to(trace.values[number])
        else:
            out[name] = made.get(number, trace.values[number])
    return out


def _block(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[None] for name, value in values.items()}


def _delta(change: Tensor, group: Sequence[int]) -> Delta:
    if list(group) == list(range(group[0], group[0] + len(group))):
        return Delta(change[:, group[0] : group[0] + len(group)], group[0])
    kept = torch.zeros_like(change)
    kept[:, list(group)] = change[:, list(group)]
    return Delta(kept)


def _hooked(
    model: Model, images: Tensor, site: Site, new: Tensor, group: Sequence[int], targets: tuple[str, ...]
) -> dict[str, Tensor]:
    swap = _swap(new, group)
    with model.hooks([(site.name, lambda value, _site: swap(value))]):
        return model.values(images, [model.site(name) for name in targets])


def _swap(new: Tensor, units: Sequence[int]) -> Change:
    """Takes some units from `new` and leaves the others."""
    index = list(units)

    def swapped(value: Tensor) -> Tensor:
        out = value.clone()
        out[:, index] = new[:, index].to(value.dtype)
        return out

    return swapped


def _agrees(model: Model, site: Site, targets: tuple[str, ...]) -> bool:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((2, *model.image_shape), generator=generator).to(model.device)
    decode = any(model.site(name).side == "decoder" or name == "latent.z" for name in (site.name, *targets))
    trace = record(model, images, decode=decode)
    if trace.flaw is not None or any(name not in trace.sites for name in (site.name, *targets)):
        return False
    value = trace.value(site.name)
    new = value.flip(0)
    if value.is_floating_point():
        # Also where both examples have the same value, say zero, something has to change for the test to mean anything.
        new = new + (value.std() + 1e-3) * torch.randn(value.shape, generator=generator).to(value)
    for group in ([0], [site.n_units - 1], list(range(site.n_units))):
        twin = _values(model, trace, images, site, new, [group], targets, "hooks")
        fast = [_values(model, trace, images, site, new, [group], targets, "suffix")]
        if value.is_floating_point():
            fast.append(_values(model, trace, images, site, new, [group], targets, "linear"))
        expected = next(iter(twin))
        for found in (next(iter(values)) for values in fast):
            for name in targets:
                scale = float(expected[name].abs().max()) + 1e-6
                if not torch.allclose(found[name].float(), expected[name].float(), rtol=1e-3, atol=1e-4 * scale):
                    return False
    return True
