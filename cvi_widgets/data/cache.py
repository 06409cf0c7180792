"""Packed images on disk: written aside and renamed whole, checked whenever they are opened.

A cache is a folder of `images.npy` (uint8, one row of packed bits per image), `twins.npy` (int32, see `find_twins`) and
`manifest.json` (sizes and CRC-32 of both). Reading 377 MB for the checksum takes 0.2 s, 5.9 GB that the system
still holds in memory 2.4 s, and finds a truncated or damaged file, which is then written again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
from numpy.typing import NDArray

from cvi_widgets import paths
from cvi_widgets.data.pixels import find_twins
from cvi_widgets.errors import StoreError

_LOG = logging.getLogger(__name__)
_FILES = ("images.npy", "twins.npy")


class Packed(NamedTuple):
    """Mapped bits, shape (n, bytes), and for each image the smallest index with identical pixels, shape (n,)."""

    bits: NDArray[np.uint8]
    twin: NDArray[np.int32]


def opened(folder: Path, n: int, row_bytes: int, produce: Callable[[NDArray[np.uint8]], None]) -> Packed:
    """The cache in `folder`; where it is missing or damaged, `produce(out)` fills it first.

    Parameters
    ----------
    folder
        The cache's own folder. Processes that want it at the same time wait for the one that writes it.
    n, row_bytes
        Number of images and bytes of each.
    produce
        Writes all rows of its argument, shape (n, row_bytes). What it raises is raised here, and nothing stays behind.
    """
    packed = read(folder, n, row_bytes)
    if packed is None:
        paths.ensure_writable(folder.parent)
        lock = folder.parent / f".{folder.name}.lock"
        with filelock.FileLock(lock):
            try:
                packed = read(folder, n, row_bytes) or _written(folder, n, row_bytes, produce)
            except BaseException:
                # Safe while the lock is held: a process that waits sees that its lock file is gone, and makes another.
                with contextlib.suppress(OSError):
                    lock.unlink()
                raise
    return packed


def read(folder: Path, n: int, row_bytes: int) -> Packed | None:
    """The cache in `folder`, or None when it is missing, incomplete or damaged (which is logged)."""
    if not folder.is_dir():
        return None
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        bits, twin = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _FILES)
        found = _manifest(bits, twin)
    except (OSError, ValueError, EOFError) as error:
        _LOG.warning("the cache %s cannot be read and is written again: %s", folder, error)
        return None
    if manifest != found or bits.shape != (n, row_bytes) or twin.shape != (n,):
        _LOG.warning("the cache %s is damaged and is written again", folder)
        return None
    # A plain view: indexing np.memmap costs a Python call per batch.
    return Packed(bits.view(np.ndarray), np.array(twin))


def _written(folder: Path, n: int, row_bytes: int, produce: Callable[[NDArray[np.uint8]], None]) -> Packed:
    aside = folder.parent / f".{folder.name}.partial"
    # The lock is ours, so a partial folder is what a killed process left.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        _write(aside, n, row_bytes, produce)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except OSError as error:
        raise StoreError(
            f"data folder {str(folder.parent)!r} could not take the images ({error.strerror or error}); "
            f"{n * row_bytes / 1e6:.0f} MB are needed, free them or set CVI_HOME to another folder."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    packed = read(folder, n, row_bytes)
    if packed is None:
        raise StoreError(f"data folder {str(folder)!r} does not read back what was written; check the disk.")
    return packed


def _write(aside: Path, n: int, row_bytes: int, produce: Callable[[NDArray[np.uint8]], None]) -> None:
    rows = _mapped(aside / _FILES[0], n, row_bytes)
    produce(rows)
    rows.flush()
    twin = find_twins(rows)
    with (aside / _FILES[1]).open("wb") as file:
        np.save(file, twin, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    (aside / "manifest.json").write_text(json.dumps(_manifest(rows, twin)), encoding="utf-8")


def _mapped(path: Path, n: int, row_bytes: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new array file, mapped to be filled: some sets are larger than the memory."""
    if shutil.disk_usage(path.parent).free < n * row_bytes:
        # A disk that fills up under a mapped file ends the process without a word.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, row_bytes))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return rows


def _manifest(bits: NDArray[np.uint8], twin: NDArray[np.int32]) -> dict[str, object]:
    arrays: dict[str, NDArray[Any]] = dict(zip(_FILES, (bits, twin), strict=True))
    return {
        name: {"shape": list(a.shape), "dtype": a.dtype.str, "crc32": zlib.crc32(a.data)} for name, a in arrays.items()
    }
