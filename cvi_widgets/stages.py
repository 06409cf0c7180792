"""The stages that make a run, in the order of the notebooks: train, intervene, report.

Each is a plain function of a `Run`, leaves whole groups in its store, and does nothing when they are there already, so
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr

from cvi_widgets import data as datasets
from cvi_widgets import interventions, metrics, models, report, training
from cvi_widgets.config import RunConfig
from cvi_widgets.data.protocol import Pairs
from cvi_widgets.errors import DivergenceError
from cvi_widgets.results import read_group, seal, write_group
from cvi_widgets.results.directory import elapsed, now
from cvi_widgets.results.store import has_group
from cvi_widgets.runs import MEASURED, TRAINED, Run

LIBRARIES = ("cvi_widgets", "torch", "numpy", "scipy", "scikit-learn", "xarray", "zarr", "holoviews", "bokeh", "panel")


READ = 6000
"""Images that a run's factor reader is fitted on."""


def train_stage(run: Run, *, progress: bool = True) -> Run:
    """Train (or go on training), then store weights, loss curves and the posterior of the held-out images."""
    if all(has_group(run.files.store, g) for g in TRAINED):
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
            run.model, images, values=values, reader=_reader(run), seed=seed, draws=draws
        ),
        "effects/latent_posterior": lambda: interventions.intervene_latent(
            run.model, images, values="posterior", sites=(), shown=1, frames=2, seed=seed, draws=draws
        ),
        "effects/patching": lambda: interventions.patch(run.model, base, source, index=chosen, seed=seed, draws=draws),
        "effects/mediation": lambda: interventions.mediate(
            run.model, run.data, pairs=settings.mediation_pairs, seed=seed, draws=draws
        ),
    }
    if run.model.discrete:
        # One coordinate before the quantiser mostly snaps back; what the code itself does is measured beside it.
        steps["effects/code"] = lambda: interventions.intervene_code(run.model, images, seed=seed, draws=draws)
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
    measuring = time.perf_counter()
    groups = {name: read_group(store, name).load() for name in (*TRAINED, *MEASURED[:-1])}
    tables = metrics.summarise(groups, run.data.factor_values, draws=settings.draws, seed=seed)
    for name in sorted(tables, key=lambda n: n == "metrics/run"):
        write_group(store, name, tables[name])
    run.note(
        images=len(steps) + 2,
        seconds={**run.status.seconds, "metrics": elapsed(measuring), "intervention stage": elapsed(begun)},
    )
    return run


def report_stage(run: Run, *, progress: bool = True) -> Run:
    """Write the run's HTML report and seal the store."""
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


def _reader(run: Run) -> metrics.FactorReader:
    """Fitted on training images, so that held-out ones stay unseen by everything."""
    rng = np.random.default_rng([run.config.seed, 2])
    index = np.sort(rng.choice(run.split.train, min(READ, len(run.split.train)), replace=False))
    return metrics.fit_reader(
        run.data.images(index, dtype="float32"),
        run.data.factors(index),
        tuple(run.data.factor_names),
        seed=run.config.seed,
    )


def _say(run: Run, progress: bool, message: str, done: int, stage: str = "interventions") -> None:
    run.note(stage=stage, message=message, images=done)
    if progress:
        print(f"{stage}: {message}", flush=True)


def _reporter(run: Run, bar: Any) -> Any:
    """A progress callback that keeps `status.json` current and, where a person watches, a bar."""

    def report(p: training.Progress) -> None:
        run.note(images=p.images, total=p.total, images_per_second=p.images_per_second, seconds_left=p.seconds_left)
        if bar is not None:
            bar(p)

    return report
