"""One run, executed as the notebooks: 01_train, 02_interventions and 03_report joined, run by papermill.

The three are executed in one kernel, so libraries are imported once, and kept as one `notebook.ipynb`. The kernel
writes `status.json` as it works; this process follows that file to show progress, passes Ctrl-C on to the kernel, and
publishes the run once everything is there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode
from tqdm.auto import tqdm

from cvi_widgets import data as datasets
from cvi_widgets.config import RunConfig
from cvi_widgets.errors import CviError, StoreError
from cvi_widgets.report.provenance import chosen_settings
from cvi_widgets.results import RunDirectory, RunStatus
from cvi_widgets.results.directory import now
from cvi_widgets.runs import Run

NOTEBOOKS = ("01_train.py", "02_interventions.py", "03_report.py")
EXIT_INTERRUPTED = 130


class RunError(CviError):
    """A run's notebook ended with an error; `run` is its directory, `exit_code` what the command line returns."""

    def __init__(self, message: str, run: RunDirectory, exit_code: int) -> None:
        super().__init__(message)
        self.run = run
        self.exit_code = exit_code


def notebook_sources() -> Path:
    """Folder of the notebooks: inside an installed wheel, else at the top of the checkout.

    Raises
    ------
    StoreError
        The installation lacks its notebooks.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        if (folder / NOTEBOOKS[0]).exists():
            return folder
    raise StoreError(f"notebooks {', '.join(NOTEBOOKS)} are missing from this installation; install cvi_widgets again.")


def joined_notebook() -> NotebookNode:
    """The three notebooks as one, with one parameters cell: the last one's, which holds all of them, in first place."""
    parts = [jupytext.read(notebook_sources() / name) for name in NOTEBOOKS]
    first = parts[0]
    last_parameters = next(c for c in parts[-1].cells if _is_parameters(c))
    cells = [last_parameters if _is_parameters(c) else c for c in first.cells]
    cells += [c for part in parts[1:] for c in part.cells if not _is_parameters(c)]
    joined: NotebookNode = nbformat.v4.new_notebook(cells=cells, metadata=first.metadata)
    for number, cell in enumerate(joined.cells):
        cell["id"] = f"cell-{number:02d}"
    return joined


def execute(config: RunConfig, folder: Path | None = None, *, progress: bool = True) -> Run:
    """Train, intervene, store and report one configuration; resumes an interrupted run, opens a finished one.

    Raises
    ------
    RunError
        The notebook ended with an error; the executed notebook, the traceback and the last checkpoint are kept.
    CviError
        Something is wrong before anything is written.
    """
    directory = RunDirectory.of(config, folder)
    if directory.final.exists():
        return Run(directory)
    datasets.load(config.data.dataset, data_path=config.data.data_path, scm=config.data.scm)
    with directory.lock(role="start"):
        if directory.final.exists():
            return Run(directory)
        with directory.lock():
            directory.begin(config)
            # What an earlier attempt failed of is no part of the run that succeeds.
            (directory.partial / "error.txt").unlink(missing_ok=True)
            directory.note(replace(_status(directory), state="running", message="starting", error="", pid=os.getpid()))
        _run_notebook(config, directory, progress)
        return Run(directory).publish()


def _run_notebook(config: RunConfig, directory: RunDirectory, progress: bool) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    parameters = {
        "dataset": config.data.dataset,
        "model": config.model.model,
        "settings": chosen_settings(config),
        "folder": str(directory.final.parents[1]),
        "interactive": False,
    }
    try:
        with _follow(directory, progress), _interrupts_go_to_the_kernel(directory):
            papermill.execute_notebook(
                joined_notebook(),
                str(directory.notebook),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                # Without this a kernel warns at every start that its messages, which stay on this machine, are plain.
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
    except PapermillExecutionError as error:
        raise _failure(directory, str(error.ename), str(error.evalue), str(error)) from None
    except RuntimeError as error:
        # nbclient's DeadKernelError: the kernel was killed, by a person or for memory.
        raise _failure(directory, type(error).__name__, "the kernel died", str(error)) from None


def _failure(directory: RunDirectory, name: str, value: str, trace: str) -> RunError:
    errors = {c.__name__: c for c in _subclasses(CviError)}
    interrupted = name == "KeyboardInterrupt"
    status = _status(directory)
    if interrupted:
        sentence = "interrupted; the same command goes on from the last checkpoint."
    elif name in errors:
        sentence = value
    else:
        sentence = f"{name}: {value}"
    (directory.path / "error.txt").write_text(trace + "\n")
    directory.note(replace(status, state="interrupted" if interrupted else "failed", error=sentence, pid=0))
    code = EXIT_INTERRUPTED if interrupted else errors[name].exit_code if name in errors else 1
    where = "" if interrupted else f" (notebook and traceback are in {directory.path})"
    stage = status.stage or "starting"
    return RunError(f"run {directory.run_id!r} stopped in stage {stage}: {sentence}{where}", directory, code)


def _subclasses(kind: type[CviError]) -> Iterator[type[CviError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _status(directory: RunDirectory) -> RunStatus:
    try:
        return directory.status()
    except StoreError:
        return RunStatus(state="running", started=now())


def _is_parameters(cell: NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


@contextmanager
def _interrupts_go_to_the_kernel(directory: RunDirectory) -> Iterator[None]:
    """The first Ctrl-C asks the kernel to save a checkpoint and stop; the second stops this process as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def forward(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        pid = _status(directory).pid
        if pid in (0, os.getpid()):
            raise KeyboardInterrupt
        os.kill(pid, signal.SIGINT)

    signal.signal(signal.SIGINT, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _follow(directory: RunDirectory, progress: bool) -> Iterator[None]:
    """Show the run's own progress, read from its status twice a second."""
    if not progress:
        yield
        return
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(directory, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(directory: RunDirectory, stop: threading.Event) -> None:
    stage, bar = "", tqdm(disable=True)
    while True:
        last_look = stop.wait(0.5)
        status = _status(directory)
        if status.stage and status.stage != stage:
            bar.update((bar.total or 0) - bar.n)
            bar.close()
            stage = status.stage
            unit = " images" if stage == "training" else " steps"
            bar = tqdm(total=max(status.total, 1), initial=status.images, desc=stage, unit=unit, dynamic_ncols=True)
        bar.set_postfix_str(_postfix(status), refresh=False)
        bar.update(status.images - bar.n)
        if last_look:
            bar.close()
            return


def _postfix(status: RunStatus) -> str:
    if status.stage != "training":
        return status.message
    return f"{status.images_per_second:.0f} images/s"


def run_flat(dataset: str = "dsprites", model: str = "beta_vae", *, progress: bool = True, **settings: Any) -> Run:
    """Train, intervene, measure, store and report: `cvi.run("dsprites", "beta_vae", beta=4, seed=0)`.

    The settings are those of `RunConfig`, by their flat names. Returns the finished run.
    """
    return execute(RunConfig.of(dataset, model, **settings), progress=progress)
