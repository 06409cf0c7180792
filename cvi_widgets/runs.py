"""A run as people hold it: its configuration, its data, its model and its results; and the stages that make it.

The stages are plain functions of a `Run`, in the order of the notebooks: `train_stage`, `intervene_stage`,
`report_stage`. Each leaves whole groups in the store and does nothing when they are there already, so an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import html
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from filelock import FileLock

from cvi_widgets import data as datasets
from cvi_widgets import interventions, metrics, models, training
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import FactorData, Pairs, Split
from cvi_widgets.errors import DivergenceError, StoreError
from cvi_widgets.results import RunDirectory, RunStatus, find_run, open_results, read_group, seal, write_group
from cvi_widgets.results.directory import elapsed, now
from cvi_widgets.results.store import has_group, manifest_of, summary, tree_of

LIBRARIES = ("cvi_widgets", "torch", "numpy", "scipy", "scikit-learn", "xarray", "zarr", "holoviews", "bokeh", "panel")
_ACTIVE: dict[Path, Run] = {}
"""Runs this process works on: a second notebook of the same kernel goes on with the same one, under the same lock."""
_TRAINED = ("observations", "posterior", "training")
_MEASURED = ("effects/input", "effects/latent", "effects/patching", "effects/mediation", "metrics/run")


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
    def network(self) -> models.GaussianVAE:
        """The trained network as a plain torch module, in eval mode on the CPU."""
        network = models.build(self.config.model, self.data.image_shape)
        training.load_weights(network, self.files.weights)
        # Decoding, most of what interventions cost, is up to twice as fast in this layout on a CPU.
        return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]

    @cached_property
    def model(self) -> interventions.Model:
        """The trained network with sites, caches and interventions."""
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
        missing = [g for g in (*_TRAINED, *_MEASURED) if not has_group(self.files.store, g)]
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


def train_stage(run: Run, *, progress: bool = True) -> Run:
    """Train (or go on training), then store weights, loss curves and the posterior of the held-out images."""
    if all(has_group(run.files.store, g) for g in _TRAINED):
        return run
    begun = time.perf_counter()
    torch.manual_seed(run.config.seed)
    network = models.build(run.config.model, run.data.image_shape)
    run.note(stage="training", total=run.config.training.images)
    bar = training.tqdm_progress() if progress else None
    try:
        result = training.train(network, run.config, run.data, run.split, run.directory, _reporter(run, bar))
    except KeyboardInterrupt:
        run.note(state="interrupted", message="stopped while training; the same command goes on from here")
        raise
    except DivergenceError as error:
        run.note(state="failed", error=str(error))
        raise
    training.save_weights(network, run.files.weights)
    index = run.split.test
    kind = run.config.model.reconstruction
    held_out = training.evaluate(network, run.data, index, reconstruction=kind, seed=run.config.seed)
    observations = xr.Dataset(
        {
            "index": ("example", index, {"long_name": "image index", "units": "1"}),
            "factor_class": (
                ("example", "factor"),
                run.data.factors(index),
                {"long_name": "factor class", "units": "1"},
            ),
        },
        coords={"factor": list(run.data.factor_names)},
    )
    write_group(run.files.store, "observations", observations)
    write_group(run.files.store, "posterior", _posterior(held_out))
    write_group(run.files.store, "training", result.history)
    run.__dict__.pop("network", None)
    run.note(
        images=result.images,
        images_per_second=result.images_per_second,
        seconds_left=0.0,
        seconds={**run.status.seconds, "training": result.seconds, "training stage": elapsed(begun)},
    )
    return run


def _posterior(found: training.Evaluation) -> xr.Dataset:
    per_latent = ("example", "latent")
    return xr.Dataset(
        {
            "mu": (per_latent, found.mu, {"long_name": "posterior mean", "units": "1"}),
            "logvar": (per_latent, found.logvar, {"long_name": "log posterior variance", "units": "1"}),
            "kl": (per_latent, found.kl, {"long_name": "KL to the standard normal", "units": "nats"}),
            "reconstruction": (
                "example",
                found.reconstruction,
                {"long_name": "negative log likelihood, z drawn from the posterior", "units": "nats"},
            ),
            "reconstruction_at_mean": (
                "example",
                found.reconstruction_at_mean,
                {"long_name": "negative log likelihood, z = mu", "units": "nats"},
            ),
        },
        coords={"latent": np.arange(found.mu.shape[1])},
        attrs={"examples": "held-out images, in the order of /observations"},
    )


def intervene_stage(run: Run, *, progress: bool = True) -> Run:
    """Run the four kinds of intervention on the trained model and store activations, effects and metrics."""
    begun = time.perf_counter()
    settings, store, seed = run.config.intervention, run.files.store, run.config.seed
    if has_group(store, "metrics/run"):
        # Written last of all.
        return run
    shown = run.split.test[: settings.examples]
    images = run.data.images(shown, dtype="float32")
    rng = np.random.default_rng([seed, 1])
    chosen = Pairs(run.data.sample(settings.pairs, rng), run.data.sample(settings.pairs, rng))
    base, source = (run.data.images(index, dtype="float32") for index in chosen)
    values = np.linspace(settings.low, settings.high, settings.steps)
    draws = settings.draws
    steps: dict[str, Callable[[], xr.Dataset]] = {
        "effects/input": lambda: interventions.intervene_input(
            run.model, run.data, pairs=settings.pairs, seed=seed, draws=draws
        ),
        "effects/latent": lambda: interventions.intervene_latent(
            run.model, images, values=values, seed=seed, draws=draws
        ),
        "effects/patching": lambda: interventions.patch(
            run.model, base, source, index=chosen, seed=seed, draws=draws
        ),
        "effects/mediation": lambda: interventions.mediate(
            run.model, run.data, pairs=settings.mediation_pairs, seed=seed, draws=draws
        ),
    }
    run.note(stage="interventions", total=len(steps) + 2, images=0, images_per_second=0.0)
    for done, (group, step) in enumerate(steps.items()):
        _say(run, progress, f"{group.removeprefix('effects/')} interventions", done)
        if not has_group(store, group):
            write_group(store, group, step())
    _say(run, progress, "activations", len(steps))
    _store_activations(run, images)
    if isinstance(run.data, datasets.CausalData) and not has_group(store, "effects/graph"):
        write_group(store, "effects/graph", datasets.measure_effects(run.data, seed=seed))
    _say(run, progress, "metrics", len(steps) + 1)
    groups = {name: read_group(store, name).load() for name in (*_TRAINED, *_MEASURED[:-1])}
    tables = metrics.summarise(groups, run.data.factor_values, draws=settings.draws, seed=seed)
    for name in sorted(tables, key=lambda n: n == "metrics/run"):
        write_group(store, name, tables[name])
    run.note(images=len(steps) + 2, seconds={**run.status.seconds, "intervention stage": elapsed(begun)})
    return run


def report_stage(run: Run, *, progress: bool = True) -> Run:
    """Write the run's HTML report and seal the store."""
    from cvi_widgets import report

    begun = time.perf_counter()
    run.note(stage="report", total=1)
    _say(run, progress, "writing report.html", 0, stage="report")
    seal(run.files.store, root_attributes(run.config))
    report.build(run, run.files.report)
    run.note(images=1, seconds={**run.status.seconds, "report stage": elapsed(begun)})
    return run


def root_attributes(config: RunConfig) -> dict[str, Any]:
    """What the root of a store says of how it was made."""
    return {
        "config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "config_hash": config.hashed,
        "run_id": config.run_id,
        "seed": config.seed,
        "device": str(training.resolve_device(config)),
        "threads": torch.get_num_threads(),
        "dtype": config.training.precision,
        "created_at": now(),
        "python": platform.python_version(),
        "versions": json.dumps({name: version(name) for name in LIBRARIES}),
    }


def _store_activations(run: Run, images: np.ndarray) -> None:
    """Half precision is enough for looking, and a third of the space; the attributes say so."""
    table = run.model.sites()
    names = [str(site) for site in table.index[table["side"] == "encoder"] if not str(site).endswith(".pre")]
    wanted = [site for site in names if not has_group(run.files.store, f"activations/{site}")]
    if not wanted:
        return
    _, cache = run.model.run_with_cache(images, names_filter=wanted)
    for site in wanted:
        dataset = cache.children[site].to_dataset(inherit=False)
        stored = dataset.astype(np.float16).assign_attrs(dataset.attrs, stored_dtype="float16")
        write_group(run.files.store, f"activations/{site}", stored)


def _say(run: Run, progress: bool, message: str, done: int, stage: str = "interventions") -> None:
    run.note(stage=stage, message=message, images=done)
    if progress:
        print(f"{stage}: {message}", flush=True)


def _reporter(run: Run, bar: Any) -> Any:
    """A progress callback that keeps `status.json` current and, where a person watches, a bar."""

    def report(p: training.Progress) -> None:
        run.note(
            images=p.images, total=p.total, images_per_second=p.images_per_second, seconds_left=p.seconds_left
        )
        if bar is not None:
            bar(p)

    return report
