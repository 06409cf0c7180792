"""Finding and naming the places where a model can be read and written.

The model runs once on a small random probe while every leaf module records what enters and leaves it. Layers with
weights become sites, named by side and path (`encoder.conv1`), and mean the value after the layer's non-linearity;
`encoder.conv1.pre` is the value before it. The path of any module that ran is accepted as an alias of its own output.
Four sites exist in every model whether or not a module makes them: `latent.mu`, `latent.logvar`, `latent.z` and
`decoder.output`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cvi_widgets.errors import SiteError
from cvi_widgets.names import nearest

Side = Literal["encoder", "latent", "decoder"]
LATENT_SITES = ("latent.mu", "latent.logvar", "latent.z")
OUTPUT_SITE = "decoder.output"


class Encoded(NamedTuple):
    """Posterior mean and log variance, shape (n, latent) each."""

    mu: Tensor
    logvar: Tensor


@dataclass(frozen=True)
class Site:
    """A named place in the computation.

    `module` is the path of the module whose output it is, or None where the value only passes through
    `encode`/`decode`; `shape` leaves out the example axis, its first entry counts the units.
    """

    name: str
    module: str | None
    shape: tuple[int, ...]
    side: Side

    @property
    def n_units(self) -> int:
        """Channels of a feature map, neurons of a flat layer."""
        return self.shape[0]

    @property
    def before_activation(self) -> bool:
        """Whether the value is taken before the layer's non-linearity."""
        return self.name.endswith(".pre")


class Call(NamedTuple):
    """One execution of a leaf module."""

    path: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    side: Side


@dataclass(frozen=True)
class SiteMap:
    """All sites of one model.

    Attributes
    ----------
    sites : name to site, in order of execution
    aliases : module path to site, for every leaf module that ran exactly once
    refused : module path to the reason why it is no site
    chain : modules from the image to mu, each fed by the one before and nothing else; empty where there is none
    """

    sites: Mapping[str, Site]
    aliases: Mapping[str, Site]
    refused: Mapping[str, str]
    chain: tuple[tuple[str, nn.Module], ...] = field(repr=False)

    def __getitem__(self, name: str) -> Site:
        """The site of this name or module path.

        Raises
        ------
        SiteError
            Naming the nearest site, or the reason why a module is refused.
        """
        if name in self.sites:
            return self.sites[name]
        if name in self.aliases:
            return self.aliases[name]
        if name in self.refused:
            raise SiteError(f"site {name!r} cannot be used: {self.refused[name]}.")
        guess = nearest(name, [*self.sites, *self.aliases])
        hint = f"; did you mean {guess}?" if guess else f"; sites are {', '.join(self.sites)}."
        raise SiteError(f"site {name!r} is unknown{hint}")

    def default(self) -> tuple[Site, ...]:
        """Encoder sites after their non-linearities, and mu: where patching and mediation look by default."""
        encoder = [s for s in self.sites.values() if s.side == "encoder" and not s.before_activation]
        return (*encoder, self.sites["latent.mu"])

    def after(self, site: Site) -> tuple[nn.Module, ...] | None:
        """Modules that turn this site's value into mu, or None where the value does not lie on the chain."""
        paths = [path for path, _ in self.chain]
        if site.module not in paths:
            return None
        return tuple(module for _, module in self.chain[paths.index(site.module) + 1 :])

    def upto(self, site: Site) -> tuple[nn.Module, ...]:
        """Modules that turn the image into this site's value; only for sites on the chain."""
        paths = [path for path, _ in self.chain]
        return tuple(module for _, module in self.chain[: paths.index(str(site.module)) + 1])


@contextmanager
def recording(module: nn.Module, calls: list[Call], side: Side) -> Iterator[None]:
    """Append one `Call` per leaf module that runs inside the block; hooks are removed however the block ends."""
    handles = []

    def hook_of(path: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(called: nn.Module, args: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor):
                first = args[0] if args and isinstance(args[0], Tensor) else None
                calls.append(Call(path, called, first, output, side))

        return hook

    try:
        for path, child in module.named_modules():
            if path and not any(child.children()):
                handles.append(child.register_forward_hook(hook_of(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def discover(
    module: nn.Module,
    encode: Callable[[Tensor], Encoded],
    decode: Callable[[Tensor], Tensor],
    probe: Tensor,
) -> SiteMap:
    """Run `probe` (n, channel, y, x) once through both halves and name what was seen.

    The caller has put the module into eval mode.
    """
    calls: list[Call] = []
    with recording(module, calls, "encoder"):
        encoded = encode(probe)
    with recording(module, calls, "decoder"):
        image = decode(encoded.mu)

    times = Counter(call.path for call in calls)
    refused = {
        path: f"module {path} runs {n} times in one pass, so its output has no single value"
        for path, n in times.items()
        if n > 1
    }
    aliases: dict[str, Site] = {}
    sites: dict[str, Site] = {}
    heads = {id(encoded.mu): "latent.mu", id(encoded.logvar): "latent.logvar"}
    latent = {name: Site(name, None, tuple(encoded.mu.shape[1:]), "latent") for name in LATENT_SITES}
    once = [call for call in calls if times[call.path] == 1]
    for call in once:
        aliases[call.path] = Site(call.path, call.path, tuple(call.output.shape[1:]), call.side)
        if call.side == "encoder" and id(call.output) in heads:
            name = heads[id(call.output)]
            latent[name] = replace(latent[name], module=call.path)
            aliases[call.path] = latent[name]
    head_paths = {site.module for site in latent.values()}
    layers = [i for i, call in enumerate(once) if _is_layer(call.module) and call.path not in head_paths]
    for side in ("encoder", "decoder"):
        for i in layers:
            if once[i].side == side:
                for site in _layer_sites(once, i):
                    sites[site.name] = site
                    aliases.setdefault(str(site.module), site)
                    if site.module is not None and aliases[site.module].name == site.module:
                        aliases[site.module] = site
        if side == "encoder":
            sites.update(latent)
    sites[OUTPUT_SITE] = Site(OUTPUT_SITE, None, tuple(image.shape[1:]), "decoder")
    return SiteMap(sites, aliases, refused, _chain(once, probe, encoded.mu))


def _layer_sites(calls: Sequence[Call], i: int) -> list[Site]:
    layer = calls[i]
    name = _named(layer.path, layer.side)
    last = layer
    for call in calls[i + 1 :]:
        if call.input is not last.output or call.side != layer.side:
            break
        if _is_activation(call):
            shape = tuple(layer.output.shape[1:])
            return [
                Site(f"{name}.pre", layer.path, shape, layer.side),
                Site(name, call.path, tuple(call.output.shape[1:]), layer.side),
            ]
        if not isinstance(call.module, _BETWEEN):
            break
        last = call
    return [Site(name, layer.path, tuple(layer.output.shape[1:]), layer.side)]


def _named(path: str, side: Side) -> str:
    return path if path.split(".")[0] == side else f"{side}.{path}"


def _chain(calls: Sequence[Call], image: Tensor, mu: Tensor) -> tuple[tuple[str, nn.Module], ...]:
    """Walk back from mu through modules fed by exactly one other; believe the walk only if it computes mu."""
    path: list[Call] = []
    wanted: Tensor | None = mu
    for call in reversed([c for c in calls if c.side == "encoder"]):
        if call.output is wanted:
            path.append(call)
            wanted = call.input
    path.reverse()
    if not path or wanted is None or wanted.shape != image.shape:
        return ()
    value = image
    for call in path:
        try:
            value = call.module(value)
        except (RuntimeError, TypeError):
            return ()
    same = value.shape == mu.shape and torch.allclose(value, mu, rtol=1e-4, atol=1e-5)
    return tuple((call.path, call.module) for call in path) if same else ()


_BETWEEN = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
)
"""What may stand between a layer and its non-linearity."""


def _is_layer(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters(recurse=False))


def _is_activation(call: Call) -> bool:
    if isinstance(call.module, _BETWEEN) or call.input is None:
        return False
    if type(call.module).__module__ == "torch.nn.modules.activation":
        return True
    return call.output.shape == call.input.shape and not any(True for _ in call.module.parameters())
