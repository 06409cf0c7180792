"""What an effect is measured on: mu, one latent, z, the reconstruction, or any function of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions.model import Model, Pass
from cvi_widgets.interventions.sites import OUTPUT_SITE, Site
from cvi_widgets.names import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

Outcome = str | int | Callable[[Pass], Tensor]
"""`mu`, `z`, `reconstruction`, `latent:3` (or 3), or a function of a `Pass` that returns (n,) or (n, k)."""
NAMES = ("mu", "z", "reconstruction", "latent:<number>")


@dataclass(frozen=True)
class Readout:
    """An outcome made ready for one model.

    Attributes
    ----------
    name : as in the results' attributes
    dim, labels : dimension and coordinate of the components
    units : of one component
    targets : sites whose values it is read from
    read : values at the targets to (n, component, ...)
    """

    name: str
    dim: str
    labels: NDArray[np.int64] | NDArray[np.str_]
    units: str
    targets: tuple[str, ...]
    read: Callable[[Mapping[str, Tensor]], Tensor]

    @property
    def decode(self) -> bool:
        """Whether the decoder has to run."""
        return OUTPUT_SITE in self.targets or "latent.z" in self.targets

    def components(self, change: Tensor) -> Tensor:
        """Change per component, (n, component): signed where a component is one number, else the root mean square."""
        return change if change.ndim == 2 else change.flatten(2).square().mean(2).sqrt()


def readout(model: Model, outcome: Outcome) -> Readout:
    """The outcome of this name, or made of this function.

    Raises
    ------
    ConfigError
        When there is no such outcome, or the function returns something else than (n,) or (n, k) numbers.
    """
    if callable(outcome):
        return _function(model, outcome)
    if isinstance(outcome, int | np.integer):
        outcome = f"latent:{int(outcome)}"
    name = str(outcome)
    latents = np.arange(model.n_latents)
    if name == "mu":
        return Readout("mu", "latent", latents, "mu", ("latent.mu",), lambda v: v["latent.mu"])
    if name == "z":
        n = len(_probe(model).z[0])
        return Readout("z", "latent", np.arange(n), "z", ("latent.z",), lambda v: v["latent.z"])
    if name == "reconstruction":
        return Readout(
            name,
            "outcome",
            np.array(["reconstruction"]),
            "intensity, root mean square over pixels",
            (OUTPUT_SITE,),
            lambda v: v[OUTPUT_SITE][:, None],
        )
    kind, _, number = name.partition(":")
    if kind == "latent" and number.isdecimal():
        at = int(number)
        if at not in latents:
            raise ConfigError(f"outcome {name!r} does not exist; the model has latents 0 to {len(latents) - 1}.")
        return Readout(name, "latent", latents[at : at + 1], "mu", ("latent.mu",), lambda v: v["latent.mu"][:, [at]])
    raise ConfigError(unknown("outcome", name, NAMES))


def acts_on(site: Site, outcome: Readout) -> bool:
    """Whether a change at the site can reach the outcome at all, going by its place in the pass."""
    if site.name == "latent.logvar":
        return site.name in outcome.targets
    order = ["encoder", "latent.mu", "latent.code", "latent.z", "decoder", OUTPUT_SITE]
    place = order.index(site.name if site.name in order else site.side)
    return place <= max(order.index(t) for t in outcome.targets if t in order)


def measured_sites(model: Model, sites: str | Sequence[str] | None, outcome: Readout) -> tuple[Site, ...]:
    """The sites named, or all after their non-linearities that act on the outcome.

    Raises
    ------
    SiteError
        When a site is unknown or lies behind the outcome.
    """
    if sites is None:
        listed = [s for s in model.site_map.sites.values() if not s.before_activation]
        skipped = ("latent.logvar", "latent.z", "latent.code", OUTPUT_SITE)
        return tuple(s for s in listed if s.name not in skipped and acts_on(s, outcome))
    chosen = tuple(model.site(name) for name in ([sites] if isinstance(sites, str) else sites))
    for site in chosen:
        if not acts_on(site, outcome):
            allowed = [s.name for s in model.site_map.sites.values() if acts_on(s, outcome)]
            raise SiteError(f"site {site.name!r} does not act on {outcome.name}; allowed are {', '.join(allowed)}.")
    return chosen


def _function(model: Model, function: Callable[[Pass], Tensor]) -> Readout:
    name = getattr(function, "__name__", type(function).__name__)
    ran = _probe(model)
    targets = ["latent.mu", "latent.z", OUTPUT_SITE]
    if ran.logvar is not None:
        targets.append("latent.logvar")
    if ran.code is not None:
        targets.append("latent.code")

    def read(values: Mapping[str, Tensor]) -> Tensor:
        found: object = function(
            Pass(
                values["latent.mu"],
                values.get("latent.logvar"),
                values["latent.z"],
                values[OUTPUT_SITE],
                values.get("latent.code"),
            )
        )
        if not isinstance(found, Tensor) or found.ndim not in (1, 2) or len(found) != len(values["latent.mu"]):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(f"outcome {name} returned {shape}; it must return a tensor (n,) or (n, k).")
        return found.reshape(len(found), -1).float()

    with torch.no_grad():
        width = read(_sites_of(ran)).shape[1]
    labels = np.array([name] if width == 1 else [f"{name}[{k}]" for k in range(width)])
    return Readout(name, "outcome", labels, "as returned", tuple(targets), read)


def _sites_of(ran: Pass) -> dict[str, Tensor]:
    found: dict[str, Tensor | None] = {
        "latent.mu": ran.mu,
        "latent.logvar": ran.logvar,
        "latent.z": ran.z,
        OUTPUT_SITE: ran.image,
        "latent.code": ran.code,
    }
    return {name: value for name, value in found.items() if value is not None}


def _probe(model: Model) -> Pass:
    images = torch.rand((2, *model.image_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    with model.running():
        return model.forward(images)
