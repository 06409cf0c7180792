"""How a change travels through an operation without the operation being run on the whole value.

A linear operation maps a change to a change: `W (a + d) = W a + W d`, and of `W` only the part that meets the changed
units is needed. An operation that acts on each channel by itself maps a change of some channels to a change of the same
channels. Both are exact. Where neither holds, the caller adds the change to the recorded value and runs the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvi_widgets.interventions.trace import Op, Ref, Trace

aten = torch.ops.aten


@dataclass(frozen=True)
class Delta:
    """A change of some neighbouring channels, or of the whole value where `start` is None.

    `values` has shape (n, length, ...): the change of channels start to start + length.
    """

    values: Tensor
    start: int | None = None

    @property
    def channels(self) -> slice:
        """The channels that change."""
        return slice(None) if self.start is None else slice(self.start, self.start + self.values.shape[1])

    def added_to(self, value: Tensor) -> Tensor:
        """`value` with the change, as a new tensor."""
        if self.start is None:
            return value + self.values
        out = value.clone()
        out[:, self.channels] += self.values
        return out

    def dense(self, like: Tensor) -> Tensor:
        """The change of all of `like`."""
        if self.start is None:
            return self.values
        out = torch.zeros_like(like)
        out[:, self.channels] = self.values
        return out


Deltas = Mapping[int, Delta]
Rule = Callable[[Trace, Op, Delta], Delta | None]


def change_of(trace: Trace, op: Op, deltas: Deltas) -> Delta | None:
    """Change of the operation's first output, or None where it has to be run.

    Parameters
    ----------
    deltas : change by number, of the inputs that change
    """
    changed = [n for n in op.inputs if n in deltas]
    if op.func in _SUMS:
        return _sum(trace, op, deltas)
    if len(changed) != 1 or not op.args or op.args[0] != Ref(changed[0]):
        return _second(trace, op, deltas)
    rule = _RULES.get(op.func)
    return None if rule is None else rule(trace, op, deltas[changed[0]])


def projected(trace: Trace, site: str, target: str) -> Tensor | None:
    """The matrix W (unit, position, out) where the target is `W a + c` of the site's value a by one product, or None.

    Between the two only copies and flattening may stand, as between the last feature map of most encoders and mu.
    """
    number, shape = trace.sites[site], trace.value(site).shape
    product: Tensor | None = None
    for op in trace.slice((site,), (target,)).ops:
        if number not in op.inputs or op.outputs[0] is None:
            return None
        before, after = trace.values[number].shape, trace.values[op.outputs[0]].shape
        flattened = len(after) == 2 and before[:1] == after[:1] and op.func in _VIEWS
        if op.func in _PRODUCTS and product is None:
            at = _PRODUCTS[op.func]
            weight = op.args[at + 1]
            if op.args[at] != Ref(number) or weight == Ref(number):
                return None
            product = trace.values[weight.number]
        elif op.func not in _COPIES and not flattened:
            return None
        number = op.outputs[0]
    if product is None or number != trace.sites[target]:
        return None
    return product.reshape(shape[1], -1, product.shape[1])


def _arg(trace: Trace, op: Op, at: int, default: Any = None) -> Any:
    value = op.args[at] if len(op.args) > at else default
    return trace.values[value.number] if isinstance(value, Ref) else value


def _rest(trace: Trace, op: Op) -> list[Any]:
    return [_arg(trace, op, k) for k in range(1, len(op.args))]


def _copied(_trace: Trace, _op: Op, delta: Delta) -> Delta:
    return delta


def _viewed(trace: Trace, op: Op, delta: Delta) -> Delta:
    before, after = trace.values[op.inputs[0]].shape, trace.values[_first(op)].shape
    if delta.start is not None and len(before) >= 2 and before[:1] == after[:1] and len(after) == 2:
        # Flattening keeps a channel's values next to each other.
        values = delta.values.reshape(len(delta.values), -1)
        return Delta(values, delta.start * (after[1] // before[1]))
    if delta.start is not None and before[:2] == after[:2]:
        return Delta(delta.values.reshape(*delta.values.shape[:2], *after[2:]), delta.start)
    return Delta(delta.dense(trace.values[op.inputs[0]]).reshape(after))


def _moved(trace: Trace, op: Op, delta: Delta) -> Delta:
    before, after = trace.values[op.inputs[0]].shape, trace.values[_first(op)].shape
    if delta.start is not None and op.func in _SPATIAL and before[:2] == after[:2] and len(before) == len(after):
        return Delta(op.func(delta.values, *_rest(trace, op), **op.kwargs), delta.start)
    dense = delta.dense(trace.values[op.inputs[0]])
    return Delta(op.func(dense, *_rest(trace, op), **op.kwargs))


def _convolved(trace: Trace, op: Op, delta: Delta) -> Delta:
    weight, _, stride, padding, dilation, transposed, extra, groups = _rest(trace, op)
    values = delta.values
    if delta.start is not None and groups == 1:
        weight = weight[delta.channels] if transposed else weight[:, delta.channels]
    else:
        values = delta.dense(trace.values[op.inputs[0]])
    return Delta(aten.convolution.default(values, weight, None, stride, padding, dilation, transposed, extra, groups))


def _multiplied(trace: Trace, op: Op, delta: Delta) -> Delta | None:
    weight = _arg(trace, op, 1)
    return Delta(delta.values @ weight[delta.channels]) if weight.ndim == 2 else None


def _normalised(trace: Trace, op: Op, delta: Delta) -> Delta | None:
    """Batch norm in eval mode is one scale per channel."""
    rest = _rest(trace, op)
    weight, var = rest[0], rest[3]
    if op.func is aten.native_batch_norm.default and rest[4]:
        return None
    scale = torch.rsqrt(var + rest[-1])
    if weight is not None:
        scale = weight * scale
    shape = (1, -1, *(1,) * (delta.values.ndim - 2))
    return Delta(delta.values * scale[delta.channels].reshape(shape), delta.start)


def _per_channel(trace: Trace, op: Op, delta: Delta) -> Delta | None:
    """Any operation that treats every channel alone: run it on the changed channels only."""
    before, after = trace.values[op.inputs[0]], trace.values[_first(op)]
    if delta.start is None or before.shape[1] != after.shape[1]:
        return None
    value = before[:, delta.channels] + delta.values
    out = op.func(value, *_rest(trace, op), **op.kwargs)
    first: Tensor = out[0] if isinstance(out, tuple) else out
    return Delta(first - after[:, delta.channels], delta.start)


def _scaled(trace: Trace, op: Op, delta: Delta) -> Delta | None:
    """Product with, or quotient by, something that does not change."""
    other = _arg(trace, op, 1)
    if not isinstance(other, Tensor) or other.ndim == 0:
        return Delta(op.func(delta.values, other), delta.start)
    base = trace.values[op.inputs[0]]
    after = trace.values[_first(op)].shape
    if delta.start is not None and other.ndim == len(after) == base.ndim and base.shape == after:
        part = other if other.shape[1] == 1 else other[:, delta.channels]
        return Delta(op.func(delta.values, part), delta.start)
    return Delta(op.func(delta.dense(base), other))


def _sum(trace: Trace, op: Op, deltas: Deltas) -> Delta | None:
    """a + k b, where one or both change."""
    factor = op.kwargs.get("alpha", 1) * (-1 if op.func in _DIFFERENCES else 1)
    terms = [(op.args[0], 1.0), (op.args[1], factor)]
    moving = [(ref.number, k) for ref, k in terms if isinstance(ref, Ref) and ref.number in deltas]
    after = trace.values[_first(op)]
    parts = []
    for number, k in moving:
        delta = deltas[number]
        if trace.values[number].shape != after.shape:
            delta = Delta(delta.dense(trace.values[number]).expand(after.shape))
        parts.append(delta if k == 1 else Delta(delta.values * k, delta.start))
    if len(parts) == 1:
        return parts[0]
    if len({(p.start, p.values.shape) for p in parts}) == 1:
        return Delta(parts[0].values + parts[1].values, parts[0].start)
    return Delta(parts[0].dense(after) + parts[1].dense(after))


def _second(trace: Trace, op: Op, deltas: Deltas) -> Delta | None:
    """Operations whose changing input is not their first argument."""
    if op.func is aten.addmm.default and len(op.args) == 3 and not op.kwargs:
        bias, left, right = op.args
        if left.number in deltas and bias.number not in deltas and right.number not in deltas:
            weight = trace.values[right.number]
            delta = deltas[left.number]
            return Delta(delta.values @ weight[delta.channels])
    if op.func is aten.mul.Tensor and isinstance(op.args[1], Ref) and op.args[1].number in deltas:
        first = op.args[0]
        if isinstance(first, Ref) and first.number not in deltas:
            delta = deltas[op.args[1].number]
            return Delta(delta.dense(trace.values[op.args[1].number]) * trace.values[first.number])
    if op.func is aten.cat.default:
        parts = [
            deltas[ref.number].dense(trace.values[ref.number])
            if ref.number in deltas
            else torch.zeros_like(trace.values[ref.number])
            for ref in op.args[0]
        ]
        return Delta(torch.cat(parts, *op.args[1:], **op.kwargs))
    return None


def _first(op: Op) -> int:
    number = op.outputs[0]
    assert number is not None
    return number


def _named(names: str) -> list[Any]:
    """Operations by name; those this version of torch does not have are left out."""
    found = []
    for name in names.split():
        base, _, overload = name.partition(".")
        packet = getattr(aten, base, None)
        if packet is not None and overload in packet.overloads():
            found.append(getattr(packet, overload))
    return found


_COPIES = frozenset(_named("alias.default clone.default detach.default"))
_VIEWS = frozenset(_named("view.default _unsafe_view.default reshape.default"))
_SUMS = frozenset(_named("add.Tensor add_.Tensor sub.Tensor sub_.Tensor"))
_DIFFERENCES = frozenset(_named("sub.Tensor sub_.Tensor"))
_PRODUCTS = dict(zip(_named("mm.default addmm.default"), (0, 1), strict=True))
_SPATIAL = frozenset(
    _named(
        "upsample_bilinear2d.default upsample_nearest2d.default reflection_pad2d.default replication_pad2d.default "
        "_adaptive_avg_pool2d.default avg_pool2d.default"
    )
)
_MOVES = _named(
    "permute.default transpose.int t.default expand.default squeeze.dim squeeze.dims unsqueeze.default slice.Tensor "
    "select.int mean.dim sum.dim_IntList"
)
_ALONE = _named(
    "relu.default relu_.default leaky_relu.default leaky_relu_.default elu.default elu_.default silu.default "
    "silu_.default gelu.default sigmoid.default sigmoid_.default tanh.default tanh_.default hardtanh.default "
    "hardtanh_.default softplus.default hardswish.default hardswish_.default mish.default clamp.default "
    "max_pool2d_with_indices.default"
)
_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_COPIES, _copied),
    **dict.fromkeys(_VIEWS, _viewed),
    **dict.fromkeys((*_MOVES, *_SPATIAL), _moved),
    **dict.fromkeys(_ALONE, _per_channel),
    **dict.fromkeys(_named("mul.Tensor mul.Scalar div.Tensor div.Scalar"), _scaled),
    **dict.fromkeys(_named("native_batch_norm.default _native_batch_norm_legit_no_training.default"), _normalised),
    aten.convolution.default: _convolved,
    aten.mm.default: _multiplied,
}
