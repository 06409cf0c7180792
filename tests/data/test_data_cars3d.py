"""Cars3D: a small archive in the official format, the folder it unpacks to, and everything that can be wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from official_files import caches, keeps_the_protocol, noise, truncated
from PIL import Image

from cvi_widgets import data
from cvi_widgets.data import cars3d, official, others
from cvi_widgets.errors import DataError

CARS = ("car_020_mesh", "car_003_mesh", "car_101_mesh")
"""In an order that no sorting gives."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cars3d, "GRID", official.counted(elevation=2, azimuth=3, object_type=3))
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))


@pytest.fixture
def images() -> list[np.ndarray]:
    return [noise(128, 128, 3, 3, 2, seed=i) for i in range(3)]


def mat(im: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"im": im, "mask": im[:, :, 0]}, format="5", do_compression=True)
    return buffer.getvalue()


def contents(images: list[np.ndarray]) -> dict[str, bytes]:
    cars = {f"{name}.mat": mat(im) for name, im in zip(CARS, images, strict=True)}
    return {"list.txt": "\n".join(CARS).encode() + b"\n", **cars, "notes.txt": b"not a car"}


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for name, content in {"../sprites/a.mat": b"another set", **members}.items():
            info = tarfile.TarInfo(f"data/cars/{name}" if "/" not in name else "data/sprites/a.mat")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def folder(path: Path, members: dict[str, bytes]) -> Path:
    inside = path / "data" / "cars"
    inside.mkdir(parents=True)
    for name, content in members.items():
        (inside / name).write_bytes(content)
    return path


def test_the_layout_is_the_authors() -> None:
    full = others.ENTRIES["cars3d"].factors
    assert isinstance(full, data.FactorGrid)
    assert dict(zip(full.names, full.sizes, strict=True)) == {"elevation": 4, "azimuth": 24, "object_type": 183}
    assert len(full) == 17_568


def test_every_image_lies_where_its_factors_say(images: list[np.ndarray], tmp_path: Path) -> None:
    read = data.load("cars3d", data_path=archive(tmp_path / "nips2015-analogy-data.tar.gz", contents(images)))
    for elevation, azimuth, car in np.ndindex(2, 3, 3):
        # one picture by hand: (y, x, colour) of the car that list.txt names at this place
        by_hand = Image.fromarray(images[car][:, :, :, azimuth, elevation]).resize((64, 64), Image.Resampling.LANCZOS)
        found = read.images(read.index([[elevation, azimuth, car]]))[0]
        assert np.array_equal(found, np.asarray(by_hand).transpose(2, 0, 1))
    keeps_the_protocol(read)
    assert read.licence == "none published: research only"
    assert "is not the published 4e866a7919c1beedf53964e6f7a23686, reduced from 128x128" in read.provenance


@pytest.mark.parametrize("inside", ["", "data", "data/cars"])
def test_the_unpacked_folder_is_as_good(inside: str, images: list[np.ndarray], tmp_path: Path) -> None:
    packed = cars3d.load(archive(tmp_path / "cars.tar.gz", contents(images)))
    unpacked = cars3d.load(folder(tmp_path / "unpacked", contents(images)) / inside)
    assert np.array_equal(packed.images(np.arange(18)), unpacked.images(np.arange(18)))
    assert "for which no hash was published" in unpacked.provenance


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"list.txt": None}, r"it lacks data/cars/list\.txt\.$"),
        ({"list.txt": b"car_020_mesh\ncar_003_mesh\n"}, r"list\.txt names 2 cars; allowed are 3\.$"),
        ({"list.txt": b"a\na\nb\n"}, r"list\.txt names 2 cars; allowed are 3\.$"),
        ({"car_003_mesh.mat": None}, r"it holds 2 of the 3 cars in list\.txt\.$"),
        ({"car_003_mesh.mat": b"<html>"}, r"car_003_mesh\.mat cannot be read as MATLAB 5 \(.*\)\.$"),
        ({"car_003_mesh.mat": b""}, r"car_003_mesh\.mat cannot be read as MATLAB 5 \(.*\)\.$"),
        ({"car_003_mesh.mat": mat(noise(128, 128, 3, 2, 3))}, r"im of car_003_mesh\.mat is uint8 of shape .*; allowed"),
        ({"car_003_mesh.mat": mat(np.zeros((128, 128, 3, 3, 2)))}, r"im of car_003_mesh\.mat is float64 of shape"),
    ],
)
def test_wrong_contents_are_said(
    change: dict[str, bytes | None], what: str, images: list[np.ndarray], tmp_path: Path
) -> None:
    members = {name: content for name, content in (contents(images) | change).items() if content is not None}
    path = archive(tmp_path / "cars.tar.gz", members)
    with pytest.raises(DataError, match=what) as caught:
        cars3d.load(path)
    start = f"data_path {str(path)!r} is not the official nips2015-analogy-data.tar.gz: "
    assert str(caught.value).startswith(start)
    assert caches() == []


def test_a_car_that_ends_early_is_said(images: list[np.ndarray], tmp_path: Path) -> None:
    members = contents(images)
    path = folder(tmp_path, members | {"car_101_mesh.mat": members["car_101_mesh.mat"][:30_000]})
    with pytest.raises(DataError, match=r"car_101_mesh\.mat cannot be read as MATLAB 5"):
        cars3d.load(path)


def test_truncated_and_foreign_files_are_said(images: list[np.ndarray], tmp_path: Path) -> None:
    html = tmp_path / "html.tar.gz"
    html.write_text("<html>Not found</html>")
    for path in (truncated(archive(tmp_path / "cars.tar.gz", contents(images))), html):
        with pytest.raises(
            DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$|cannot be read"
        ):
            cars3d.load(path)
    with pytest.raises(DataError, match=r"is not a file; dataset 'cars3d' needs the path of nips2015-analogy-data"):
        cars3d.load(tmp_path)
    assert caches() == []
