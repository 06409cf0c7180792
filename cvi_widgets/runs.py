"""A run as people hold it: its configuration, its data, its model and its results; `stages` makes them."""

from __future__ import annotations

import html
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import xarray as xr
from filelock import FileLock

from cvi_widgets import data as datasets
from cvi_widgets import interventions, models, training
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import FactorData, Split
from cvi_widgets.errors import StoreError
from cvi_widgets.results import RunDirectory, RunStatus, find_run, open_results, read_group
from cvi_widgets.results.directory import now
from cvi_widgets.results.store import has_group, manifest_of, summary, tree_of

_ACTIVE: dict[Path, Run] = {}
"""Runs this process works on: a second notebook of the same kernel goes on with the same one, under the same lock."""
TRAINED = ("observations", "posterior", "training")
MEASURED = (
    "effects/input",
    "effects/latent",
    "effects/latent_posterior",
    "effects/patching",
    "effects/mediation",
    "metrics/run",
)


class Run:
    """One run on disk, finished or in progress; everything but the configuration is read when first asked for."""

    def __init__(self, directory: RunDirectory) -> None:
        self.files = directory
        self.config: RunConfig = directory.config()
        self._lock: FileLock | None = None

    @property
    def directory(self) -> Path:
        """Folder of the run."""
        return self.files.path

    @property
    def run_id(self) -> str:
        """Readable and stable name of the run."""
        return self.files.run_id

    @property
    def status(self) -> RunStatus:
        """State, stage, progress and times, read from `status.json` at each access."""
        return self.files.status()

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.files.report

    @cached_property
    def data(self) -> FactorData:
        """The data set of the run."""
        return datasets.load(
            self.config.data.dataset, data_path=self.config.data.data_path, scm=self.config.data.scm
        )

    @cached_property
    def split(self) -> Split:
        """Indices trained on and held out."""
        return self.data.split(self.config.training.test_images, self.config.seed)

    @cached_property
    def network(self) -> models.GaussianVAE | models.VQVAE:
        """The trained network as a plain torch module, in eval mode on the CPU."""
        network = models.build(self.config.model, self.data.image_shape)
        training.load_weights(network, self.files.weights)
        # Decoding, most of what interventions cost, is up to twice as fast in this layout on a CPU.
        return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]

    @cached_property
    def model(self) -> interventions.Model:
        """The trained network with sites, caches and interventions."""
        if isinstance(self.network, models.VQVAE):
            return interventions.wrap(self.network, quantise="quantise", lookup="lookup")
        return interventions.wrap(self.network)

    @property
    def results(self) -> xr.DataTree:
        """The results: the sealed store, or, while the run is in progress, the groups that are there."""
        if manifest_of(self.files.store).exists():
            return self._sealed
        groups = [p.parent.relative_to(self.files.store) for p in self.files.store.rglob("zarr.json")]
        names = {g.as_posix() for g in groups if g.as_posix() != "." and has_group(self.files.store, g.as_posix())}
        return tree_of({name: read_group(self.files.store, name) for name in sorted(names)})

    @cached_property
    def _sealed(self) -> xr.DataTree:
        return open_results(self.files.store)

    def publish(self) -> Run:
        """Give a run whose stages are all done its final name, and the run under that name back."""
        missing = [g for g in (*TRAINED, *MEASURED) if not has_group(self.files.store, g)]
        if missing or not self.files.report.exists():
            lacks = ", ".join(missing) or "report.html"
            raise StoreError(f"run {self.run_id!r} cannot be published: it lacks {lacks}.")
        self.note(state="done", stage="done", message="", seconds_left=0.0)
        self.files.publish()
        self.release()
        return Run(self.files)

    def note(self, **changes: Any) -> None:
        """Change fields of `status.json`."""
        self.files.note(replace(self.files.status(), **changes))

    def release(self) -> None:
        """Let other processes work on this run."""
        _ACTIVE.pop(self.files.final.absolute(), None)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        lines = [f"<cvi.Run {self.run_id}  {self.status.state}>", f"  folder  {self.directory}"]
        if self.files.store.exists():
            lines.append("  results")
            lines.extend(f"    {line}" for line in summary(self.results).splitlines())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def open_run(run: str | os.PathLike[str] = "latest") -> Run:
    """Open a run by its folder, its id, the beginning of its id, or `"latest"`; nothing stored is ever executed.

    Raises
    ------
    StoreError
        No run, or several, answer to the name.
    """
    return Run(find_run(run))


def start_run(config: RunConfig, folder: str | os.PathLike[str] | None = None) -> Run:
    """Begin the run of `config`, or take up the interrupted one; a finished run is opened as it is.

    Data are loaded first, so that nothing is written when they are missing. The run stays locked for this process
    until it is published or released.
    """
    directory = RunDirectory.of(config, Path(folder) if folder else None)
    if directory.final.exists():
        return Run(directory)
    if active := _ACTIVE.get(directory.final.absolute()):
        return active
    data = datasets.load(config.data.dataset, data_path=config.data.data_path, scm=config.data.scm)
    if config.threads:
        torch.set_num_threads(config.threads)
    lock = directory.lock()
    if directory.final.exists():
        lock.release()
        return Run(directory)
    directory.begin(config)
    try:
        earlier = directory.status()
    except StoreError:
        earlier = RunStatus(state="running", started=now())
    run = Run(directory)
    run.__dict__["data"] = data
    run._lock = lock
    _ACTIVE[directory.final.absolute()] = run
    directory.note(
        replace(earlier, state="running", pid=os.getpid(), error="", message="", started=earlier.started or now())
    )
    return run
