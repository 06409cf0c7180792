"""Swapping units one by one and reading mu: exactly, by the shortest computation that gives the same numbers.

Three methods, each exact up to rounding. `hooks` runs the whole encoder once per unit with a hook in place; it works
for every model and is the twin that the others are tested against. `suffix` keeps the value at the site and runs only
what follows. `linear` uses that a change of one channel changes the next linear layer's output by that layer applied to
the change alone: `W (a + d) = W a + W_c d_c`, then runs what follows that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions.model import BATCH, Images, Model
from cvi_widgets.interventions.sites import Site
from cvi_widgets.names import unknown

Method = Literal["auto", "hooks", "suffix", "linear"]
METHODS = ("auto", "hooks", "suffix", "linear")


class Step(NamedTuple):
    """The linear layer right after a site, split into its effect of one unit's change and what comes after."""

    layer: tuple[nn.Module, ...]
    change: Callable[[Tensor, int], Tensor]
    """Change of one unit, shape (n, ...), and the unit's number, to the change of the layer's output."""
    rest: tuple[nn.Module, ...]


def measured_sites(model: Model, sites: str | Sequence[str] | None) -> tuple[Site, ...]:
    """The sites named, or the default ones; only those that can act on mu.

    Raises
    ------
    SiteError
        When a site is unknown or lies behind mu.
    """
    if sites is None:
        return model.site_map.default()
    chosen = tuple(model.site(name) for name in ([sites] if isinstance(sites, str) else sites))
    for site in chosen:
        if site.side == "decoder" or site.name in ("latent.z", "latent.logvar"):
            raise SiteError(f"site {site.name!r} does not act on mu; allowed are encoder sites and latent.mu.")
    return chosen


def paired(model: Model, base: Images, source: Images) -> tuple[Tensor, Tensor]:
    """Both stacks of images, checked to be equally many."""
    b, s = model.images(base), model.images(source)
    if len(b) != len(s):
        raise DataError(f"base has {len(b)} images and source {len(s)}; pairs need as many of each.")
    return b, s


def batches(n: int) -> Iterator[slice]:
    """Slices of a fixed size over `n` pairs, so that memory does not grow with their number."""
    for start in range(0, n, BATCH):
        yield slice(start, start + BATCH)


def method_for(model: Model, site: Site, method: Method = "auto") -> Method:
    """The method that will be used at a site.

    Raises
    ------
    ConfigError
        When a method is asked for that the site does not allow.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    after = model.site_map.after(site)
    possible: list[Method] = ["hooks"]
    if after is not None:
        possible.insert(0, "suffix")
        if linear_step(after, site.shape):
            possible.insert(0, "linear")
    if method == "auto":
        return possible[0]
    if method not in possible:
        raise ConfigError(f"method {method!r} cannot be used at site {site.name!r}; allowed are {', '.join(possible)}.")
    return method


def swapped_mu(model: Model, site: Site, base: Tensor, source: Tensor, method: Method = "auto") -> Tensor:
    """mu of every base image with one unit at a time taken from its source image.

    Parameters
    ----------
    base, source : one batch of images, shape (pair, channel, y, x)

    Returns
    -------
    Tensor (unit, pair, latent).
    """
    chosen = method_for(model, site, method)
    if chosen == "hooks":
        return _by_hooks(model, site, base, source)
    with model.running():
        prefix = model.site_map.upto(site)
        a, b = _through(prefix, base), _through(prefix, source)
        after = model.site_map.after(site) or ()
        step = linear_step(after, site.shape) if chosen == "linear" else None
        if step is None:
            return torch.stack([_through(after, _swapped(a, b, unit)) for unit in range(site.n_units)])
        pre = _through(step.layer, a)
        change = b - a
        return torch.stack(
            [_through(step.rest, pre + step.change(change[:, unit], unit)) for unit in range(site.n_units)]
        )


def linear_step(after: Sequence[nn.Module], shape: Sequence[int]) -> Step | None:
    """The exact shortcut through the next layer, or None where that layer is not known to be linear in each unit.

    Exact types only: a subclass may do anything in its forward.
    """
    if not after:
        return None
    first = after[0]
    if type(first) is nn.Conv2d and first.groups == 1 and first.padding_mode == "zeros" and len(shape) == 3:
        conv = first

        def convolved(change: Tensor, unit: int) -> Tensor:
            kernel = conv.weight[:, unit : unit + 1]
            return conv2d(change[:, None], kernel, None, conv.stride, conv.padding, conv.dilation)

        return Step((first,), convolved, tuple(after[1:]))
    flat = type(first) is nn.Flatten and first.start_dim == 1 and first.end_dim in (-1, len(shape))
    layer = after[1] if flat and len(after) > 1 else first
    if type(layer) is nn.Linear and (flat or len(shape) == 1):
        per_unit = layer.weight.reshape(layer.out_features, shape[0], -1)

        def multiplied(change: Tensor, unit: int) -> Tensor:
            return change.reshape(len(change), -1) @ per_unit[:, unit].T

        used = 2 if flat else 1
        return Step(tuple(after[:used]), multiplied, tuple(after[used:]))
    return None


def _by_hooks(model: Model, site: Site, base: Tensor, source: Tensor) -> Tensor:
    value = model.values(source, [site])[site.name]
    out = []
    for unit in range(site.n_units):

        def swap(at: Tensor, _site: Site, unit: int = unit) -> Tensor:
            return _swapped(at, value, unit)

        with model.hooks([(site.name, swap)]):
            out.append(model.encode(base).mu)
    return torch.stack(out)


def _swapped(base: Tensor, source: Tensor, unit: int) -> Tensor:
    out = base.clone()
    out[:, unit] = source[:, unit]
    return out


def _through(modules: Sequence[nn.Module], value: Tensor) -> Tensor:
    for module in modules:
        value = module(value)
    return value
