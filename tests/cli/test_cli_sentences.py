"""Mistakes at the command line: one sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from cvi_widgets.cli import main, parse_settings
from cvi_widgets.config import RunConfig
from cvi_widgets.errors import ConfigError
from cvi_widgets.report.provenance import command


def _cvi(home: Path, *arguments: str) -> tuple[int, str]:
    """The command in this process: its exit code and standard error."""
    error = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(error), redirect_stdout(io.StringIO()):
        patch.setenv("CVI_HOME", str(home))
        patch.chdir(home if home.is_dir() else home.parent)
        patch.setattr(sys, "argv", ["cvi", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0), error.getvalue()


def test_the_installed_command_exits_with_2_and_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("cvi"), "run", "dsprites", "beta_vae", "--bata", "4"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CVI_HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cvi: setting 'bata' is unknown; did you mean beta?\n"
    assert list(tmp_path.iterdir()) == []


def _corrupt_npz(folder: Path) -> Path:
    path = folder / "dsprites.npz"
    path.write_bytes(b"PK\x03\x04 this is no archive")
    return path


def _wrong_npz(folder: Path) -> Path:
    path = folder / "dsprites.npz"
    np.savez(path, imgs=np.zeros((4, 64, 64), np.uint8))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bata", "4"], ["'bata'", "did you mean beta?"]),
        (["--beta", "four"], ["'beta'", "'four'"]),
        (["--beta"], ["'beta'", "lacks its value"]),
        (["--beta", "4", "--beta", "5"], ["'beta'", "given twice"]),
        (["--images", "0"], ["'images'", "0", "greater than or equal to 1"]),
        (["--images", "2.5"], ["'images'", "2.5"]),
        (["--preset", "quick"], ["'quick'", "smoke, demo, paper"]),
        (["beta=4"], ["'beta=4'", "--name value"]),
    ],
)
def test_a_wrong_setting(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    code, error = _cvi(tmp_path, "run", "dsprites", "beta_vae", *arguments)
    assert code == 2
    assert error.startswith("cvi: ")
    assert len(error.strip().splitlines()) == 1
    for word in words:
        assert word in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("make", "word"), [(_corrupt_npz, "npz"), (_wrong_npz, "latents_classes")])
def test_a_bad_file_leaves_nothing_behind(tmp_path: Path, make: object, word: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    home = tmp_path / "home"
    home.mkdir()
    code, error = _cvi(home, "run", "dsprites-official", "vae", "--preset", "smoke", "--data-path", str(path))
    assert code == 2
    assert len(error.strip().splitlines()) == 1, error
    assert word in error
    assert [p for p in home.rglob("*") if p.is_file()] == []


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    code, error = _cvi(tmp_path, "run", "dsprites-official", "vae", "--data-path", str(tmp_path / "nowhere.npz"))
    assert code == 2
    assert "nowhere.npz" in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    code, error = _cvi(blocked, "run", "dsprites", "vae", "--preset", "smoke")
    assert code == 2
    assert "cannot be written" in error
    assert len(error.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["blocked"]


@pytest.mark.parametrize("command", ["show", "open", "dashboard"])
def test_an_unknown_run(tmp_path: Path, command: str) -> None:
    code, error = _cvi(tmp_path, command, "nothing")
    assert code == 2
    assert "holds no runs yet" in error
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_and_a_bad_one(tmp_path: Path) -> None:
    code, error = _cvi(tmp_path, "study", "run", "smok")
    assert (code, "did you mean smoke?" in error) == (2, True)
    bad = tmp_path / "mine.yaml"
    bad.write_text("name: mine\ndatasets: [dsprites]\nmodels: {vae: {beta: 4.0}}\nseeds: [0]\n")
    code, error = _cvi(tmp_path, "study", "run", str(bad))
    assert (code, "'beta' belongs to beta_vae" in error) == (2, True)
    bad.write_text("name: mine\ndataset: [dsprites]\nmodels: {vae: {}}\nseeds: [0]\n")
    code, error = _cvi(tmp_path, "study", "run", str(bad))
    assert (code, "datasets" in error) == (2, True)


def test_values_are_read_as_numbers_words_and_nothing_else() -> None:
    read = parse_settings(["--beta=4", "--learning-rate", "1e-3", "--precision", "float32", "--seconds", "null"])
    assert read == {"beta": 4, "learning_rate": 1e-3, "precision": "float32", "seconds": None}
    assert parse_settings(["--data-path", "007", "--study", "1"]) == {"data_path": "007", "study": "1"}
    with pytest.raises(ConfigError, match="'x' is unexpected"):
        parse_settings(["x"])


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "smoke"},
        {"beta": 1 / 3, "learning_rate": 1.23456789e-3, "seed": 7, "study": "3"},
        {"preset": "paper", "precision": "bfloat16", "threads": 2, "data_path": "/a b.npz", "dataset": "scm-dsprites"},
    ],
)
def test_the_command_a_report_prints_makes_the_same_run(settings: dict[str, object]) -> None:
    config = RunConfig.of(**{"dataset": "dsprites", "model": "beta_vae", **settings})
    words = shlex.split(command(config))
    assert words[:2] == ["cvi", "run"]
    assert RunConfig.of(words[2], words[3], **parse_settings(words[4:])) == config
