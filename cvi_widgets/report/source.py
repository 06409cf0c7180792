"""What a report reads from a run, gathered once: groups of the store, pictures, the settings' own words.

A run is anything with `config`, `results`, `data`, `directory` and `status`; with `model` too, reconstructions can be
decoded where the store holds none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import FactorData

LIBRARIES = ("cvi_widgets", "torch", "numpy", "scipy", "xarray", "zarr", "holoviews", "bokeh")


class RunLike(Protocol):
    """The members of a run that a report needs."""

    @property
    def config(self) -> RunConfig: ...
    @property
    def results(self) -> xr.DataTree: ...
    @property
    def data(self) -> FactorData: ...
    @property
    def directory(self) -> Path: ...
    @property
    def status(self) -> Any: ...


@dataclass(frozen=True)
class Source:
    """A run as the sections read it; nothing is computed twice."""

    run: RunLike

    @property
    def config(self) -> RunConfig:
        """Settings of the run."""
        return self.run.config

    @cached_property
    def tree(self) -> xr.DataTree:
        """The results, opened once."""
        return self.run.results

    @cached_property
    def status(self) -> Mapping[str, Any]:
        """`status.json` as a mapping."""
        status = self.run.status
        return asdict(status) if is_dataclass(status) and not isinstance(status, type) else dict(status)

    @cached_property
    def run_id(self) -> str:
        """Name of the run: its own, else the store's, else what its settings give.

        Settings that a later version adds would change the last one.
        """
        return str(getattr(self.run, "run_id", "") or self.tree.attrs.get("run_id") or self.config.run_id)

    def group(self, *names: str) -> xr.Dataset | None:
        """The first of these groups that the store has and that holds variables, in memory; None without one."""
        for name in names:
            if name in self._groups:
                return self._groups[name]
            try:
                dataset = self.tree[name].to_dataset()
            except KeyError:
                continue
            if dataset.data_vars:
                heavy = [v for v in dataset.data_vars if dataset[v].nbytes > 256_000_000]
                self._groups[name] = dataset.drop_vars(heavy).load()
                return self._groups[name]
        return None

    @cached_property
    def _groups(self) -> dict[str, xr.Dataset]:
        return {}

    @cached_property
    def latent(self) -> xr.Dataset | None:
        """`/effects/latent`, with `active` filled in from the posterior where it is not stored."""
        dataset = self.group("effects/latent")
        if dataset is None or "active" in dataset:
            return dataset
        posterior = self.group("posterior")
        if posterior is None:
            return dataset
        return dataset.assign(active=posterior["mu"].var("example") > 0.01)

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Versions that the run was made with: the store's, else the status', else those installed here."""
        stored = self.tree.attrs.get("versions") or self.status.get("versions")
        if isinstance(stored, str):
            stored = json.loads(stored)
        if isinstance(stored, Mapping) and stored:
            return {str(k): str(v) for k, v in stored.items()}
        return {name: found for name in LIBRARIES if (found := _installed(name))}

    def shown(self, n: int) -> NDArray[np.int64]:
        """Indices of the first `n` held-out images."""
        observations = self.group("observations")
        if observations is None:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(observations["index"].values[:n], dtype=np.int64)

    def own_codes(self, n: int) -> NDArray[Any]:
        """mu of the first `n` held-out images, shape (n, latent)."""
        posterior = self.group("posterior")
        return np.zeros((0, 0)) if posterior is None else posterior["mu"].transpose("example", "latent").values[:n]

    def reconstructions(self, n: int) -> NDArray[Any] | None:
        """What the model makes of the first `n` held-out images, shape (n, channel, y, x); None when it cannot be had.

        Stored pictures come first (`/effects/latent` `base(shown, channel, y, x)`), then the run's own model.
        """
        latent = self.group("effects/latent")
        if latent is not None and "base" in latent and latent.sizes["shown"] >= n:
            return np.asarray(latent["base"].transpose("shown", "channel", "y", "x").values[:n])
        codes, model = self.own_codes(n), getattr(self.run, "model", None)
        if model is None or not codes.size:
            return None
        if getattr(model, "discrete", False):
            # What is stored of a map of codes is its mean over cells, which cannot be decoded.
            decoded = model.decode_mu(model.encode(self.run.data.images(self.shown(n), "float32")).mu)
        else:
            decoded = model.decode(np.asarray(codes, dtype=np.float32))
        return np.asarray(decoded.detach().cpu().numpy() if hasattr(decoded, "detach") else decoded)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
