"""Hooks that are always taken away again, and a mode that is always put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cvi_widgets.errors import SiteError
from cvi_widgets.interventions.outputs import tensor_of, with_tensor
from cvi_widgets.interventions.sites import Site

Edit = Callable[[Tensor, Site], Tensor | None]
"""Called with the value at a site, shape (n, unit, ...), and the site; returns the new value, or None to keep."""


@contextmanager
def attached(module: nn.Module, edits: Sequence[tuple[Site, Edit]], through: dict[str, list[Edit]]) -> Iterator[None]:
    """Apply `edits` inside the block, in order; nothing stays behind, whatever ends the block.

    Sites that are a module's output get a forward hook there. The others are put into `through`, the table that the
    model's own `encode` and `decode` consult.
    """
    handles = []
    added: list[tuple[str, Edit]] = []
    modules = dict(module.named_modules())
    try:
        for site, edit in edits:
            if site.module is None:
                through.setdefault(site.name, []).append(edit)
                added.append((site.name, edit))
            else:
                handles.append(modules[site.module].register_forward_hook(_forward_hook(site, edit)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, edit in added:
            through[name].remove(edit)


def edited(value: Tensor, site: Site, edit: Edit) -> Tensor:
    """The value after `edit`, which must keep the shape.

    Raises
    ------
    SiteError
        When the edit returns another shape.
    """
    result = edit(value, site)
    if result is None:
        return value
    if result.shape != value.shape:
        raise SiteError(
            f"the edit at site {site.name!r} returned shape {tuple(result.shape)}; it must keep {tuple(value.shape)}."
        )
    return result.to(value.dtype)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside the block; every submodule's own train/eval flag is put back after it."""
    flags = [(child, child.training) for child in module.modules()]
    try:
        module.eval()
        # Not inference mode: a recorded pass needs composite operations taken apart, which happens above it.
        with torch.no_grad():
            yield
    finally:
        for child, training in flags:
            child.training = training


def _forward_hook(site: Site, edit: Edit) -> Callable[[nn.Module, tuple[object, ...], object], object]:
    def hook(_module: nn.Module, _args: tuple[object, ...], output: object) -> object:
        value = tensor_of(output)
        if value is None:
            raise SiteError(
                f"module {site.module} returned {type(output).__name__} this time, and a tensor when it was wrapped."
            )
        return with_tensor(output, edited(value, site, edit))

    return hook
