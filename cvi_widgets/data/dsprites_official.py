"""The authors' own dSprites file, read without executing anything in it.

The `.npz` also holds a pickled `metadata` array. It is never loaded: unpickling a file from elsewhere runs what the
file says, and what it tells (names, sizes, order and values of the factors) is checked on the plain arrays.

Format: github.com/deepmind/dsprites-dataset (README and notebook); Apache-2.0.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pooch
from numpy.typing import NDArray

from cvi_widgets import paths
from cvi_widgets.data import cache
from cvi_widgets.data.dsprites import GRID, IMAGE_SHAPE, LICENCE, ROW_BYTES
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.pixels import PackedPixels
from cvi_widgets.errors import DataError

NAME = "dsprites-official"
FILE_NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
URL = f"https://github.com/deepmind/dsprites-dataset/raw/master/{FILE_NAME}"
MD5 = "7da33b31b13a06f4b04a70402ce90c2e"

_LATENTS = 6
_SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "imgs": ((len(GRID), 64, 64), "|u1"),
    "latents_classes": ((len(GRID), _LATENTS), "<i8"),
    "latents_values": ((len(GRID), _LATENTS), "<f8"),
}
_BLOCK = 4096
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OSError, KeyError, RuntimeError)


def load(data_path: str | Path | None = None) -> GridData:
    """The authors' images, from `data_path` or downloaded; the five varying factors of `dsprites`, the same indices.

    Packed to bits into the data folder the first time (about 10 s).

    Parameters
    ----------
    data_path
        The `.npz` file; without it the file is downloaded once into the data folder and its MD5 checked.

    Raises
    ------
    DataError
        When the file is missing, truncated, corrupt, or is not the dSprites file; one sentence says which.
    """
    path = Path(data_path).expanduser() if data_path is not None else download()
    if not path.is_file():
        raise DataError(f"data_path {str(path)!r} is not a file; give the path of {FILE_NAME}, or none to download it.")
    md5 = _md5(path)
    folder = paths.data_dir() / f"{NAME}-{md5}"
    packed = cache.opened(folder, len(GRID), ROW_BYTES, lambda out: pack(path, out))
    return GridData(
        NAME,
        GRID,
        PackedPixels(packed.bits, IMAGE_SHAPE),
        provenance=f"The dSprites authors' own images from {path.name}, {_verdict(md5)}.",
        licence=LICENCE,
        twin=packed.twin,
    )


def download(url: str = URL, md5: str = MD5) -> Path:
    """Fetch the authors' file into the data folder, or find it there; a file with another MD5 is refused."""
    folder = paths.ensure_writable(paths.data_dir())
    try:
        return Path(pooch.retrieve(url, known_hash=f"md5:{md5}", fname=FILE_NAME, path=folder, progressbar=False))
    except Exception as error:
        # pooch passes on whatever its transport raises, so there is no narrower class to name.
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{FILE_NAME} could not be downloaded from {url} ({cause.rstrip('.')}); "
            "set data_path to a copy of it, or use dataset dsprites, which needs no download."
        ) from error


def pack(path: Path, out: NDArray[np.uint8]) -> None:
    """Check the file at `path` and write its images into `out`, shape (737280, 512), packed to bits.

    Raises
    ------
    DataError
        One sentence naming the file and what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_latents(archive, path)
            done = 0
            for images in _blocks(archive, path):
                if images.max() > 1:
                    raise _wrong(path, f"imgs has the value {images.max()}; allowed are 0 and 1")
                out[done : done + len(images)] = np.packbits(images, axis=1)
                done += len(images)
    except DataError:
        raise
    except _BROKEN as error:
        raise _wrong(path, f"it cannot be read, so it is truncated or corrupt ({error})") from error


def _check_latents(archive: zipfile.ZipFile, path: Path) -> None:
    missing = [name for name in _SHAPES if f"{name}.npy" not in archive.namelist()]
    if missing:
        held = ", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist())) or "nothing"
        raise _wrong(path, f"it lacks {', '.join(missing)} and holds {held}")
    # Shapes and types of all arrays first, so that a wrong file is refused before anything long starts.
    for name in _SHAPES:
        with _member(archive, name, path):
            continue
    expected = GRID.factors(np.arange(len(GRID)))
    classes = _whole(archive, "latents_classes", path)
    if classes[:, 0].any() or not np.array_equal(classes[:, 1:], expected):
        raise _wrong(path, "latents_classes are not in the order of the dSprites grid (posY fastest)")
    values = _whole(archive, "latents_values", path)
    for column, levels in enumerate(GRID.values.values()):
        if not np.allclose(values[:, column + 1], levels[expected[:, column]], rtol=0, atol=1e-6):
            raise _wrong(path, "latents_values are not those of dSprites")


def _whole(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """The array `name`, in either memory order."""
    shape, descr = _SHAPES[name]
    with _member(archive, name, path) as (stream, fortran):
        data = np.frombuffer(stream.read(), dtype=np.dtype(descr))
    if data.size != math.prod(shape):
        raise _wrong(path, f"{name} has {data.size} of {math.prod(shape)} numbers")
    return data.reshape(shape, order="F" if fortran else "C")


def _blocks(archive: zipfile.ZipFile, path: Path) -> Iterator[NDArray[np.uint8]]:
    """The images in pieces of 4,096, decompressed as they are asked for."""
    (n, height, width), _ = _SHAPES["imgs"]
    size = height * width
    with _member(archive, "imgs", path) as (stream, fortran):
        if fortran:
            raise _wrong(path, "imgs is in Fortran order; allowed is C order, image by image")
        for start in range(0, n, _BLOCK):
            rows = min(_BLOCK, n - start)
            data = stream.read(rows * size)
            if len(data) != rows * size:
                raise _wrong(path, f"imgs ends after {start + len(data) // size} of {n} images")
            yield np.frombuffer(data, dtype=np.uint8).reshape(rows, size)
        # Reading past the last image makes zipfile compare the member's checksum.
        if stream.read(1):
            raise _wrong(path, f"imgs is longer than its {n} images")


@contextmanager
def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """The open array file `name`, its header read and checked, and whether it is in Fortran order."""
    expected, descr = _SHAPES[name]
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
        if shape != expected or dtype != np.dtype(descr):
            raise _wrong(path, f"{name} is {dtype} of shape {shape}; allowed is {np.dtype(descr)} of shape {expected}")
        yield stream, fortran


def _verdict(md5: str) -> str:
    return "whose MD5 is the published one" if md5 == MD5 else f"whose MD5 {md5} is not the published {MD5}"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _wrong(path: Path, what: str) -> DataError:
    return DataError(f"data_path {str(path)!r} is not the dSprites file {FILE_NAME}: {what}.")
