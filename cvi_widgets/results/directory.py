"""The run directory: begun under a hidden name, published by one rename, never half there.

`runs/<study>/.partial-<run_id>/` while a run is worked on, `runs/<study>/<run_id>/` once it is done. `status.json` in
it is rewritten whole at every step, so that any process can follow a run, and locks beside it keep two processes from
working on the same run.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cvi_widgets.config import RunConfig
from cvi_widgets.errors import StoreError
from cvi_widgets.names import nearest
from cvi_widgets.paths import ensure_writable, runs_dir

PARTIAL = ".partial-"
State = Literal["running", "interrupted", "failed", "done"]


@dataclass(frozen=True)
class RunStatus:
    """What `status.json` says; times are seconds, `started` and `updated` are UTC in ISO 8601."""

    state: State
    stage: str = ""
    message: str = ""
    images: int = 0
    total: int = 0
    images_per_second: float = 0.0
    seconds_left: float | None = None
    pid: int = 0
    started: str = ""
    updated: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run and the file operations on them; `path` moves from hidden to final when published."""

    final: Path

    @classmethod
    def of(cls, config: RunConfig, folder: Path | None = None) -> RunDirectory:
        """The directory this configuration has under `folder` (default: the runs folder)."""
        # Absolute, because executing a notebook may change this process's working directory.
        return cls(Path(folder or runs_dir()).absolute() / config.study / config.run_id)

    @property
    def partial(self) -> Path:
        """The hidden folder of work in progress."""
        return self.final.parent / f"{PARTIAL}{self.final.name}"

    @property
    def path(self) -> Path:
        """Where the run's files are now."""
        return self.final if self.final.exists() else self.partial

    @property
    def run_id(self) -> str:
        """Name of the final folder."""
        return self.final.name

    @property
    def store(self) -> Path:
        """The Zarr store."""
        return self.path / "results.zarr"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.path / "notebook.ipynb"

    def begin(self, config: RunConfig) -> None:
        """Create the hidden folder with `config.json`; an interrupted run's files stay, to be resumed from.

        Raises
        ------
        StoreError
            The folder cannot be written.
        """
        ensure_writable(self.partial)
        write_json(self.partial / "config.json", config.model_dump(mode="json"))

    def lock(self, seconds: float = 20.0, role: str = "work") -> FileLock:
        """Acquire the run for this process; who starts a run's kernel and who works in it hold locks of two roles.

        Raises
        ------
        StoreError
            Another live process still works on this run after `seconds`.
        """
        ensure_writable(self.final.parent)
        lock = FileLock(self.final.parent / f".lock-{role}-{self.run_id}")
        try:
            lock.acquire(timeout=seconds)
        except Timeout as error:
            raise StoreError(
                f"run {self.run_id!r} is being worked on by process {self.status().pid}; wait for it or stop it."
            ) from error
        return lock

    def config(self) -> RunConfig:
        """The stored configuration, checked again."""
        return RunConfig.checked(_read_json(self.path / "config.json"))

    def status(self) -> RunStatus:
        """What `status.json` says now."""
        known = {f.name for f in fields(RunStatus)}
        stored = _read_json(self.path / "status.json")
        return RunStatus(**{k: v for k, v in stored.items() if k in known})

    def note(self, status: RunStatus) -> None:
        """Write `status.json` whole, with this moment as `updated`."""
        write_json(self.path / "status.json", {**asdict(status), "updated": now()})

    def publish(self) -> None:
        """Rename the hidden folder to its final name; checkpoints, no longer needed, go first."""
        shutil.rmtree(self.partial / "checkpoint", ignore_errors=True)
        self.partial.replace(self.final)

    def remove(self) -> None:
        """Delete the run, finished or not."""
        for folder in (self.final, self.partial):
            if folder.exists():
                doomed = folder.parent / f".removed-{os.getpid()}-{self.run_id}"
                folder.replace(doomed)
                shutil.rmtree(doomed)


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    aside = path.parent / f".{path.name}.{os.getpid()}.partial"
    aside.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    aside.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StoreError(f"{str(path.parent)!r} is no run directory: it has no {path.name}.") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"file {str(path)!r} is not readable JSON.") from error
    if not isinstance(value, dict):
        raise StoreError(f"file {str(path)!r} does not hold a JSON object.")
    return value


def list_runs(folder: Path | None = None) -> Iterator[RunDirectory]:
    """Every run below `folder` (default: the runs folder), newest first, unfinished ones included."""
    root = Path(folder or runs_dir()).absolute()
    found: dict[Path, float] = {}
    for path in root.glob("*/*/config.json"):
        run = path.parent
        if run.name.startswith("."):
            if not run.name.startswith(PARTIAL):
                continue
            run = run.with_name(run.name.removeprefix(PARTIAL))
        found[run] = max(found.get(run, 0.0), path.stat().st_mtime)
    yield from (RunDirectory(run) for run in sorted(found, key=lambda r: -found[r]))


def find_run(name: str | os.PathLike[str], folder: Path | None = None) -> RunDirectory:
    """The run at a path, or with this id (or an unambiguous beginning of one) below `folder`; `"latest"` is the newest.

    Raises
    ------
    StoreError
        No run, or several, answer to the name.
    """
    path = Path(name)
    if (path / "config.json").exists():
        return RunDirectory(path.with_name(path.name.removeprefix(PARTIAL)).absolute())
    runs = list(list_runs(folder))
    if not runs:
        raise StoreError(f"run {str(name)!r} is not there: {str(folder or runs_dir())!r} holds no runs yet.")
    if str(name) == "latest":
        return runs[0]
    matches = [r for r in runs if r.run_id == str(name)] or [r for r in runs if r.run_id.startswith(str(name))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        named = ", ".join(f"{m.final.parent.name}/{m.run_id}" for m in matches)
        raise StoreError(f"run {str(name)!r} is ambiguous: {named}.")
    guess = nearest(str(name), [r.run_id for r in runs])
    hint = f"did you mean {guess}?" if guess else "`cvi runs` lists them."
    raise StoreError(f"run {str(name)!r} is not there; {hint}")


def elapsed(since: float) -> float:
    """Seconds since a `time.perf_counter` reading, to the millisecond."""
    return round(time.perf_counter() - since, 3)
