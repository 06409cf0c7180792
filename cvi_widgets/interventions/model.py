"""`wrap`: the uniform surface of any torch VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from cvi_widgets.errors import ConfigError, DataError
from cvi_widgets.interventions.hooks import Edit, attached, edited, evaluating
from cvi_widgets.interventions.sites import OUTPUT_SITE, Encoded, Site, SiteMap, discover
from cvi_widgets.interventions.values import Intervention

Images = np.ndarray[Any, Any] | Tensor
"""Float32 images (n, channel, y, x), values in [0, 1]."""
Hooks = Iterable["tuple[str, Edit] | Intervention"]
NamesFilter = str | Sequence[str] | Callable[[str], bool] | None
BATCH = 64
"""Examples per forward pass: larger batches are slower on a CPU, where their buffers are faulted in anew each pass."""


class Pass(NamedTuple):
    """What one pass gives: posterior (n, latent), the z that was decoded, and the image (n, channel, y, x)."""

    mu: Tensor
    logvar: Tensor
    z: Tensor
    image: Tensor


class Model:
    """A wrapped module; make one with `wrap`.

    Everything runs in eval mode, in float32 and without gradients; the module's train/eval flags are put back after
    each call. z is mu.

    Attributes
    ----------
    module : the torch module, unchanged
    image_shape : (channel, y, x)
    """

    def __init__(
        self,
        module: nn.Module,
        encode: Callable[[Tensor], object],
        decode: Callable[[Tensor], object],
        image_shape: tuple[int, int, int],
    ) -> None:
        self.module = module
        self.image_shape = image_shape
        self._encode_own = encode
        self._decode_own = decode
        self._through: dict[str, list[Edit]] = {}
        self._active = 0
        weight = next(module.parameters(), None)
        self.device = weight.device if weight is not None else torch.device("cpu")
        if weight is not None and weight.dtype != torch.float32:
            raise ConfigError(
                f"the module's weights are {weight.dtype}; measuring needs float32, so call .float() first."
            )
        probe = torch.rand((2, *image_shape), generator=torch.Generator().manual_seed(0)).to(self.device)
        with evaluating(module):
            self.site_map: SiteMap = discover(module, self._encoded, self._decoded, probe)

    @property
    def n_latents(self) -> int:
        """Coordinates of the code."""
        return self.site_map["latent.mu"].n_units

    def sites(self) -> pd.DataFrame:
        """Table of all sites: index `site`; columns module, shape, n_units, side, in order of execution."""
        rows = [(s.name, s.module or "", s.shape, s.n_units, s.side) for s in self.site_map.sites.values()]
        return pd.DataFrame(rows, columns=["site", "module", "shape", "n_units", "side"]).set_index("site")

    def site(self, name: str) -> Site:
        """The site of this name or module path; raises `SiteError` with the nearest match."""
        return self.site_map[name]

    def encode(self, x: Images) -> Encoded:
        """Posterior mean and log variance of images, shape (n, latent) each."""
        images = self.images(x)
        with self.running():
            parts = [self._encoded_through(images[b]) for b in self._batches(len(images))]
        return Encoded(*(torch.cat(p).float() for p in zip(*parts, strict=True)))

    def decode(self, z: Images) -> Tensor:
        """Images (n, channel, y, x) of codes (n, latent)."""
        codes = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        if codes.ndim != 2 or codes.shape[1] != self.n_latents:
            raise DataError(f"codes have shape {tuple(codes.shape)}; the model takes (n, {self.n_latents}).")
        with self.running():
            return torch.cat([self._decoded_through(codes[b])[1] for b in self._batches(len(codes))]).float()

    def run_with_hooks(self, x: Images, hooks: Hooks) -> Pass:
        """One pass over all of `x` with `hooks` in place.

        Parameters
        ----------
        x : images (n, channel, y, x)
        hooks : list of (site, fn) or `Intervention`
            `fn(value, site)` sees the whole batch, shape (n, unit, ...), and returns the value to go on with, or None.
        """
        images = self.images(x)
        with self.hooks(hooks), self.running():
            return self._pass(images)

    def run_with_cache(self, x: Images, names_filter: NamesFilter = None) -> tuple[Pass, xr.DataTree]:
        """One pass with the values at sites kept.

        Values are post-intervention: what the rest of the network saw, after any hooks that are in place.

        Parameters
        ----------
        x : images (n, channel, y, x)
        names_filter : None for all sites, a site, a list of sites, or a function of a site's name

        Returns
        -------
        Pass, and a DataTree with one child per site; its variable `act` has dims (example, channel[, y, x]).
        """
        images = self.images(x)
        chosen = self._chosen(names_filter)
        with self.running():
            parts = [self._captured(images[b], chosen) for b in self._batches(len(images))]
        out = Pass(*(torch.cat(p) for p in zip(*(part[0] for part in parts), strict=True)))
        groups = {s.name: _activation(s, [part[1][s.name] for part in parts]) for s in chosen}
        cache = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"values": "post-intervention"}), **groups})
        return out, cache

    def values(self, x: Images, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Values at sites as tensors (n, unit, ...), by name, from one pass over all of `x`; post-intervention.

        The decoder runs only if one of the sites needs it.
        """
        images = self.images(x)
        kept: dict[str, Tensor] = {}
        with self.running(), attached(self.module, [(site, _keeper(kept)) for site in sites], self._through):
            encoded = self._encoded_through(images)
            if any(s.side == "decoder" or s.name == "latent.z" for s in sites):
                self._decoded_through(encoded.mu)
        return kept

    @contextmanager
    def hooks(self, hooks: Hooks) -> Iterator[Model]:
        """Hooks in place inside the block, for every call on this model and, at modules, on the module itself.

        They are gone after it, also after an exception or Ctrl-C. While they are in place, calls do not split `x` into
        batches, so that every hook sees all examples.
        """
        edits = [self._edit(hook) for hook in hooks]
        with attached(self.module, edits, self._through):
            self._active += 1
            try:
                yield self
            finally:
                self._active -= 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Eval mode, float32, no gradients inside the block; what was set before is put back after it."""
        with evaluating(self.module), torch.autocast(self.device.type, enabled=False):
            yield

    def images(self, x: Images) -> Tensor:
        """`x` as a float32 tensor on the model's device, its shape and type checked.

        Raises
        ------
        DataError
            Saying what shape and type the model takes.
        """
        images = torch.as_tensor(x)
        if not images.is_floating_point():
            raise DataError(f"images are {images.dtype}; give float32 in [0, 1] (for bytes, divide by 255).")
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape or not len(images):
            wanted = ", ".join(map(str, self.image_shape))
            raise DataError(
                f"images have shape {tuple(images.shape)}; the model takes (n, {wanted}) with n at least 1."
            )
        return images.to(self.device, torch.float32)

    def __repr__(self) -> str:
        counts = self.sites()["side"].value_counts()
        listed = ", ".join(f"{counts.get(side, 0)} {side}" for side in ("encoder", "latent", "decoder"))
        name = type(self.module).__name__
        return f"<Model of {name}: images {self.image_shape}, {self.n_latents} latents, sites {listed}>"

    # The private calls below assume eval mode and images that are checked.

    def _encoded(self, x: Tensor) -> Encoded:
        result = self._encode_own(x)
        mu, logvar = getattr(result, "mu", None), getattr(result, "logvar", None)
        if mu is None and isinstance(result, tuple | list) and len(result) >= 2:
            mu, logvar = result[0], result[1]
        if not (isinstance(mu, Tensor) and isinstance(logvar, Tensor) and mu.ndim == 2 and mu.shape == logvar.shape):
            raise ConfigError(
                f"encode returned {type(result).__name__}; it must return mu and logvar, each of shape (n, latent), "
                "as a tuple or as attributes of these names."
            )
        return Encoded(mu, logvar)

    def _decoded(self, z: Tensor) -> Tensor:
        result = self._decode_own(z)
        if not isinstance(result, Tensor) or tuple(result.shape[1:]) != self.image_shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ConfigError(f"decode returned {got}; it must return images of shape (n, *{self.image_shape}).")
        return result

    def _encoded_through(self, x: Tensor) -> Encoded:
        encoded = self._encoded(x)
        return Encoded(self._at("latent.mu", encoded.mu), self._at("latent.logvar", encoded.logvar))

    def _decoded_through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        code = self._at("latent.z", z)
        return code, self._at(OUTPUT_SITE, self._decoded(code))

    def _pass(self, x: Tensor) -> Pass:
        mu, logvar = self._encoded_through(x)
        z, image = self._decoded_through(mu)
        return Pass(mu, logvar, z, image)

    def _at(self, name: str, value: Tensor) -> Tensor:
        for edit in self._through.get(name, ()):
            value = edited(value, self.site_map[name], edit)
        return value

    def _captured(self, x: Tensor, sites: Sequence[Site]) -> tuple[Pass, dict[str, Tensor]]:
        kept: dict[str, Tensor] = {}
        with attached(self.module, [(site, _keeper(kept)) for site in sites], self._through):
            return self._pass(x), kept

    def _edit(self, hook: tuple[str, Edit] | Intervention) -> tuple[Site, Edit]:
        if not isinstance(hook, Intervention):
            name, fn = hook
            return self.site_map[name], fn
        site = self.site_map[hook.site]
        hook.check_units(site.n_units)
        source = None
        if hook.source is not None:
            source = self.values(hook.source.array, [site])[site.name]
        return site, lambda value, _site: hook.apply(value, source)

    def _chosen(self, names: NamesFilter) -> list[Site]:
        sites = list(self.site_map.sites.values())
        if names is None:
            return sites
        if callable(names):
            return [s for s in sites if names(s.name)]
        return [self.site_map[name] for name in ([names] if isinstance(names, str) else names)]

    def _batches(self, n: int) -> list[slice]:
        size = n if self._active else BATCH
        return [slice(k, k + size) for k in range(0, n, size)]


def wrap(
    module: nn.Module,
    encode: str | Callable[[Tensor], object] = "encode",
    decode: str | Callable[[Tensor], object] = "decode",
    image_shape: tuple[int, int, int] | None = None,
) -> Model:
    """Give a torch VAE the uniform surface, without changing it.

    Parameters
    ----------
    module : the VAE
    encode : attribute name or callable; images to (mu, logvar), a tuple or an object with these attributes
    decode : attribute name or callable; codes (n, latent) to images
    image_shape : (channel, y, x)
        Not needed when the module has an attribute of this name.

    Raises
    ------
    ConfigError
        When one of these is missing or returns something else.
    """
    shape = image_shape if image_shape is not None else getattr(module, "image_shape", None)
    if shape is None:
        raise ConfigError("image_shape is unknown: call wrap(module, image_shape=(channel, y, x)).")
    channel, y, x = (int(v) for v in shape)
    return Model(module, _callable(module, "encode", encode), _callable(module, "decode", decode), (channel, y, x))


def _callable(module: nn.Module, what: str, given: str | Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    found = getattr(module, given, None) if isinstance(given, str) else given
    if not callable(found):
        raise ConfigError(f"{what}={given!r} is no method of {type(module).__name__}; pass {what}=<name or callable>.")
    return found


def _keeper(kept: dict[str, Tensor]) -> Edit:
    def keep(value: Tensor, site: Site) -> None:
        # A copy, because an activation that works in place would overwrite the value before it.
        kept[site.name] = value.detach().clone()

    return keep


def _activation(site: Site, parts: Sequence[Tensor]) -> xr.Dataset:
    values = torch.cat(list(parts)).float().cpu().numpy()
    spatial = {1: ("x",), 2: ("y", "x")}.get(values.ndim - 2, tuple(f"axis{k}" for k in range(values.ndim - 2)))
    attrs = {"long_name": f"value at {site.name}", "units": "1", "values": "post-intervention"}
    act = xr.DataArray(values, dims=("example", "channel", *spatial), attrs=attrs)
    return xr.Dataset({"act": act}, attrs={"site": site.name, "module": site.module or "", "side": site.side})
