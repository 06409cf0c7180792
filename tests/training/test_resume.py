"""A training that is killed at any instant and started again ends with the same bits as one that never was."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import toy_squares
import xarray as xr

from cvi_widgets.errors import StoreError
from cvi_widgets.models import GaussianVAE
from cvi_widgets.training import Progress, TrainingResult


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[GaussianVAE, TrainingResult]:
    """The training that nothing interrupts."""
    return toy_squares.run(tmp_path_factory.mktemp("straight"))


def assert_same(got: tuple[GaussianVAE, TrainingResult], expected: tuple[GaussianVAE, TrainingResult]) -> None:
    weights, others = got[0].state_dict(), expected[0].state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in others)
    history, other = got[1].history.copy(), expected[1].history.copy()
    for a in (history, other):  # how long it took is the one thing that may differ
        del a.attrs["seconds"], a.attrs["images_per_second"]
    xr.testing.assert_identical(history, other)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoint").glob("*.safetensors"))


def test_two_trainings_from_one_seed_are_bit_identical(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult]
) -> None:
    assert_same(toy_squares.run(tmp_path), straight)


def test_a_training_killed_four_times_ends_with_the_bits_of_one_that_never_was(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult]
) -> None:
    command = [sys.executable, toy_squares.__file__, str(tmp_path), "writing:1", "written:4", "renamed:5", "between:3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert [code for code, *_ in lines] == [str(-signal.SIGKILL)] * 4
    done = [left for _, *left in lines]
    # The first kill left nothing, each later one a state further on; none of them reached the end.
    assert done[0] == [] and done[1] < done[2] < done[3]
    assert max(done[3]) < f"images-{310:012d}"
    assert_same(toy_squares.run(tmp_path), straight)
    assert len(checkpoints(tmp_path)) == 2
    assert not list((tmp_path / "checkpoint").glob(".*"))


def test_ctrl_c_saves_where_it_stands_and_the_rest_follows(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult]
) -> None:
    config = toy_squares.settings(checkpoint_seconds=3600.0)
    seen: list[Progress] = []

    def press(progress: Progress) -> None:
        seen.append(progress)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        toy_squares.run(tmp_path, config, press)
    assert signal.getsignal(signal.SIGINT) == before
    assert [p.name for p in checkpoints(tmp_path)] == [f"images-{seen[-1].images:012d}.safetensors"]
    assert_same(toy_squares.run(tmp_path, config), straight)


def test_a_listener_that_raises_keyboard_interrupt_saves_too(tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_squares.run(tmp_path, toy_squares.settings(checkpoint_seconds=3600.0), press)
    assert len(checkpoints(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult], damage: str
) -> None:
    toy_squares.run(tmp_path)
    newest = checkpoints(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"is torn .* passed over"):
        again = toy_squares.run(tmp_path)
    assert_same(again, straight)


def test_a_finished_training_returns_at_once_with_what_it_had(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult]
) -> None:
    toy_squares.run(tmp_path)
    calls: list[Progress] = []
    again = toy_squares.run(tmp_path, progress=calls.append)
    assert calls == []
    assert_same(again, straight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"beta": 1.0}, "belongs to another training .config is"), ({"seed": 1}, "belongs to another training")],
)
def test_a_checkpoint_of_other_settings_is_refused_and_kept(
    tmp_path: Path, change: dict[str, float], sentence: str
) -> None:
    toy_squares.run(tmp_path)
    before = [p.read_bytes() for p in checkpoints(tmp_path)]
    with pytest.raises(StoreError, match=sentence):
        toy_squares.run(tmp_path, toy_squares.settings(**change))
    assert [p.read_bytes() for p in checkpoints(tmp_path)] == before


def test_a_checkpoint_that_is_some_other_safetensors_file_is_passed_over(
    tmp_path: Path, straight: tuple[GaussianVAE, TrainingResult]
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    safetensors.torch.save_file({"w": torch.ones(2)}, folder / "images-000000000016.safetensors")
    with pytest.warns(UserWarning, match="is torn"):
        trained = toy_squares.run(tmp_path)
    assert_same(trained, straight)
