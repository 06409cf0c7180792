"""Finding and naming the places where a model can be read and written.

The model runs once on a small random probe while every module records what enters and leaves it. Layers with weights
become sites, named by side and path (`encoder.conv1`), and mean the value after the layer's non-linearity, where that
is a module of its own that runs once; `encoder.conv1.pre` is the value before it. The path of any module that ran once
is accepted as an alias of its own output; of an output with several entries, the first tensor counts.
Some sites exist whether or not a module makes them: `latent.mu`, `latent.logvar` (where the model has one), `latent.z`
and `decoder.output`, and `latent.code` in discrete models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import Tensor, nn

from cvi_widgets.errors import SiteError
from cvi_widgets.interventions.outputs import tensor_of
from cvi_widgets.names import nearest

Side = Literal["encoder", "latent", "decoder"]
OUTPUT_SITE = "decoder.output"


class Encoded(NamedTuple):
    """Posterior mean and log variance, shape (n, latent, ...) each; logvar is None where a model has none."""

    mu: Tensor
    logvar: Tensor | None


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
    """One execution of a module."""

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
    aliases : module path to site, for every module that ran exactly once
    refused : module path to the reason why it is no site
    """

    sites: Mapping[str, Site]
    aliases: Mapping[str, Site]
    refused: Mapping[str, str]

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


class Seen(NamedTuple):
    """What the probe found: executions of layers and of the modules around them, and what returned no tensor."""

    leaves: list[Call]
    containers: list[Call]
    other: dict[str, str]


@contextmanager
def recording(module: nn.Module, seen: Seen, side: Side, examples: int) -> Iterator[None]:
    """Note every module that runs inside the block; hooks are removed however the block ends."""
    handles = []

    def hook_of(path: str, leaf: bool) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(called: nn.Module, args: tuple[object, ...], output: object) -> None:
            value = tensor_of(output)
            if value is None or value.ndim < 2 or len(value) != examples:
                got = f"a tensor of shape {tuple(value.shape)}" if value is not None else type(output).__name__
                seen.other[path] = got
                return
            first = args[0] if args and isinstance(args[0], Tensor) else None
            (seen.leaves if leaf else seen.containers).append(Call(path, called, first, value, side))

        return hook

    try:
        for path, child in _modules(module):
            handles.append(child.register_forward_hook(hook_of(path, _is_leaf(child))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Paths and modules inside, without those that only compute a layer's weights."""
    return [(path, m) for path, m in module.named_modules() if path and "parametrizations" not in path.split(".")]


def _is_leaf(module: nn.Module) -> bool:
    return all(name == "parametrizations" for name, _ in module.named_children())


def discover(
    module: nn.Module,
    encode: Callable[[Tensor], Encoded],
    decode: Callable[[Tensor], Tensor],
    probe: Tensor,
    middle: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None,
) -> SiteMap:
    """Run `probe` (n, channel, y, x) once through both halves and name what was seen.

    The caller has put the module into eval mode.

    Parameters
    ----------
    middle : of a discrete model, mu to codes and codes to z
    """
    seen = Seen([], [], {})
    with recording(module, seen, "encoder", len(probe)):
        encoded = encode(probe)
    z, code = encoded.mu, None
    if middle is not None:
        code = middle[0](encoded.mu)
        z = middle[1](code)
    with recording(module, seen, "decoder", len(probe)):
        image = decode(z)

    times = Counter(call.path for call in (*seen.leaves, *seen.containers))
    refused = {path: f"module {path} runs in neither encode nor decode" for path, _ in _modules(module)}
    refused |= {
        path: f"module {path} returns {what}, not a value (example, unit, ...)" for path, what in seen.other.items()
    }
    refused |= {
        path: f"module {path} runs {n} times in one pass, so its output has no single value"
        for path, n in times.items()
        if n > 1
    }
    named = {"latent.mu": encoded.mu, "latent.logvar": encoded.logvar, "latent.code": code, "latent.z": z}
    latent = {
        name: Site(name, None, tuple(value.shape[1:]), "latent") for name, value in named.items() if value is not None
    }
    heads = {id(encoded.mu): "latent.mu"}
    if encoded.logvar is not None:
        heads[id(encoded.logvar)] = "latent.logvar"
    aliases: dict[str, Site] = {}
    sites: dict[str, Site] = {}
    once = [call for call in seen.leaves if times[call.path] == 1]
    for call in (*once, *(c for c in seen.containers if times[c.path] == 1)):
        aliases[call.path] = Site(call.path, call.path, tuple(call.output.shape[1:]), call.side)
    for call in once:
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
    # One module under two paths is one site, or is refused under both.
    first = {id(m): path for path, m in _modules(module)}
    for path, m in module.named_modules(remove_duplicate=False):
        original = first.get(id(m), path)
        if original != path and original in aliases:
            aliases[path] = aliases[original]
        elif original != path and original in refused:
            refused[path] = refused[original]
    return SiteMap(sites, aliases, refused)


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
    # Of a leaf, all parameters are its own or parametrise its own.
    return any(p.ndim >= 2 for p in module.parameters())


def _is_activation(call: Call) -> bool:
    if isinstance(call.module, _BETWEEN) or call.input is None:
        return False
    if type(call.module).__module__ == "torch.nn.modules.activation":
        return True
    return call.output.shape == call.input.shape and not any(True for _ in call.module.parameters())
