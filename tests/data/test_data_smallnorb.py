"""SmallNORB: six small files in the official format, byte order and all, and everything that can be wrong with them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from official_files import caches, keeps_the_protocol, noise, small_grid
from PIL import Image

from cvi_widgets import data, paths
from cvi_widgets.data import official, others, smallnorb
from cvi_widgets.errors import DataError

SMALL = small_grid(smallnorb.GRID, instance=10, azimuth=3)
N = len(SMALL) // 2
INSTANCES = {"training": (4, 6, 7, 8, 9), "testing": (0, 1, 2, 3, 5)}
Arrays = dict[tuple[str, str], np.ndarray]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(smallnorb, "GRID", SMALL)
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))


def arrays() -> Arrays:
    """Both splits in a random order, as the official files are in no order that matters."""
    found: Arrays = {}
    for seed, (split, instances) in enumerate(INSTANCES.items()):
        cells = SMALL.factors(np.arange(len(SMALL)))
        cells = np.random.default_rng(seed).permutation(cells[np.isin(cells[:, 1], instances)])
        found[split, "dat"] = noise(N, 2, 96, 96, seed=seed)
        found[split, "cat"] = cells[:, 0].astype(np.int32)
        found[split, "info"] = (cells[:, 1:] * [1, 1, 2, 1]).astype(np.int32)
    return found


def encoded(array: np.ndarray, order: str = "<") -> bytes:
    magic = {1: 0x1E3D4C55, 4: 0x1E3D4C54, 8: 0x1E3D4C53}[array.itemsize]
    sizes = [*array.shape, 1, 1][: max(3, array.ndim)]
    head = struct.pack(f"{order}{2 + len(sizes)}i", magic, array.ndim, *sizes)
    return head + array.astype(array.dtype.newbyteorder(order)).tobytes()


def name(split: str, part: str) -> str:
    return smallnorb.SOURCES[split, part].file


def write(folder: Path, found: Arrays, *, zipped: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    for key, array in found.items():
        content = encoded(array)
        file = folder / name(*key)
        if zipped:
            file.write_bytes(gzip.compress(content, 1))
        else:
            file.with_suffix("").write_bytes(content)
    return folder


def test_the_layout_is_the_authors() -> None:
    full = others.ENTRIES["smallnorb"].factors
    assert isinstance(full, data.FactorGrid)
    assert len(full) == 48_600
    assert full.sizes == (5, 10, 9, 18, 6)
    assert full.values["elevation"].tolist() == [30, 35, 40, 45, 50, 55, 60, 65, 70]
    assert full.values["azimuth"][[0, 1, 17]].tolist() == [0, 20, 340]
    assert name("training", "dat") == "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz"
    assert name("testing", "info") == "smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz"


def test_the_test_writes_the_published_header_sizes() -> None:
    assert len(encoded(np.zeros((24_300,), np.int32))) == 97_220
    assert len(encoded(np.zeros((24_300, 4), np.int32))) == 388_820
    assert (
        encoded(np.zeros((1, 2, 3, 4), np.uint8))[:24].hex() == "554c3d1e040000000100000002000000" + "0300000004000000"
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_every_image_lies_where_its_factors_say(zipped: bool, tmp_path: Path) -> None:
    found = arrays()
    read = data.load("smallnorb", data_path=write(tmp_path / "norb", found, zipped=zipped))
    assert read.image_shape == (1, 64, 64)
    for split in INSTANCES:
        for k in range(0, N, 7):
            instance, elevation, azimuth, lighting = found[split, "info"][k]
            cell = [[found[split, "cat"][k], instance, elevation, azimuth // 2, lighting]]
            first_camera = Image.fromarray(found[split, "dat"][k, 0]).resize((64, 64), Image.Resampling.LANCZOS)
            assert np.array_equal(read.images(read.index(cell))[0, 0], np.asarray(first_camera))
    keeps_the_protocol(read)
    assert ("whose MD5s are not the published ones" if zipped else "unpacked, for which no MD5") in read.provenance
    one_of_them = next((tmp_path / "norb").iterdir())
    assert np.array_equal(smallnorb.load(one_of_them).images([3]), read.images(np.array([3])))


def swapped_splits(found: Arrays) -> None:
    for part in ("dat", "cat", "info"):
        a, b = ("training", part), ("testing", part)
        found[a], found[b] = found[b], found[a]


def swapped_parts(found: Arrays) -> None:
    a, b = ("training", "cat"), ("training", "info")
    found[a], found[b] = found[b], found[a]


def category_five(found: Arrays) -> None:
    found["testing", "cat"][3] = 5


def odd_azimuth(found: Arrays) -> None:
    found["testing", "info"][3, 2] = 1


def twice(found: Arrays) -> None:
    for part in ("cat", "info"):
        found["training", part][0] = found["training", part][1]


def one_camera(found: Arrays) -> None:
    found["testing", "dat"] = found["testing", "dat"][:, :1]


def floats(found: Arrays) -> None:
    found["testing", "dat"] = found["testing", "dat"][:1].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "file", "what"),
    [
        (swapped_splits, ("training", "info"), "it has the instances [0, 1, 2, 3, 5]; allowed are [4, 6, 7, 8, 9]."),
        (swapped_parts, ("training", "cat"), f"it holds int32 of shape ({N}, 4); allowed is int32 of shape ({N},)."),
        (category_five, ("testing", "cat"), "factor 'category' has class 5, allowed are 0 to 1."),
        (odd_azimuth, ("testing", "info"), "its azimuths are not even numbers."),
        (twice, ("testing", "info"), f"both splits together show {2 * N - 1} of {2 * N} cells."),
        (
            one_camera,
            ("testing", "dat"),
            f"it holds uint8 of shape ({N}, 1, 96, 96); allowed is uint8 of shape ({N}, 2, 96, 96).",
        ),
        (
            floats,
            ("testing", "dat"),
            f"it holds float64 of shape (1, 2, 96, 96); allowed is uint8 of shape ({N}, 2, 96, 96).",
        ),
    ],
)
def test_wrong_contents_are_said(change, file: tuple[str, str], what: str, tmp_path: Path) -> None:
    found = arrays()
    change(found)
    folder = write(tmp_path / "norb", found)
    with pytest.raises(DataError) as caught:
        smallnorb.load(folder)
    path = folder / name(*file)
    assert str(caught.value) == f"data_path {str(path)!r} is not the official {name(*file)}: {what}"
    assert caches() == []


DAT = ("training", "dat")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda a: encoded(a, ">"), r"it is big endian; allowed is little endian\.$"),
        (lambda a: encoded(a)[:-1], r"it ends early, so it is truncated\.$"),
        (lambda a: encoded(a) + b"\0", r"it is longer than its header says\.$"),
        (lambda a: encoded(a)[:14], r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"),
        (lambda a: b"", r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"),
        (lambda a: b"MATLAB 5.0 MAT-file", r"its magic number is 0x4c54414d\.$"),
        (lambda a: struct.pack("<2i", 0x1E3D4C55, 99), r"it holds uint8 of shape \(\); allowed is uint8 of shape"),
    ],
)
def test_damaged_contents_are_said(content, what: str, tmp_path: Path) -> None:
    found = arrays()
    folder = write(tmp_path / "norb", found, zipped=False)
    (folder / name(*DAT)).with_suffix("").write_bytes(content(found[DAT]))
    with pytest.raises(DataError, match=what):
        smallnorb.load(folder)
    assert caches() == []


@pytest.mark.parametrize("harm", ["truncate", "flip", "text"])
def test_damaged_archives_are_said(harm: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "norb", arrays())
    path = folder / name(*DAT)
    harmed = bytearray(path.read_bytes())
    if harm == "truncate":
        del harmed[-1000:]
    elif harm == "flip":
        harmed[-6] ^= 1  # in the checksum
    path.write_bytes(b"<html>Not found</html>" if harm == "text" else harmed)
    with pytest.raises(DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"):
        smallnorb.load(folder)
    assert caches() == []


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "norb", arrays())
    (folder / name("testing", "cat")).unlink()
    for path in (folder, folder / name(*DAT), tmp_path / "none"):
        lacking = name("training", "dat") if path.name == "none" else name("testing", "cat")
        with pytest.raises(DataError) as caught:
            smallnorb.load(path)
        assert str(caught.value) == (
            f"data_path {str(path)!r} lacks {lacking}; dataset 'smallnorb' needs the folder of its six files, "
            "gzipped or not (from cs.nyu.edu/~ylclab/data/norb-v1.0-small)."
        )
    # Without a path each file is looked for, or downloaded, under its own name and hash.
    asked = []
    monkeypatch.setattr(official, "download", lambda source: asked.append(source.file) or folder / source.file)
    with pytest.raises(FileNotFoundError):
        smallnorb.load()
    assert sorted(asked) == sorted(name(s, p) for s in INSTANCES for p in ("dat", "cat", "info"))
    assert not paths.data_dir().exists()
