"""MPI3D: small `.npz` files in the official format, the two toy files, and everything that can be wrong with one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from official_files import caches, keeps_the_protocol, noise, small_grid, truncated

from cvi_widgets import data, paths
from cvi_widgets.data import mpi3d, npz
from cvi_widgets.errors import DataError

FULL = small_grid(mpi3d.FULL, object_color=3, vertical_axis=3)
REDUCED = small_grid(mpi3d.FULL)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    swap = {id(mpi3d.FULL): FULL, id(mpi3d.REDUCED): REDUCED}
    grids = {name: tuple(swap[id(grid)] for grid in allowed) for name, allowed in mpi3d.GRIDS.items()}
    monkeypatch.setattr(mpi3d, "GRIDS", grids)
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_the_layout_is_the_authors() -> None:
    assert mpi3d.FULL.sizes == (6, 6, 2, 3, 3, 40, 40)
    assert mpi3d.REDUCED.sizes == (4, 4, 2, 3, 3, 40, 40)
    assert len(mpi3d.FULL) == 1_036_800
    assert len(mpi3d.REDUCED) == 460_800
    assert mpi3d.FULL.names[:3] == ("object_color", "object_shape", "object_size")
    assert mpi3d.FULL.names[3:] == ("camera_height", "background_color", "horizontal_axis", "vertical_axis")
    files = {name: source.file for name, source in mpi3d.SOURCES.items()}
    assert files == {
        "mpi3d-toy": "mpi3d_toy.npz",
        "mpi3d-realistic": "mpi3d_realistic.npz",
        "mpi3d-real": "mpi3d_real.npz",
        "mpi3d-real-complex": "mpi3d_real_complex.npz",
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_lie_in_the_order_of_the_factors(save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi3d, "_BLOCK", 100)  # so that the last block is a short one
    images = noise(*FULL.sizes, 64, 64, 3)
    save(tmp_path / "mpi3d_real.npz", images=images.reshape(-1, 64, 64, 3))
    read = data.load("mpi3d-real", data_path=tmp_path)
    assert read.factor_sizes == FULL.sizes
    cell = (2, 1, 0, 1, 0, 1, 2)
    assert np.array_equal(read.images(read.index([cell]))[0], images[cell].transpose(2, 0, 1))
    assert np.array_equal(read.images(np.arange(len(read))), images.reshape(-1, 64, 64, 3).transpose(0, 3, 1, 2))
    keeps_the_protocol(read)
    assert read.licence == "CC-BY-4.0"
    assert "is not the published 0f33f609918fb5c97996692f91129802." in read.provenance


def test_the_number_of_images_tells_the_two_toy_files_apart(tmp_path: Path) -> None:
    challenge = mpi3d.load("mpi3d-toy", write(tmp_path / "a.npz", images=noise(len(REDUCED), 64, 64, 3)))
    assert challenge.factor_sizes == REDUCED.sizes
    assert challenge.provenance.endswith("It is the challenge's file, without held-out colours and shapes.")
    published = mpi3d.load("mpi3d-toy", write(tmp_path / "b.npz", images=noise(len(FULL), 64, 64, 3)))
    assert published.factor_sizes == FULL.sizes
    assert "challenge" not in published.provenance
    # The same number is the whole of the complex set, and no part of the real one.
    whole = mpi3d.load("mpi3d-real-complex", tmp_path / "a.npz")
    assert whole.factor_sizes == REDUCED.sizes
    assert whole.provenance.endswith("for which no hash was published.")
    with pytest.raises(DataError) as caught:
        mpi3d.load("mpi3d-real", tmp_path / "a.npz")
    assert str(caught.value) == (
        f"data_path {str(tmp_path / 'a.npz')!r} is not the official mpi3d_real.npz: images has shape "
        f"({len(REDUCED)}, 64, 64, 3); allowed is ({len(FULL)}, 64, 64, 3)."
    )


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"images": noise(5, 64, 64, 3)}, r"images has shape \(5, 64, 64, 3\); allowed is"),
        ({"images": noise(len(FULL), 8, 8, 3)}, rf"images has shape \({len(FULL)}, 8, 8, 3\); allowed is"),
        ({"images": np.zeros((2, 64, 64, 3))}, r"images is float64 of shape \(2, 64, 64, 3\); allowed is uint8\.$"),
        ({"images": np.uint8(3)}, r"images has shape \(\); allowed is"),
        ({"images": np.asfortranarray(noise(5, 64, 64, 3))}, "images is in Fortran order; allowed is C order"),
        ({"imgs": noise(2, 2)}, r"it lacks images and holds imgs\.$"),
        ({"images": np.array([{}], dtype=object)}, r"images is object of shape \(1,\); allowed is uint8\.$"),
    ],
)
def test_wrong_arrays_are_said(arrays: dict[str, np.ndarray], what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        mpi3d.load("mpi3d-toy", write(tmp_path / "wrong.npz", **arrays))
    assert caches() == []


def header(n: int) -> bytes:
    lines = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({n}, 64, 64, 3), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(lines).to_bytes(2, "little") + lines.encode()


@pytest.mark.parametrize(
    ("n_bytes", "what"),
    [(12_288 * 7 + 5, f"images ends after 7 of {len(FULL)} rows"), (12_288 * len(FULL) + 1, "images is longer than")],
)
def test_a_header_that_promises_another_length_is_said(n_bytes: int, what: str, tmp_path: Path) -> None:
    path = tmp_path / "mpi3d_real.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header(len(FULL)) + bytes(n_bytes))
    with pytest.raises(DataError, match=what):
        mpi3d.load("mpi3d-real", path)
    assert [name for name in caches() if not name.startswith(".")] == []


def test_damaged_and_foreign_files_are_said(tmp_path: Path) -> None:
    good = tmp_path / "mpi3d_toy.npz"
    np.savez(good, images=noise(len(FULL), 64, 64, 3))
    content = bytearray(good.read_bytes())
    content[1_000_000] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    (tmp_path / "text.npz").write_text("<html>Not found</html>")
    for path in (truncated(good), tmp_path / "flipped.npz", tmp_path / "text.npz"):
        with pytest.raises(DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"):
            mpi3d.load("mpi3d-toy", path)


def test_without_the_file_it_is_said_where_it_goes() -> None:
    with pytest.raises(DataError) as caught:
        data.load("mpi3d-realistic")
    assert str(caught.value) == (
        "dataset 'mpi3d-realistic' needs mpi3d_realistic.npz, which is not downloaded by itself: get it from "
        f"huggingface.co/datasets/waleedgondal/mpi3d and put it at {str(paths.data_dir() / 'mpi3d_realistic.npz')!r}, "
        "or set data_path to it."
    )
    paths.data_dir().mkdir(parents=True)
    write(paths.data_dir() / "mpi3d_realistic.npz", images=noise(len(FULL), 64, 64, 3))
    assert len(mpi3d.load("mpi3d-realistic")) == len(FULL)


def test_blocks_are_the_array(tmp_path: Path) -> None:
    array = noise(23, 4, 3)
    path = write(tmp_path / "a.npz", images=array, other=np.ones(3))
    assert npz.shape_of(path, "images", "a.npz") == array.shape
    parts = list(npz.blocks(path, "images", "a.npz", 5))
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    assert np.array_equal(np.concatenate(parts), array)
