"""The re-rendered dSprites: every image by digest, the genuine ones where they are at hand, and the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvi_widgets import data
from cvi_widgets.data import cache, dsprites
from cvi_widgets.data.readouts import SpriteReadout
from cvi_widgets.errors import StoreError

HERE = Path(__file__).parent
GENUINE = HERE.parents[2] / "shared" / "data" / "dsprites" / "dsprites_downsampled.npz"
SHAPES = ("square", "ellipse", "heart")


@pytest.fixture(scope="module")
def sprites() -> data.GridData:
    return data.load("dsprites")


@pytest.fixture(scope="module")
def bits(sprites: data.GridData) -> np.ndarray:
    return sprites.pixels.rows()


def agreement(bits: np.ndarray) -> tuple[int, int, int] | None:
    """Genuine images, how many are identical, and the worst number of wrong pixels; None where they are not at hand."""
    if not GENUINE.exists():
        return None
    with np.load(GENUINE) as file:
        images, index = file["imgs"], file["original_dataset_indices"]
    packed = np.packbits(images.reshape(len(images), -1), axis=1)
    wrong = np.bitwise_count(packed ^ bits[index]).sum(axis=1)
    return len(images), int((wrong == 0).sum()), int(wrong.max())


def test_every_image_has_the_digest_of_the_set_that_was_compared_with_genuine_ones(bits: np.ndarray) -> None:
    blocks = bits.reshape(3, 6, -1)
    found = {f"{SHAPES[s]} {k}": hashlib.sha256(blocks[s, k]).hexdigest() for s in range(3) for k in range(6)}
    assert found == json.loads((HERE / "dsprites_sha256.json").read_text())
    # The compared set: 46,080 genuine images, 46,074 of them identical, none more than one pixel off.
    assert agreement(bits) in (None, (46_080, 46_074, 1))
    assert "of 46,080 genuine images 46,074 are identical and 6 differ in one pixel" in dsprites.PROVENANCE
    assert 46_074 / 46_080 >= 0.9998


def test_known_totals(sprites: data.GridData, bits: np.ndarray) -> None:
    white = sum(int(np.bitwise_count(bits[i : i + 40_960]).sum(dtype=np.int64)) for i in range(0, len(bits), 40_960))
    # A published mean implies 128,328,862; the few pixels between are those of the images that differ.
    assert white == 128_328_857
    assert len(np.unique(sprites.twin)) == 715_706


def test_identical_pictures_differ_in_orientation_only(sprites: data.GridData) -> None:
    copies = np.flatnonzero(sprites.twin != np.arange(len(sprites)))
    assert len(copies) == 737_280 - 715_706
    differ = sprites.factors(copies) != sprites.factors(sprites.twin[copies].astype(np.int64))
    assert differ.any(axis=0).tolist() == [False, False, True, False, False]
    first, last = (sprites.index([[2, 5, o, 3, 9]]) for o in (0, 39))
    assert sprites.twin[last] == first


def test_a_split_has_no_picture_on_both_sides(sprites: data.GridData, bits: np.ndarray) -> None:
    split = sprites.split(10_000, seed=0)
    assert len(split.test) == 10_000
    assert not set(sprites.twin[split.train].tolist()) & set(sprites.twin[split.test].tolist())
    # and by the pixels themselves, not by what is known of them
    held = {bits[i].tobytes() for i in split.test}
    seen = (row.tobytes() for start in range(0, len(bits), 40_960) for row in bits[start : start + 40_960])
    alike = np.array([row in held for row in seen])
    assert not alike[split.train].any()
    assert alike.sum() + len(split.train) == len(bits)


def test_layout_is_that_of_the_authors_file(sprites: data.GridData) -> None:
    assert sprites.factor_names == ("shape", "scale", "orientation", "posX", "posY")
    assert sprites.factor_sizes == (3, 6, 40, 32, 32)
    assert sprites.image_shape == (1, 64, 64)
    assert sprites.index([[1, 2, 3, 4, 5]]).tolist() == [(((1 * 6 + 2) * 40 + 3) * 32 + 4) * 32 + 5]
    assert sprites.factor_values["shape"].tolist() == [1, 2, 3]
    images = sprites.images(np.array([0, 737_279]))
    assert images.shape == (2, 1, 64, 64)
    assert images.dtype == np.uint8
    assert set(np.unique(images).tolist()) == {0, 1}
    # posX moves the sprite right and posY down
    left, right, down = sprites.images(sprites.index([[0, 0, 0, 0, 0], [0, 0, 0, 31, 0], [0, 0, 0, 0, 31]]))[:, 0]
    assert left.any(axis=0).argmax() < 32 < right.any(axis=0).argmax()
    assert left.any(axis=1).argmax() < 32 < down.any(axis=1).argmax()


def test_scale_and_position_are_read_off_every_image(sprites: data.GridData) -> None:
    readout, wrong = SpriteReadout(), 0
    for start in range(0, len(sprites), 8192):
        index = np.arange(start, start + 8192)
        classes = dict(zip(sprites.factor_names, sprites.factors(index).T, strict=True))
        found = readout(sprites.images(index), {name: classes[name] for name in readout.given})
        wrong += sum(int((found[name] != classes[name]).sum()) for name in readout.reads)
    assert wrong == 0


def small(out: np.ndarray) -> None:
    out[:] = np.arange(out.size, dtype=np.uint8).reshape(out.shape) // 16


def test_a_cache_is_written_once_and_read_back(tmp_path: Path) -> None:
    written = cache.opened(tmp_path / "set", 32, 8, small)
    again = cache.opened(tmp_path / "set", 32, 8, lambda out: pytest.fail("written twice"))
    assert np.array_equal(written.bits, again.bits)
    assert again.twin.tolist() == [i - i % 2 for i in range(32)]
    assert {p.name for p in tmp_path.iterdir()} <= {"set", ".set.lock"}


@pytest.mark.parametrize("file", ["images.npy", "twins.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_cache_is_written_again(
    tmp_path: Path, file: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = np.array(cache.opened(tmp_path / "set", 32, 8, small).bits)
    path = tmp_path / "set" / file
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm != "remove":
        if harm == "truncate":
            del content[-20:]
        else:
            content[-20] ^= 1
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cache.opened(tmp_path / "set", 32, 8, small).bits, good)
    assert "written again" in caplog.text
    assert cache.read(tmp_path / "set", 32, 8) is not None


def test_a_cache_of_other_sizes_is_not_taken(tmp_path: Path) -> None:
    cache.opened(tmp_path / "set", 32, 8, small)
    assert cache.read(tmp_path / "set", 64, 8) is None
    assert cache.read(tmp_path / "none", 32, 8) is None


def test_nothing_stays_behind_when_writing_fails(tmp_path: Path) -> None:
    def disk_full(out: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"could not take the images \(No space left on device\); 0 MB are needed"):
        cache.opened(tmp_path / "set", 32, 8, disk_full)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    partial = tmp_path / ".set.partial"
    partial.mkdir()
    (partial / "images.npy").write_bytes(b"half")
    cache.opened(tmp_path / "set", 32, 8, small)
    assert not partial.exists()


def test_a_data_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        cache.opened(tmp_path / "file" / "set", 32, 8, small)


def test_two_processes_at_once_write_one_cache(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from cvi_widgets.data import cache\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def produce(out):\n"
        "    with (folder / 'log').open('a') as file:\n"
        "        file.write('written\\n')\n"
        "    time.sleep(0.5)\n"
        "    out[:] = 7\n"
        "print(int(cache.opened(folder / 'set', 16, 8, produce).bits.sum()))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == [str(16 * 8 * 7)] * 2
    assert (tmp_path / "log").read_text() == "written\n"
