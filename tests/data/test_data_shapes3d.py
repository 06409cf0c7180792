"""3D Shapes: a small `3dshapes.h5` in the official format, and everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from official_files import caches, keeps_the_protocol, noise, small_grid, truncated

from cvi_widgets import data, paths
from cvi_widgets.data import official, others, shapes3d
from cvi_widgets.errors import DataError, StoreError

SMALL = small_grid(shapes3d.GRID, scale=3)
N = len(SMALL)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shapes3d, "GRID", SMALL)
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))


def labels() -> np.ndarray:
    classes = SMALL.factors(np.arange(N))
    return np.stack([levels[classes[:, i]] for i, levels in enumerate(SMALL.values.values())], axis=1)


def write(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip" if array.ndim > 1 else None)
    return path


def test_the_layout_is_the_authors() -> None:
    full = others.ENTRIES["shapes3d"].factors
    assert isinstance(full, data.FactorGrid)
    assert full.sizes == (10, 10, 10, 8, 4, 15)
    assert len(full) == 480_000
    assert full.names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    assert full.values["orientation"][[0, 7, 14]].tolist() == [-30, 0, 30]
    assert full.values["floor_hue"][3] == pytest.approx(0.3)
    assert full.index([[1, 2, 3, 4, 3, 5]]).tolist() == [((((1 * 10 + 2) * 10 + 3) * 8 + 4) * 4 + 3) * 15 + 5]


def test_images_and_factors_are_those_of_the_file(tmp_path: Path) -> None:
    images = noise(N, 64, 64, 3)
    path = write(tmp_path / "3dshapes.h5", images=images, labels=labels())
    read = data.load("shapes3d", data_path=path)
    assert read.image_shape == (3, 64, 64)
    assert np.array_equal(read.images(np.arange(N)), images.transpose(0, 3, 1, 2))
    found = read.factors(np.arange(N))
    for column, (name, levels) in enumerate(read.factor_values.items()):
        assert np.array_equal(levels[found[:, column]], labels()[:, column]), name
    keeps_the_protocol(read)
    assert read.licence == "Apache-2.0"
    assert "3dshapes.h5, whose SHA-256" in read.provenance
    assert read.provenance.endswith(f"is not the published {shapes3d.SOURCE.known_hash.split(':')[1]}.")
    # A folder that holds the file is as good, and the packed images are used again.
    again = shapes3d.load(tmp_path)
    assert np.array_equal(again.images([5]), read.images(np.array([5])))
    assert len([name for name in caches() if name.startswith("shapes3d-")]) == 1


def test_another_file_is_packed_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "3dshapes.h5", images=noise(N, 64, 64, 3), labels=labels())
    first = np.array(shapes3d.load(path).images([0]))
    path.unlink()
    write(path, images=noise(N, 64, 64, 3, seed=1), labels=labels())
    assert not np.array_equal(shapes3d.load(path).images([0]), first)


def test_a_hue_that_is_not_quite_a_tenth_is_the_same_hue(tmp_path: Path) -> None:
    near = np.nextafter(labels(), 1)
    path = write(tmp_path / "3dshapes.h5", images=noise(N, 64, 64, 3), labels=near)
    assert len(shapes3d.load(path)) == N


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"images": noise(N, 32, 32, 3)}, f"images is uint8 of shape ({N}, 32, 32, 3); allowed is uint8 of shape"),
        ({"images": np.zeros((N, 64, 64, 3), np.float32)}, f"images is float32 of shape ({N}, 64, 64, 3); allowed"),
        ({"labels": labels()[:, :5]}, f"labels is float64 of shape ({N}, 5); allowed is float64 of shape ({N}, 6)"),
        ({"labels": labels()[::-1]}, "labels of floor_hue are not in the order of the 3D Shapes grid"),
        ({"labels": labels()[:, [0, 1, 2, 3, 5, 4]]}, "labels of shape are not in the order of the 3D Shapes grid"),
        ({"labels": None}, "it lacks labels and holds images"),
        ({"images": None, "labels": None}, "it lacks images and holds nothing"),
    ],
)
def test_wrong_arrays_are_said(change: dict[str, np.ndarray | None], what: str, tmp_path: Path) -> None:
    arrays = {"images": noise(N, 64, 64, 3), "labels": labels()} | change
    path = write(tmp_path / "3dshapes.h5", **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(DataError) as caught:
        shapes3d.load(path)
    assert str(caught.value).startswith(f"data_path {str(path)!r} is not the official 3dshapes.h5: {what}")
    assert str(caught.value).endswith(".")
    assert caches() == []


def test_a_group_in_the_place_of_an_array_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "3dshapes.h5", labels=labels())
    with h5py.File(path, "a") as file:
        file.create_group("images")
    with pytest.raises(DataError, match="images is no array; allowed is uint8"):
        shapes3d.load(path)


def test_truncated_and_foreign_files_are_said(tmp_path: Path) -> None:
    good = write(tmp_path / "3dshapes.h5", images=noise(N, 64, 64, 3), labels=labels())
    html = tmp_path / "html.h5"
    html.write_text("<html>Not found</html>")
    for path in (truncated(good), html):
        with pytest.raises(DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"):
            shapes3d.load(path)
    with pytest.raises(DataError, match=r"none.h5' is not a file; dataset 'shapes3d' needs the path of 3dshapes.h5"):
        shapes3d.load(tmp_path / "none.h5")
    assert caches() == []


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "3dshapes.h5", images=noise(N, 64, 64, 3), labels=labels())
    needed = N * 3 * 64 * 64
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(StoreError, match=r"could not take the images \(No space left on device\); 1 MB are needed"):
        shapes3d.load(path)
    assert caches() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed))
    assert len(shapes3d.load(path)) == N


def test_a_download_is_taken_only_with_the_right_hash(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.write_bytes(b"some bytes")
    good = f"sha256:{hashlib.sha256(b'some bytes').hexdigest()}"
    source = official.Source("toy", "toy.h5", "nowhere", "http://127.0.0.1:9/toy.h5", good)
    sentence = r"toy.h5 of dataset 'toy' could not be downloaded from .*; put it at .*toy.h5', or set data_path"
    with pytest.raises(DataError, match=sentence):
        official.located(source, None)
    # A file that is already there is used without asking anyone, if its hash is right.
    shutil.copy(served, paths.data_dir() / "toy.h5")
    assert official.located(source, None).read_bytes() == b"some bytes"
    assert official.verdict(good, [served]) == "whose SHA-256 is the published one"
    (paths.data_dir() / "toy.h5").write_bytes(b"other bytes")
    with pytest.raises(DataError, match="could not be downloaded"):
        official.located(source, None)
