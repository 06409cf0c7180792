"""The run directory: hidden until done, one worker at a time, found by any unambiguous name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvi_widgets.config import RunConfig
from cvi_widgets.errors import ConfigError, StoreError
from cvi_widgets.results import RunDirectory, RunStatus, find_run, list_runs
from cvi_widgets.results.directory import write_json


def _begin(folder: Path, **settings: object) -> RunDirectory:
    config = RunConfig.of("dsprites", "beta_vae", preset="smoke", **settings)
    directory = RunDirectory.of(config, folder)
    directory.begin(config)
    directory.note(RunStatus(state="running", pid=os.getpid()))
    return directory


def test_a_run_is_hidden_until_it_is_published(tmp_path: Path) -> None:
    run = _begin(tmp_path)
    assert run.path.name.startswith(".partial-")
    (run.path / "checkpoint").mkdir()
    run.publish()
    assert run.path == run.final
    assert not (run.final / "checkpoint").exists()
    assert [p.name for p in run.final.parent.iterdir()] == [run.run_id]
    assert run.config().run_id == run.run_id


def test_status_is_rewritten_whole_with_its_time(tmp_path: Path) -> None:
    run = _begin(tmp_path)
    run.note(RunStatus(state="running", stage="training", images=640, total=3200, seconds={"training": 1.5}))
    status = run.status()
    assert (status.stage, status.images, status.seconds) == ("training", 640, {"training": 1.5})
    assert status.updated.endswith("+00:00")
    assert [p.name for p in run.path.iterdir() if p.name.startswith(".")] == []


HOLD = """
import sys
from pathlib import Path
from cvi_widgets.config import RunConfig
from cvi_widgets.results import RunDirectory
lock = RunDirectory.of(RunConfig.of("dsprites", "beta_vae", preset="smoke"), Path(sys.argv[1])).lock()
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    run = _begin(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"is being worked on by process {os.getpid()}"):
            run.lock(seconds=0.1)
        other.kill()
    with run.lock(seconds=5):
        assert run.status().state == "running"


def test_runs_are_found_by_path_id_beginning_and_latest(tmp_path: Path) -> None:
    first, second = _begin(tmp_path, seed=0), _begin(tmp_path, seed=1)
    second.publish()
    os.utime(first.path / "config.json", (1, 1))
    assert {r.run_id for r in list_runs(tmp_path)} == {first.run_id, second.run_id}
    assert find_run("latest", tmp_path) == second
    assert find_run(second.run_id, tmp_path) == second
    assert find_run("dsprites-beta_vae-b4-s0", tmp_path) == first
    assert find_run(second.path).path == second.path
    assert find_run(first.path).path == first.path
    with pytest.raises(StoreError, match="is ambiguous: "):
        find_run("dsprites", tmp_path)
    with pytest.raises(StoreError, match=f"did you mean {second.run_id}"):
        find_run(second.run_id[:-1] + "_", tmp_path)
    with pytest.raises(StoreError, match="holds no runs yet"):
        find_run("latest", tmp_path / "empty")


def test_a_removed_run_is_gone_whole(tmp_path: Path) -> None:
    run = _begin(tmp_path)
    run.publish()
    run.remove()
    assert list(tmp_path.rglob("*.json")) == []
    assert list(list_runs(tmp_path)) == []


def test_foreign_and_broken_files_get_a_sentence(tmp_path: Path) -> None:
    run = _begin(tmp_path)
    write_json(run.path / "config.json", {"preset": "smoke", "colour": "red"})
    with pytest.raises(ConfigError, match="'colour'"):
        run.config()
    (run.path / "config.json").write_text("{")
    with pytest.raises(StoreError, match="not readable JSON"):
        run.config()
    (run.path / "config.json").write_text("[]")
    with pytest.raises(StoreError, match="does not hold a JSON object"):
        run.config()
    with pytest.raises(StoreError, match="no run directory"):
        RunDirectory(tmp_path / "nothing").status()


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    config = RunConfig.of("dsprites", "beta_vae", preset="smoke")
    with pytest.raises(StoreError, match="cannot be written"):
        RunDirectory.of(config, blocked).begin(config)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
