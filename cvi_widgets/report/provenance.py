"""How the run was made: settings, versions, times, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cvi_widgets.config import RunConfig
from cvi_widgets.report.parts import Fact, Table
from cvi_widgets.report.source import Source
from cvi_widgets.report.words import count, duration

_POSITIONAL = ("dataset", "model")


def chosen_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that differ from what data set, model and preset alone would give."""
    flat = config.flat()
    plain = RunConfig.of(config.data.dataset, config.model.model, preset=config.preset).flat()
    always = ("beta", "seed", "preset")
    return {
        k: v for k, v in flat.items() if k not in _POSITIONAL and (k in always or v != plain.get(k)) and v is not None
    }


def command(config: RunConfig) -> str:
    """The command line that makes this run again."""
    words = ["cvi", "run", config.data.dataset, config.model.model]
    for name, value in chosen_settings(config).items():
        words += [f"--{name.replace('_', '-')}", _exact(value)]
    return shlex.join(words)


def _exact(value: object) -> str:
    """Short where that loses nothing: a rounded setting would make another run."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def call(config: RunConfig) -> str:
    """The same in Python."""
    settings = "".join(f", {name}={value!r}" for name, value in chosen_settings(config).items())
    return f"cvi.run({config.data.dataset!r}, {config.model.model!r}{settings})"


def facts(source: Source) -> tuple[Fact, ...]:
    """The colophon's lines."""
    config, status, attrs = source.config, source.status, source.tree.attrs
    seconds = status.get("seconds") or {}
    device = str(attrs.get("device") or config.device)
    threads = attrs.get("threads") or config.threads
    parallel = f", {count(int(threads), 'thread')}" if threads else ""
    made = str(attrs.get("created_at") or status.get("updated") or status.get("started") or "")
    lines = [
        Fact("Run", source.run_id, code=True),
        Fact("Study", config.study),
        Fact("Made", made.replace("T", " ").replace("+00:00", " UTC")),
        Fact(
            "Data",
            source.run.data.provenance,
            more=(f"{source.run.data.name}: {len(source.run.data):,} images, licence {source.run.data.licence}.",),
        ),
        Fact("Seed", str(config.seed)),
        Fact("Device", f"{device}{parallel}, {config.training.precision}"),
        Fact("Time", _times(seconds)),
        Fact("Versions", ", ".join(f"{k} {v}" for k, v in source.versions.items())),
        Fact("Make it again", command(config), code=True),
        Fact("In Python", call(config), code=True),
    ]
    return tuple(line for line in lines if line.value)


def settings_table(config: RunConfig) -> Table:
    """Every setting of the run."""
    rows = [(name, "not set" if value is None else str(value)) for name, value in config.flat().items()]
    return Table(("setting", "value"), tuple(rows))


def _times(seconds: Mapping[str, Any] | Any) -> str:
    if not isinstance(seconds, Mapping):
        return ""
    return ", ".join(f"{name} {duration(float(value))}" for name, value in seconds.items())
