"""What the data sets of other people have in common: finding their files, checking them, packing their images.

A file is looked for where `data_path` says, else in the data folder. It is downloaded only where its authors' host is
stable and its hash is published. Its images are written once into the data folder as plain bytes, channels first, and
mapped from there (`cache`), so a set that is larger than the memory can be used as well.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray
from tqdm import tqdm

from cvi_widgets import paths
from cvi_widgets.data import cache
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.pixels import BytePixels
from cvi_widgets.errors import DataError

SIDE = 64
IMAGE_SHAPE = (3, SIDE, SIDE)
_READERS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error)
BROKEN = (*_READERS, ValueError, TypeError, EOFError, OSError, KeyError, RuntimeError)
"""What readers raise on a damaged file."""


@dataclass(frozen=True)
class Source:
    """One file of a data set.

    Parameters
    ----------
    dataset
        Name of the data set, for sentences.
    file
        The file's official name.
    page
        Where a person finds it.
    url, known_hash
        Where it is downloaded from and its hash as `algorithm:digits`; without both it is never downloaded.
    """

    dataset: str
    file: str
    page: str
    url: str | None = None
    known_hash: str | None = None

    @property
    def place(self) -> Path:
        """Where the file goes in the data folder."""
        return paths.data_dir() / self.file


def located(source: Source, data_path: str | Path | None) -> Path:
    """The file itself: `data_path`, or in the folder `data_path`, or in the data folder, or downloaded to there.

    Raises
    ------
    DataError
        One sentence that says which file goes where.
    """
    if data_path is not None:
        given = Path(data_path).expanduser()
        path = given / source.file if given.is_dir() else given
        if not path.is_file():
            raise DataError(
                f"data_path {str(path)!r} is not a file; dataset {source.dataset!r} needs the path of {source.file} "
                f"(from {source.page})."
            )
        return path
    if source.url and source.known_hash:
        return download(source)
    if not source.place.is_file():
        raise missing(source)
    return source.place


def missing(source: Source) -> DataError:
    """The sentence for a file that is not there and cannot be downloaded."""
    return DataError(
        f"dataset {source.dataset!r} needs {source.file}, which is not downloaded by itself: get it from {source.page} "
        f"and put it at {str(source.place)!r}, or set data_path to it."
    )


def download(source: Source) -> Path:
    """Fetch the file into the data folder, or find it there; a file with another hash is refused."""
    folder = paths.ensure_writable(paths.data_dir())
    try:
        found = pooch.retrieve(source.url, known_hash=source.known_hash, fname=source.file, path=folder)
    except Exception as error:
        # pooch passes on whatever its transport raises, so there is no narrower class to name.
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{source.file} of dataset {source.dataset!r} could not be downloaded from {source.url} "
            f"({cause.rstrip('.')}); put it at {str(source.place)!r}, or set data_path to a copy of it."
        ) from error
    return Path(found)


def digest(files: Sequence[Path], algorithm: str = "md5") -> str:
    """Hash of the files' bytes, one after the other: names the cache, so that another file is packed anew."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def verdict(known_hash: str | None, files: Sequence[Path]) -> str:
    """Whether the files are the published ones, as the end of a sentence."""
    if known_hash is None:
        return "for which no hash was published"
    algorithm, digits = known_hash.split(":")
    found = digest(files, algorithm)
    name = {"md5": "MD5", "sha256": "SHA-256"}[algorithm]
    if found == digits:
        return f"whose {name} is the published one"
    return f"whose {name} {found} is not the published {digits}"


def refused(path: Path, file: str, what: str) -> DataError:
    """The sentence for a file that is not what it should be."""
    return DataError(f"data_path {str(path)!r} is not the official {file}: {what}.")


@contextmanager
def reading(path: Path, file: str) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise, as one sentence."""
    try:
        yield
    except DataError:
        raise
    except BROKEN as error:
        cause = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise refused(path, file, f"it cannot be read, so it is truncated or corrupt ({cause})") from error


def channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (n, y, x, channel) as rows of bytes (n, channel * y * x)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def progress(total: int, dataset: str) -> tqdm[Any]:
    """A bar over `total` images while they are packed; only on a terminal."""
    return tqdm(total=total, desc=f"packing {dataset}", unit="image", unit_scale=True, leave=False, disable=None)


def gridded(
    name: str,
    grid: FactorGrid,
    key: str,
    produce: Callable[[NDArray[np.uint8]], None],
    *,
    shape: tuple[int, int, int] = IMAGE_SHAPE,
    provenance: str,
    licence: str,
) -> GridData:
    """A full grid whose images `produce(out)` writes, shape (n, channel * y * x), the first time.

    Parameters
    ----------
    key
        Names the content, e.g. the file's hash; the cache is `<data folder>/<name>-<key>`.
    """
    pixels, twin = packed(name, key, len(grid), produce, shape=shape)
    return GridData(name, grid, pixels, provenance=provenance, licence=licence, twin=twin)


def packed(
    name: str,
    key: str,
    n: int,
    produce: Callable[[NDArray[np.uint8]], None],
    *,
    shape: tuple[int, int, int] = IMAGE_SHAPE,
) -> tuple[BytePixels, NDArray[np.int32]]:
    """The `n` images of a set and, for each, the smallest index with identical pixels; parameters as in `gridded`."""
    found = cache.opened(paths.data_dir() / f"{name}-{key}", n, math.prod(shape), produce)
    return BytePixels(found.bits.reshape(n, *shape)), found.twin


def counted(**sizes: int) -> FactorGrid:
    """A grid whose values are the class numbers, for factors that have names or no unit."""
    return FactorGrid({name: np.arange(size, dtype=np.float64) for name, size in sizes.items()})
