"""All runs of a study, one after the other; a failing run never stops the others, a finished one is not run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cvi_widgets.config import RunConfig
from cvi_widgets.errors import CviError
from cvi_widgets.results import RunDirectory
from cvi_widgets.studies.grid import StudyConfig
from cvi_widgets.studies.runner import EXIT_INTERRUPTED, RunError, execute


@dataclass(frozen=True)
class Outcome:
    """How one run of the study ended; `error` is empty when it is done."""

    run_id: str
    report: Path
    error: str = ""


def run_study(
    study: StudyConfig,
    folder: Path | None = None,
    *,
    progress: bool = True,
    on_run: Callable[[int, int, RunConfig], None] | None = None,
) -> list[Outcome]:
    """Execute every run of `study` in this process's kernels, resuming what was interrupted.

    Raises
    ------
    RunError
        Only for Ctrl-C; every other failure becomes an `Outcome` with its sentence.
    """
    configs = list(study.runs())
    outcomes = []
    for number, config in enumerate(configs, start=1):
        if on_run:
            on_run(number, len(configs), config)
        directory = RunDirectory.of(config, folder)
        try:
            execute(config, folder, progress=progress)
        except RunError as error:
            if error.exit_code == EXIT_INTERRUPTED:
                raise
            outcomes.append(Outcome(directory.run_id, directory.report, str(error)))
        except CviError as error:
            outcomes.append(Outcome(directory.run_id, directory.report, str(error)))
        else:
            outcomes.append(Outcome(directory.run_id, directory.report))
    return outcomes
