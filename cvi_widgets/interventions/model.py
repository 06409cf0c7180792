"""The uniform surface of any torch VAE; `wrapping.wrap` makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions.halves import CONTINUOUS, Halves, device_of
from cvi_widgets.interventions.hooks import Edit, attached, edited, evaluating
from cvi_widgets.interventions.sites import OUTPUT_SITE, Encoded, Site, SiteMap, discover
from cvi_widgets.interventions.values import CODE_SITE, FOR_CODES, Intervention, numbered

Images = np.ndarray[Any, Any] | Tensor
"""Float32 images (n, channel, y, x), values in [0, 1]."""
Hooks = Iterable["tuple[str, Edit] | Intervention"]
NamesFilter = str | Sequence[str] | Callable[[str], bool] | None
AFTER_MU = ("latent.code", "latent.z")
BATCH = 64
"""Examples per forward pass: larger batches are slower on a CPU, where their buffers are faulted in anew each pass."""


class Pass(NamedTuple):
    """What one pass gives.

    mu and logvar (n, latent, ...), the z that was decoded, the image (n, channel, y, x), and of a discrete model the
    code (n, codebook, ...). logvar is None where the model has none, image where the decoder did not run.
    """

    mu: Tensor
    logvar: Tensor | None
    z: Tensor
    image: Tensor | None
    code: Tensor | None = None


class Model:
    """A wrapped module; make one with `wrap`.

    Everything runs in eval mode, in float32 and without gradients; the module's train/eval flags are put back after
    each call. z is mu; of a discrete model, mu is what enters the quantiser and z what leaves it.

    Attributes
    ----------
    module : the torch module, unchanged
    device : where its weights are
    image_shape : (channel, y, x)
    latent_shape : (latent, ...) of mu
    through : functions applied at sites that are no module's output, by site; `hooks.attached` fills it
    """

    def __init__(
        self,
        module: nn.Module,
        halves: Halves,
        n_codes: int | None = None,
    ) -> None:
        self.device = device_of(module)
        self.module = module
        self.image_shape = halves.image_shape
        self._halves = halves
        self.through: dict[str, list[Edit]] = {}
        self._active = 0
        self._n_codes = n_codes
        probe = torch.rand((2, *halves.image_shape), generator=torch.Generator().manual_seed(0)).to(self.device)
        with self.running():
            middle = (halves.quantise, halves.lookup) if halves.discrete else None
            self.site_map: SiteMap = discover(module, halves.encode, halves.decode, probe, middle)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one code, (latent, ...)."""
        return self.site_map["latent.mu"].shape

    @property
    def n_latents(self) -> int:
        """Coordinates of the code; channels where the code is a map."""
        return self.latent_shape[0]

    @property
    def discrete(self) -> bool:
        """Whether the code is made of entries of codebooks."""
        return self._halves.discrete

    @property
    def n_codes(self) -> int | None:
        """Entries of a codebook; None where nobody said, so that codes are not checked.

        Raises
        ------
        ConfigError
            When the model's code is not discrete.
        """
        if not self.discrete:
            raise ConfigError(CONTINUOUS)
        return self._n_codes

    def sites(self) -> pd.DataFrame:
        """Table of all sites: index `site`; columns module, shape, n_units, side, in order of execution."""
        rows = [(s.name, s.module or "", s.shape, s.n_units, s.side) for s in self.site_map.sites.values()]
        return pd.DataFrame(rows, columns=["site", "module", "shape", "n_units", "side"]).set_index("site")

    def site(self, name: str) -> Site:
        """The site of this name or module path; raises `SiteError` with the nearest match."""
        return self.site_map[name]

    def encode(self, x: Images) -> Encoded:
        """Posterior mean and log variance of images, (n, latent, ...) each; logvar is None where there is none."""
        images = self.images(x)
        with self.running():
            parts = [self._encoded_through(images[b]) for b in self._batches(len(images))]
        mu = torch.cat([part.mu for part in parts]).float()
        logvars = [part.logvar for part in parts if part.logvar is not None]
        return Encoded(mu, torch.cat(logvars).float() if logvars else None)

    def decode(self, z: Images) -> Tensor:
        """Images (n, channel, y, x) of codes (n, latent, ...); of a discrete model, of what leaves the quantiser."""
        codes = self._checked(z, "latent.z")
        with self.running():
            return torch.cat([self._decoded_through(codes[b])[1] for b in self._batches(len(codes))]).float()

    def decode_mu(self, mu: Images) -> Tensor:
        """Images of posterior means (n, latent, ...): `decode`, after the quantiser where there is one."""
        means = self._checked(mu, "latent.mu")
        with self.running():
            parts = [self._finished(means[b], None, decode=True).image for b in self._batches(len(means))]
        return torch.cat([part for part in parts if part is not None]).float()

    def decode_codes(self, codes: Images) -> Tensor:
        """Images of integer codes (n, codebook, ...).

        Raises
        ------
        ConfigError
            When the model's code is not discrete.
        DataError
            When the shape is not that of the model's codes, or a code does not exist.
        """
        whole = self._checked(codes, "latent.code")
        with self.running():
            parts = [
                self._decoded_through(self.lookup(self._at("latent.code", whole[b])))[1]
                for b in self._batches(len(whole))
            ]
        return torch.cat(parts).float()

    def quantise(self, mu: Tensor) -> Tensor:
        """Integer codes (n, codebook, y, x) or (n, codebook, cell) of posterior means; hooks are not consulted.

        Raises
        ------
        ConfigError
            When the model's code is not discrete.
        """
        return self._halves.quantise(mu)

    def lookup(self, codes: Tensor) -> Tensor:
        """What enters the decoder for integer codes (n, codebook, ...); hooks are not consulted."""
        return self._halves.lookup(codes)

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
            return self.forward(images)

    def forward(self, images: Tensor, decode: bool = True) -> Pass:
        """One pass over checked images with whatever hooks are in place; call it inside `running`.

        Without the decoder it ends at mu: z is mu, also of a discrete model, and image and code are None.
        """
        encoded = self._encoded_through(images)
        return self._finished(encoded.mu, encoded.logvar, decode)

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
        out = Pass(*(_joined(p) for p in zip(*(part[0] for part in parts), strict=True)))
        groups = {s.name: _activation(s, [part[1][s.name] for part in parts]) for s in chosen}
        cache = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"values": "post-intervention"}), **groups})
        return out, cache

    def values(self, x: Images, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Values at sites as tensors (n, unit, ...), by name, from one pass over all of `x`; post-intervention.

        The decoder runs only if one of the sites needs it.
        """
        images = self.images(x)
        kept: dict[str, Tensor] = {}
        with self.running(), attached(self.module, [(site, _keeper(kept)) for site in sites], self.through):
            self.forward(images, decode=any(s.side == "decoder" or s.name in AFTER_MU for s in sites))
        return kept

    @contextmanager
    def hooks(self, hooks: Hooks) -> Iterator[Model]:
        """Hooks in place inside the block, for every call on this model and, at modules, on the module itself.

        They are gone after it, also after an exception or Ctrl-C. While they are in place, calls do not split `x` into
        batches, so that every hook sees all examples.
        """
        edits = [self._edit(hook) for hook in hooks]
        with attached(self.module, edits, self.through):
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
        at = f" on {'x'.join(map(str, self.latent_shape[1:]))} positions" if len(self.latent_shape) > 1 else ""
        code = f", codes {tuple(self.site_map['latent.code'].shape)}" if self.discrete else ""
        return f"<Model of {name}: images {self.image_shape}, {self.n_latents} latents{at}{code}, sites {listed}>"

    # The private calls below assume eval mode and images that are checked.

    def _encoded_through(self, x: Tensor) -> Encoded:
        encoded = self._halves.encode(x)
        logvar = None if encoded.logvar is None else self._at("latent.logvar", encoded.logvar)
        return Encoded(self._at("latent.mu", encoded.mu), logvar)

    def _finished(self, mu: Tensor, logvar: Tensor | None, decode: bool) -> Pass:
        code = None
        if self.discrete and decode:
            code = self._at("latent.code", self.quantise(mu))
        if not decode:
            return Pass(mu, logvar, mu, None)
        z, image = self._decoded_through(mu if code is None else self.lookup(code))
        return Pass(mu, logvar, z, image, code)

    def _decoded_through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        code = self._at("latent.z", z)
        return code, self._at(OUTPUT_SITE, self._halves.decode(code))

    def _checked(self, value: Images, name: str) -> Tensor:
        if name not in self.site_map.sites:
            raise ConfigError(CONTINUOUS)
        site, given = self.site_map[name], torch.as_tensor(value)
        if tuple(given.shape[1:]) != site.shape or not len(given):
            wanted = ", ".join(map(str, site.shape))
            raise DataError(f"codes have shape {tuple(given.shape)}; the model takes (n, {wanted}) with n at least 1.")
        if name != "latent.code":
            return given.to(self.device, torch.float32)
        if given.is_floating_point() or given.dtype == torch.bool:
            raise DataError(f"codes are {given.dtype}; they are names, so give integers.")
        low, high, n = int(given.min()), int(given.max()), self.n_codes
        if low < 0 or (n is not None and high >= n):
            raise DataError(f"code {low if low < 0 else high} does not exist; codes are {numbered(n)}.")
        return given.to(self.device, torch.int64)

    def _at(self, name: str, value: Tensor) -> Tensor:
        for edit in self.through.get(name, ()):
            value = edited(value, self.site_map[name], edit)
        return value

    def _captured(self, x: Tensor, sites: Sequence[Site]) -> tuple[Pass, dict[str, Tensor]]:
        kept: dict[str, Tensor] = {}
        with attached(self.module, [(site, _keeper(kept)) for site in sites], self.through):
            return self.forward(x), kept

    def _edit(self, hook: tuple[str, Edit] | Intervention) -> tuple[Site, Edit]:
        if not isinstance(hook, Intervention):
            name, fn = hook
            return self.site_map[name], fn
        site = self.site_map[hook.site]
        if hook.do not in FOR_CODES and site.name == CODE_SITE:
            raise SiteError(
                f"do={hook.do!r} is no change of codes, which are names; allowed are {', '.join(FOR_CODES)}."
            )
        hook.check(site, self._n_codes)
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


def _joined(parts: Sequence[Tensor | None]) -> Any:
    return None if parts[0] is None else torch.cat([part for part in parts if part is not None])


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
