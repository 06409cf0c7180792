"""The authors' file: a full one written here in the exact format, and everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cvi_widgets import data, paths
from cvi_widgets.data import dsprites, dsprites_official
from cvi_widgets.errors import DataError

N = 737_280
BLOCK = 8192


def header(shape: tuple[int, ...], descr: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": descr})
    return buffer.getvalue()


def latents() -> tuple[np.ndarray, np.ndarray]:
    """Colour first, then the factors: classes and values, shape (n, 6) each."""
    factors = dsprites.GRID.factors(np.arange(N))
    values = np.stack([v[factors[:, i]] for i, v in enumerate(dsprites.GRID.values.values())], axis=1)
    return (
        np.concatenate([np.zeros((N, 1), dtype=np.int64), factors], axis=1),
        np.concatenate([np.ones((N, 1)), values], axis=1),
    )


def write(
    path: Path,
    images: Iterator[bytes],
    classes: np.ndarray,
    values: np.ndarray,
    *,
    metadata: bytes = b"N.",
    image_shape: tuple[int, ...] = (N, 64, 64),
) -> None:
    """A file in the official format: the same members in the same order, with a pickle as metadata."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("metadata.npy", header((), "|O") + metadata)
        with archive.open("imgs.npy", "w", force_zip64=True) as member:
            member.write(header(image_shape, "|u1"))
            for block in images:
                member.write(block)
        for name, array in (("latents_classes", classes), ("latents_values", values)):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)


@pytest.fixture(scope="module")
def bits() -> np.ndarray:
    return data.load("dsprites").pixels.rows()


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, bits: np.ndarray) -> Iterator[Path]:
    """All 737,280 images as the authors store them; unpickling its metadata would create a file beside it."""
    folder = tmp_path_factory.mktemp("official")
    trap = f"cbuiltins\nopen\n(S'{folder / 'unpickled'}'\nS'w'\ntR.".encode()
    images = (np.unpackbits(bits[i : i + BLOCK], axis=1).tobytes() for i in range(0, N, BLOCK))
    write(folder / dsprites_official.FILE_NAME, images, *latents(), metadata=trap)
    yield folder / dsprites_official.FILE_NAME
    shutil.rmtree(folder)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, so that what is left behind can be seen."""
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))
    return paths.data_dir()


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_the_authors_file_gives_the_same_numbers_and_runs_nothing(
    official: Path, own_home: Path, bits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = data.load("dsprites-official", data_path=official)
    assert read.factor_names == dsprites.GRID.names
    assert read.factor_sizes == dsprites.GRID.sizes
    assert np.array_equal(read.pixels.rows(), bits)
    assert len(np.unique(read.twin)) == 715_706
    assert read.provenance.endswith(f"is not the published {dsprites_official.MD5}.")
    assert "re-rendered" not in read.provenance
    assert not (official.parent / "unpickled").exists()

    # The second time the packed images are there, and the file is not decompressed again.
    monkeypatch.setattr(dsprites_official, "pack", lambda path, out: pytest.fail("packed twice"))
    again = dsprites_official.load(official)
    assert np.array_equal(again.images(np.array([5, 700_000])), read.images(np.array([5, 700_000])))
    # and a causal data set can stand on the authors' images too
    causal = data.load("scm-dsprites", data_path=official)
    assert causal.provenance.endswith(read.provenance)


def test_the_published_md5_is_recognised() -> None:
    assert dsprites_official._verdict(dsprites_official.MD5) == "whose MD5 is the published one"


def test_a_flipped_byte_is_found(official: Path, own_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "flipped.npz"
    content = bytearray(official.read_bytes())
    content[3_000] ^= 0x10
    copy.write_bytes(content)
    with pytest.raises(DataError, match=r"flipped.npz' is not the dSprites file .*: .*\.$"):
        dsprites_official.load(copy)
    assert left_in(own_home) == []


def test_a_truncated_file_is_found(official: Path, own_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "truncated.npz"
    with official.open("rb") as file:
        copy.write_bytes(file.read(1_000_000))
    with pytest.raises(DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"):
        dsprites_official.load(copy)
    assert left_in(own_home) == []


def swapped(classes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # a fancy index of columns comes out in Fortran order, which is read as well
    return classes[:, [0, 1, 2, 3, 5, 4]], values


def other_values(classes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return classes, values * 2


def five_columns(classes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return classes[:, 1:], values


def colourful(classes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return classes + np.eye(6, dtype=np.int64)[0], values


def floats(classes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return classes.astype(np.float64), values


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (swapped, "latents_classes are not in the order of the dSprites grid (posY fastest)."),
        (colourful, "latents_classes are not in the order of the dSprites grid (posY fastest)."),
        (other_values, "latents_values are not those of dSprites."),
        (five_columns, "latents_classes is int64 of shape (737280, 5); allowed is int64 of shape (737280, 6)."),
        (floats, "latents_classes is float64 of shape (737280, 6); allowed is int64 of shape (737280, 6)."),
    ],
)
def test_wrong_latents_are_said(change: Callable, what: str, own_home: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.npz"
    write(path, iter(()), *change(*latents()))
    with pytest.raises(DataError) as caught:
        dsprites_official.load(path)
    assert (
        str(caught.value) == f"data_path {str(path)!r} is not the dSprites file {dsprites_official.FILE_NAME}: {what}"
    )
    assert left_in(own_home) == []


@pytest.mark.parametrize(
    ("images", "shape", "what"),
    [
        ([bytes(4096)] * 10, (10, 64, 64), r"imgs is uint8 of shape \(10, 64, 64\); allowed is uint8 of shape"),
        ([bytes(4096)] * 5000, (N, 64, 64), r"imgs ends after 5000 of 737280 images\.$"),
        ([b"\xff" * 4096] * 5000, (N, 64, 64), r"imgs has the value 255; allowed are 0 and 1\.$"),
    ],
)
def test_wrong_images_are_said(
    images: list[bytes], shape: tuple[int, ...], what: str, own_home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.npz"
    write(path, iter(images), *latents(), image_shape=shape)
    with pytest.raises(DataError, match=what):
        dsprites_official.load(path)
    assert left_in(own_home) == []


def test_other_files_are_said(own_home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.npz' is not a file; give the path of dsprites_ndarray"):
        dsprites_official.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3), labels=np.ones(2))
    with pytest.raises(DataError, match=r"it lacks imgs, latents_classes, latents_values and holds images, labels\.$"):
        dsprites_official.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("<html>Not found</html>")
    with pytest.raises(DataError, match="it cannot be read, so it is truncated or corrupt"):
        dsprites_official.load(tmp_path / "text.npz")
    assert left_in(own_home) == []


def test_a_download_is_taken_only_with_the_right_hash(own_home: Path, tmp_path: Path) -> None:
    source = tmp_path / "served.npz"
    source.write_bytes(b"some bytes")
    own_home.mkdir(parents=True)
    md5 = hashlib.md5(b"some bytes", usedforsecurity=False).hexdigest()
    with pytest.raises(DataError, match=r"could not be downloaded from .*; set data_path to a copy of it"):
        dsprites_official.download("http://127.0.0.1:9/served.npz", md5)
    assert left_in(own_home) == []
    # A file that is already there is used without asking anyone, if its hash is right.
    shutil.copy(source, own_home / dsprites_official.FILE_NAME)
    assert dsprites_official.download("http://127.0.0.1:9/served.npz", md5).read_bytes() == b"some bytes"
    with pytest.raises(DataError, match="could not be downloaded"):
        dsprites_official.download("http://127.0.0.1:9/served.npz", dsprites_official.MD5)
