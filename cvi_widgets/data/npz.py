"""One large array out of an `.npz`, block by block, without unpickling and without holding it in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data import official


def shape_of(path: Path, name: str, file: str) -> tuple[int, ...]:
    """Shape of the uint8 array `name`, from its header alone; `DataError` when it is none, or in Fortran order."""
    with _opened(path, name, file) as (_, shape):
        return shape


def blocks(path: Path, name: str, file: str, rows: int) -> Iterator[NDArray[np.uint8]]:
    """The array in pieces of at most `rows` along its first axis; its checksum is compared at the end.

    Raises
    ------
    DataError
        One sentence naming the file (whose official name is `file`) and what is wrong with it.
    """
    with _opened(path, name, file) as (stream, shape):
        size = int(np.prod(shape[1:]))
        for start in range(0, shape[0], rows):
            n = min(rows, shape[0] - start)
            data = stream.read(n * size)
            if len(data) != n * size:
                raise official.refused(path, file, f"{name} ends after {start + len(data) // size} of {shape[0]} rows")
            yield np.frombuffer(data, dtype=np.uint8).reshape(n, *shape[1:])
        # Reading past the end makes zipfile compare the member's checksum.
        if stream.read(1):
            raise official.refused(path, file, f"{name} is longer than its {shape[0]} rows")


@contextmanager
def _opened(path: Path, name: str, file: str) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    with official.reading(path, file), zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            held = ", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist())) or "nothing"
            raise official.refused(path, file, f"it lacks {name} and holds {held}")
        with archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
            if dtype != np.uint8:
                raise official.refused(path, file, f"{name} is {dtype} of shape {shape}; allowed is uint8")
            if fortran:
                raise official.refused(path, file, f"{name} is in Fortran order; allowed is C order, row by row")
            yield stream, shape
