"""The command line: `cvi run`, `runs`, `show`, `open`, `dashboard`, `study`, `data`, `settings`, `doctor`.

Every mistake a person can make ends in one sentence on standard error and exit code 2; anything else that goes wrong in
a run exits with 1 and says where the traceback is kept.
"""

from __future__ import annotations

import math
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cvi_widgets.config import MODELS, RunConfig, setting_names
from cvi_widgets.errors import ConfigError, CviError

app = typer.Typer(help="Ask causal questions of variational autoencoders.", no_args_is_help=True, add_completion=False)
study_app = typer.Typer(help="Many runs from one YAML.", no_args_is_help=True)
app.add_typer(study_app, name="study")

_ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}


def main() -> None:
    """Entry point of the `cvi` command."""
    try:
        app()
    except CviError as error:
        print(f"cvi: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("cvi: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None


@app.command(context_settings=_ANY_SETTING)
def run(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="data set, see `cvi data`")] = "dsprites",
    model: Annotated[str, typer.Argument(help="model: " + ", ".join(MODELS))] = "beta_vae",
    again: Annotated[bool, typer.Option("--again", help="delete a finished or interrupted run first")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
) -> None:
    """Train, intervene, store and report one configuration.

    Any setting can follow as an option, with dashes or underscores: --beta 4 --seed 0 --preset smoke|demo|paper
    --batch-size 64; `cvi settings` lists them. The same command again resumes an interrupted run.
    """
    settings = parse_settings(context.args)
    config = RunConfig.of(dataset, model, **settings)
    from cvi_widgets.results import RunDirectory
    from cvi_widgets.studies import execute

    directory = RunDirectory.of(config)
    if again:
        directory.remove()
    finished = directory.final.exists()
    print(f"run     {config.run_id}{'  (finished before; --again runs it anew)' if finished else ''}", flush=True)
    done = execute(config, progress=not quiet)
    print(f"folder  {done.directory}\nreport  {done.report}")


@app.command()
def runs() -> None:
    """List every run, newest first."""
    from cvi_widgets.paths import runs_dir
    from cvi_widgets.results import list_runs

    listed = list(list_runs())
    if not listed:
        print(f"no runs in {runs_dir()}")
        return
    width = max(len(f"{r.final.parent.name}/{r.run_id}") for r in listed)
    for directory in listed:
        name = f"{directory.final.parent.name}/{directory.run_id}"
        try:
            status = directory.status()
            print(f"{name:<{width}}  {status.state:<11}  {status.updated}  {status.error or status.message}".rstrip())
        except CviError as error:
            print(f"{name:<{width}}  unreadable   {error}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RUN", help="folder, id or beginning of an id")] = "latest",
) -> None:
    """Print a run's state, headline figures with intervals, and what its store holds."""
    from cvi_widgets.results import open_results, read_group
    from cvi_widgets.results.store import has_group, summary
    from cvi_widgets.runs import open_run

    chosen = open_run(name)
    status = chosen.status
    print(f"run      {chosen.run_id}\nstate    {status.state}{f'  {status.error}' if status.error else ''}")
    print(f"folder   {chosen.directory}")
    for stage, seconds in status.seconds.items():
        print(f"{stage:<20} {seconds:8.1f} s")
    if has_group(chosen.files.store, "metrics/run"):
        table = read_group(chosen.files.store, "metrics/run").load()
        print()
        for metric in table.metric.values:
            row = table.sel(metric=metric)
            value, low, high, null, p = (float(row[k]) for k in ("value", "ci_low", "ci_high", "null_mean", "p"))
            chance = "" if math.isnan(p) else f"  null {null:.3g}, p {p:.2g}"
            print(f"{metric!s:<28} {value:9.3f}  [{low:.3f}, {high:.3f}] {row.units.item()}{chance}")
    if chosen.files.final.exists():
        print(f"\n{summary(open_results(chosen.files.store, verify=True))}")


@app.command(name="open")
def open_report(
    name: Annotated[str, typer.Argument(metavar="RUN", help="folder, id or beginning of an id")] = "latest",
) -> None:
    """Open a run's report in the browser."""
    from cvi_widgets.errors import StoreError
    from cvi_widgets.runs import open_run

    report = open_run(name).report
    if not report.exists():
        raise StoreError(f"run {name!r} has no report yet; run it to its end first.")
    print(report)
    webbrowser.open(report.absolute().as_uri())


@app.command()
def dashboard(
    name: Annotated[str, typer.Argument(metavar="RUN", help="folder, id or beginning of an id")] = "latest",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    address: Annotated[str, typer.Option(help="only this machine can reach the default")] = "localhost",
    show: Annotated[bool, typer.Option(help="open a browser")] = True,
) -> None:
    """Serve a run's dashboard on this machine."""
    from cvi_widgets.dashboards import serve
    from cvi_widgets.runs import open_run

    serve(open_run(name), port=port, address=address, show=show)


@study_app.command(name="run")
def study_run(
    study: Annotated[str, typer.Argument(help="a shipped study's name, or a YAML file")] = "smoke",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs only")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
) -> None:
    """Execute every run of a study; finished runs stay, interrupted ones resume."""
    from cvi_widgets.studies import load_study, run_study

    plan = load_study(study)
    if dry_run:
        for config in plan.runs():
            print(config.run_id)
        return
    outcomes = run_study(plan, progress=not quiet, on_run=lambda i, n, c: print(f"[{i}/{n}] {c.run_id}", flush=True))
    for outcome in outcomes:
        print(f"{outcome.run_id}  {outcome.error or outcome.report}")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def data() -> None:
    """List data sets: factors, sizes, licence, where the file goes, whether it is there."""
    from cvi_widgets.data import describe

    for name, row in describe().iterrows():
        print(name)
        for field, value in row.items():
            print(f"  {field:<12} {value}")


@app.command()
def settings(model: Annotated[str | None, typer.Argument(help="only this model's")] = None) -> None:
    """List the settings of a run with their defaults."""
    from cvi_widgets.names import unknown

    if model and model not in MODELS:
        raise ConfigError(unknown("model", model, MODELS))
    defaults = RunConfig.of("dsprites", model or "beta_vae").flat()
    for name in setting_names(model):
        print(f"{name:<20} {defaults.get(name, '')}")


@app.command()
def doctor() -> None:
    """Check the installation, say where data and runs live, and what is missing."""
    from cvi_widgets.doctor import diagnose, render

    checks = diagnose()
    print(render(checks))
    if not all(check.ok for check in checks if check.required):
        raise typer.Exit(1)


def parse_settings(arguments: list[str]) -> dict[str, Any]:
    """`["--batch-size", "64", "--beta=4"]` as `{"batch_size": 64, "beta": 4}`; values are read as YAML scalars.

    Raises
    ------
    ConfigError
        An argument is no option, lacks its value, or comes twice.
    """
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(f"argument {option!r} is unexpected; settings are written --name value.")
        name, equals, value = option[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"setting {name!r} lacks its value; write --{name} VALUE.")
            value = rest.pop(0)
        key = name.replace("-", "_")
        if key in settings:
            raise ConfigError(f"setting {key!r} is given twice.")
        settings[key] = _scalar(key, value)
    return settings


def _scalar(name: str, text: str) -> Any:
    if name in ("study", "data_path"):
        return str(Path(text)) if name == "data_path" else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text; a person who writes it means the number.
        try:
            return float(value)
        except ValueError:
            return value
    return value
