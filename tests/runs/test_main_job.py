"""The main job as a person runs it: the command in a process of its own, killed, interrupted, and run again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr

import cvi_widgets as cvi
from cvi_widgets.config import RunConfig
from cvi_widgets.errors import StoreError
from cvi_widgets.results import RunDirectory, open_results
from cvi_widgets.results.store import same_values
from cvi_widgets.runs import Run, open_run

# More images than the preset's, and frequent checkpoints, so that a kill lands in the middle of training.
SETTINGS = ("--preset", "smoke", "--images", "9600", "--checkpoint-seconds", "0.2", "--threads", "1")
CONFIG = RunConfig.of("dsprites", "beta_vae", beta=4.0, preset="smoke", images=9600, checkpoint_seconds=0.2, threads=1)


def _command(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command with a home that is named relative to where the person stands."""
    return subprocess.Popen(
        [sys.executable, "-c", "from cvi_widgets.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CVI_HOME": home.name},
        cwd=home.parent,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def _wait_for_training(directory: RunDirectory, process: subprocess.Popen[str], images: int) -> int:
    """Until a checkpoint is there and training goes on; returns the kernel's process."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            status = directory.status()
        except StoreError:
            status = None
        if status and status.stage == "training" and status.images >= images:
            if any((directory.partial / "checkpoint").glob("*")):
                return status.pid
        time.sleep(0.02)
    raise AssertionError("training never began")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.fixture(scope="module")
def straight(data_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run, never disturbed, in a home of its own that shares the session's data."""
    home = tmp_path_factory.mktemp("straight")
    (data_home / "data").mkdir(exist_ok=True)
    (home / "data").symlink_to(data_home / "data")
    code, output = _finish(_command(home, "run", "dsprites", "beta_vae", "--beta", "4", *SETTINGS))
    assert code == 0, output
    assert CONFIG.run_id in output
    assert "WARNING" not in output
    bars = re.findall(r"training: +(\d+)%.*?(\S+) images/s", output)
    shown = [int(percent) for percent, _ in bars]
    assert shown == sorted(shown) and shown[0] < 50 and shown[-1] == 100, output
    assert not [speed for _, speed in bars if speed.startswith("-")], output
    return Run(RunDirectory.of(CONFIG, home / "runs"))


def _assert_same_run(a: Run, b: Run) -> None:
    assert a.files.weights.read_bytes() == b.files.weights.read_bytes()
    first, second = open_results(a.files.store, verify=True), open_results(b.files.store, verify=True)
    groups = {node.path for node in first.subtree}
    assert groups == {node.path for node in second.subtree}
    assert len(groups) > 10
    for path in groups:
        assert same_values(first[path].to_dataset(inherit=False), second[path].to_dataset(inherit=False)), path


def test_it_leaves_the_run_directory_of_the_design(straight: Run) -> None:
    names = {p.name for p in straight.directory.iterdir()}
    assert names >= {"config.json", "status.json", "model.safetensors", "results.zarr", "notebook.ipynb", "report.html"}
    assert not [n for n in names if n.startswith(".") or n in ("checkpoint", "error.txt")]
    assert straight.status.state == "done"
    attrs = open_results(straight.files.store).attrs
    assert attrs["config_hash"] == CONFIG.hashed
    assert attrs["seed"] == 0
    assert json.loads(attrs["versions"])["torch"].startswith("2.")
    assert RunConfig.checked(json.loads(attrs["config"])) == CONFIG


def test_the_notebook_is_the_three_notebooks_executed_without_an_error(straight: Run) -> None:
    notebook = nbformat.read(straight.files.notebook, as_version=4)
    text = "\n".join(c.source for c in notebook.cells)
    assert [t in text for t in ("# 1. Train", "# 2. Intervene", "# 3. Report")] == [True] * 3
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert sum("parameters" in c.metadata.tags for c in code) == 1
    injected = next(c.source for c in code if "injected-parameters" in c.metadata.tags)
    assert '"beta": 4.0' in injected
    assert not [o for c in code for o in c.outputs if o.output_type == "stream" and "training:" in o.text]
    drawn = [o for c in code for o in c.outputs if "text/html" in o.get("data", {})]
    assert len(drawn) >= 7
    assert straight.files.notebook.stat().st_size < 15e6


def test_every_stored_variable_says_what_it_is(straight: Run) -> None:
    unnamed = [
        f"{node.path}/{name}"
        for node in straight.results.subtree
        for name, variable in node.to_dataset(inherit=False).data_vars.items()
        if not {"long_name", "units"} <= set(variable.attrs)
    ]
    assert unnamed == []


def test_stored_figures_agree_with_the_stored_model(straight: Run) -> None:
    """Weights, data and posterior in the directory belong together: encoding again gives the stored codes."""
    results = straight.results
    index = results["observations"]["index"].values[:64]
    np.testing.assert_array_equal(index, straight.split.test[:64])
    images = straight.data.images(index, dtype="float32")
    mu = straight.model.encode(images).mu.numpy()
    np.testing.assert_allclose(mu, results["posterior"]["mu"].values[:64], rtol=1e-4, atol=1e-5)
    classes = results["observations"]["factor_class"].values[:64]
    np.testing.assert_array_equal(straight.data.index(classes), index)


def test_killed_in_training_and_run_again_it_ends_with_the_same_bits(straight: Run, home: Path) -> None:
    directory = RunDirectory.of(CONFIG, home / "runs")
    arguments = ("run", "dsprites", "beta_vae", "--beta", "4", *SETTINGS)
    process = _command(home, *arguments)
    kernel = _wait_for_training(directory, process, images=1500)
    os.kill(kernel, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert not directory.final.exists()
    assert directory.status().images < CONFIG.training.images
    checkpoints = [p for p in (directory.partial / "checkpoint").rglob("*") if p.is_file()]
    assert checkpoints
    (directory.partial / "error.txt").write_text("of an earlier attempt")
    code, output = _finish(_command(home, *arguments))
    assert code == 0, output
    assert not (directory.final / "error.txt").exists()
    _assert_same_run(straight, Run(directory))


def test_interrupted_it_says_so_and_leaves_a_run_that_resumes(straight: Run, home: Path) -> None:
    directory = RunDirectory.of(CONFIG, home / "runs")
    arguments = ("run", "dsprites", "beta_vae", "--beta", "4", *SETTINGS)
    process = _command(home, *arguments)
    kernel = _wait_for_training(directory, process, images=1500)
    process.send_signal(signal.SIGINT)
    code, output = _finish(process)
    assert code == 130, output
    assert "interrupted; the same command goes on from the last checkpoint" in output
    assert directory.status().state == "interrupted"
    assert _gone(kernel)
    with cvi.start_run(CONFIG, home / "runs") as run:
        assert 0 < run.status.images < CONFIG.training.images
        cvi.train_stage(run, progress=False)
        assert run.files.weights.read_bytes() == straight.files.weights.read_bytes()
        for group in ("training", "posterior"):
            assert same_values(run.results[group].to_dataset(), straight.results[group].to_dataset())


def test_killed_between_the_stages_only_what_is_missing_is_done(straight: Run, home: Path) -> None:
    """A run whose interventions were half stored: finished groups keep their files, the rest is made."""
    directory = RunDirectory.of(CONFIG, home / "runs")
    import shutil

    shutil.copytree(straight.directory, directory.partial)
    for name in ("report.html", "results.zarr.manifest.json", "notebook.ipynb"):
        (directory.partial / name).unlink()
    for group in ("effects/mediation", "metrics", "activations/encoder.conv1"):
        shutil.rmtree(directory.partial / "results.zarr" / group)
    kept = directory.partial / "results.zarr/effects/patching/zarr.json"
    before = kept.stat().st_mtime_ns
    run = cvi.start_run(CONFIG, home / "runs")
    with run:
        run = cvi.report_stage(cvi.intervene_stage(cvi.train_stage(run, progress=False), progress=False), progress=False)
        run = run.publish()
    assert (run.files.store / "effects/patching/zarr.json").stat().st_mtime_ns == before
    _assert_same_run(straight, run)


def test_a_finished_run_is_opened_not_run_again(straight: Run) -> None:
    home = straight.directory.parents[2]
    before = {p: p.stat().st_mtime_ns for p in straight.directory.rglob("*")}
    code, output = _finish(_command(home, "run", "dsprites", "beta_vae", "--beta", "4", *SETTINGS))
    assert code == 0
    assert "finished before; --again runs it anew" in output
    assert {p: p.stat().st_mtime_ns for p in straight.directory.rglob("*")} == before


def test_listing_and_showing(straight: Run) -> None:
    home = straight.directory.parents[2]
    code, output = _finish(_command(home, "runs"))
    assert code == 0
    assert CONFIG.run_id in output and "done" in output
    code, output = _finish(_command(home, "show", CONFIG.run_id[:20]))
    assert code == 0, output
    for word in ("reconstruction_nats", "training", "/effects/mediation", "done"):
        assert word in output
    (straight.directory.parent / ".lock-x").unlink(missing_ok=True)


def test_a_truncated_store_gets_one_sentence(straight: Run, home: Path) -> None:
    import shutil

    copy = home / "runs" / "default" / CONFIG.run_id
    shutil.copytree(straight.directory, copy)
    victim = next(p for p in (copy / "results.zarr/effects/input").rglob("c/*") if p.is_file())
    victim.unlink()
    code, output = _finish(_command(home, "show", "latest"))
    assert code == 2
    assert output.splitlines()[-1].startswith("cvi: store ")
    assert "is truncated: file 'effects/input/" in output
    with pytest.raises(StoreError, match="is truncated"):
        open_run(copy).results


def test_a_run_prints_what_it_is_and_never_runs_what_it_holds(straight: Run) -> None:
    text = repr(straight)
    assert CONFIG.run_id in text and "/effects/latent" in text
    suffixes = {p.suffix for p in straight.directory.rglob("*") if p.is_file()}
    assert suffixes <= {"", ".json", ".safetensors", ".html", ".ipynb"}
    assert isinstance(straight.results, xr.DataTree)
