"""SmallNORB from the authors' binary files: 50 toys under 9 elevations, 18 azimuths and 6 lightings, in grey.

Format: three files per split that are called `.mat` and are no MATLAB files. Little endian: an int32 magic number for
the type, an int32 number of dimensions, at least three int32 sizes (padded with 1), then the numbers in C order.
`dat` (24300, 2, 96, 96) uint8 holds both cameras, `cat` (24300,) int32 the category, `info` (24300, 4) int32 instance,
elevation, azimuth and lighting. The two splits hold five different instances of every category each.

Both splits together are a full grid over category, instance, elevation, azimuth and lighting, in which every image is
found by its factors. disentanglement_lib leaves the instance out and draws it at random, so that the same factors give
different images; here the instance is a factor. As there, the first camera is used, reduced to 64x64.

LeCun, Huang & Bottou (2004); for research only, not to be sold.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data import official
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.resize import resized
from cvi_widgets.errors import DataError

NAME = "smallnorb"
LICENCE = "research only, not to be sold"
IMAGE_SHAPE = (1, official.SIDE, official.SIDE)
GRID = FactorGrid(
    {
        "category": np.arange(5.0),
        "instance": np.arange(10.0),
        "elevation": np.arange(30.0, 71.0, 5.0),
        "azimuth": np.arange(0.0, 341.0, 20.0),
        "lighting": np.arange(6.0),
    }
)
"""category 0 to 4 is animal, human, plane, truck, car; elevation and azimuth in degrees; lighting runs fastest."""
SPLITS = {"training": "5x46789", "testing": "5x01235"}
"""The digits name the instances of each split."""

_PAGE = "cs.nyu.edu/~ylclab/data/norb-v1.0-small"
_MD5 = {
    ("training", "dat"): "66054832f9accfe74a0f4c36a75bc0a2",
    ("training", "cat"): "23c8b86101fbf0904a000b43d3ed2fd9",
    ("training", "info"): "51dee1210a742582ff607dfd94e332e3",
    ("testing", "dat"): "e4ad715691ed5a3a5f138751a4ceb071",
    ("testing", "cat"): "5aa791cd7e6016cf957ce9bdb93b8603",
    ("testing", "info"): "a9454f3864d7fd4bb3ea7fc3eb84924e",
}


def _source(split: str, part: str) -> official.Source:
    file = f"smallnorb-{SPLITS[split]}x9x18x6x2x96x96-{split}-{part}.mat.gz"
    return official.Source(NAME, file, _PAGE, f"https://{_PAGE}/{file}", f"md5:{_MD5[split, part]}")


SOURCES = {key: _source(*key) for key in _MD5}
_SIDE = 96
_BYTES, _INTEGERS = 0x1E3D4C55, 0x1E3D4C54
_TYPES = {
    0x1E3D4C51: "float32",
    0x1E3D4C52: "packed",
    0x1E3D4C53: "float64",
    _INTEGERS: "int32",
    _BYTES: "uint8",
    0x1E3D4C56: "int16",
}
_BLOCK = 512


def load(data_path: str | Path | None = None) -> GridData:
    """All 48,600 images at 64x64, packed the first time (199 MB).

    Parameters
    ----------
    data_path
        The folder of the six files, gzipped or not, or one of them; without it they are downloaded once and their MD5
        checked.

    Raises
    ------
    DataError
        When a file is missing, truncated, swapped or corrupt; one sentence says which.
    """
    files = _files(data_path)
    verdict = _verdict(files)
    return official.gridded(
        NAME,
        GRID,
        official.digest(list(files.values())),
        lambda out: pack(files, out),
        shape=IMAGE_SHAPE,
        provenance=(
            f"The SmallNORB authors' own images from six files, {verdict}: first camera, reduced from 96x96 to 64x64."
        ),
        licence=LICENCE,
    )


def pack(files: dict[tuple[str, str], Path], out: NDArray[np.uint8]) -> None:
    """Write the first camera's images into `out`, shape (48600, 4096), in the order of the grid."""
    n = len(GRID) // len(SPLITS)
    index = {split: _index(files, split, n) for split in SPLITS}
    seen = np.concatenate(list(index.values()))
    if len(np.unique(seen)) != len(GRID):
        raise _refused(
            files, "testing", "info", f"both splits together show {len(np.unique(seen))} of {len(GRID)} cells"
        )
    with official.progress(len(GRID), NAME) as bar:
        for split, cells in index.items():
            path, file = files[split, "dat"], SOURCES[split, "dat"].file
            with official.reading(path, file), _opened(path) as stream:
                _header(stream, path, file, _BYTES, (n, 2, _SIDE, _SIDE))
                for start in range(0, n, _BLOCK):
                    block = cells[start : start + _BLOCK]
                    pairs = _numbers(stream, path, file, (len(block), 2, _SIDE, _SIDE), "u1")
                    out[block] = resized(pairs[:, 0], official.SIDE).reshape(len(block), -1)
                    bar.update(len(block))
                _ended(stream, path, file)


def _index(files: dict[tuple[str, str], Path], split: str, n: int) -> NDArray[np.int64]:
    """The cell of each image of a split, shape (n,)."""
    category = _whole(files[split, "cat"], SOURCES[split, "cat"].file, (n,))
    info = _whole(files[split, "info"], SOURCES[split, "info"].file, (n, 4))
    instance, elevation, azimuth, lighting = info.T
    allowed = {int(digit) for digit in SPLITS[split].removeprefix("5x")}
    if not set(instance.tolist()) <= allowed:
        raise _refused(
            files,
            split,
            "info",
            f"it has the instances {sorted(set(instance.tolist()))}; allowed are {sorted(allowed)}",
        )
    if (azimuth % 2).any():
        raise _refused(files, split, "info", "its azimuths are not even numbers")
    try:
        return GRID.index(np.stack([category, instance, elevation, azimuth // 2, lighting], axis=1))
    except DataError as error:
        part = "cat" if "'category'" in str(error) else "info"
        raise _refused(files, split, part, str(error).rstrip(".").replace(";", ",")) from error


def _whole(path: Path, file: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    with official.reading(path, file), _opened(path) as stream:
        _header(stream, path, file, _INTEGERS, shape)
        found = _numbers(stream, path, file, shape, "<i4").astype(np.int64)
        _ended(stream, path, file)
    return found


def _header(stream: IO[bytes], path: Path, file: str, magic: int, shape: tuple[int, ...]) -> None:
    found, ndim = struct.unpack("<2i", stream.read(8))
    if found not in _TYPES:
        swapped = int.from_bytes(found.to_bytes(4, "little", signed=True), "big") in _TYPES
        what = "it is big endian; allowed is little endian" if swapped else f"its magic number is {found:#x}"
        raise official.refused(path, file, what)
    sizes: tuple[int, ...] = ()
    if 0 < ndim <= 8:
        padded = max(3, ndim)
        sizes = struct.unpack(f"<{padded}i", stream.read(4 * padded))[:ndim]
    if found != magic or sizes != shape:
        raise official.refused(
            path, file, f"it holds {_TYPES[found]} of shape {sizes}; allowed is {_TYPES[magic]} of shape {shape}"
        )


def _numbers(stream: IO[bytes], path: Path, file: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = stream.read(size)
    if len(data) != size:
        raise official.refused(path, file, "it ends early, so it is truncated")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _ended(stream: IO[bytes], path: Path, file: str) -> None:
    # Reading on also makes gzip compare its checksum.
    if stream.read(1):
        raise official.refused(path, file, "it is longer than its header says")


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _files(data_path: str | Path | None) -> dict[tuple[str, str], Path]:
    """The six files by split and part, gzipped or not."""
    if data_path is None:
        return {key: official.located(source, None) for key, source in SOURCES.items()}
    given = Path(data_path).expanduser()
    folder = given.parent if given.is_file() else given
    found = {}
    for key, source in SOURCES.items():
        choices = [folder / source.file, folder / source.file.removesuffix(".gz")]
        path = next((choice for choice in choices if choice.is_file()), None)
        if path is None:
            raise DataError(
                f"data_path {str(given)!r} lacks {source.file}; dataset {NAME!r} needs the folder of its six files, "
                f"gzipped or not (from {_PAGE})."
            )
        found[key] = path
    return found


def _verdict(files: dict[tuple[str, str], Path]) -> str:
    if any(path.suffix != ".gz" for path in files.values()):
        return "unpacked, for which no MD5 was published"
    same = all(official.digest([path]) == _MD5[key] for key, path in files.items())
    return "whose MD5s are the published ones" if same else "whose MD5s are not the published ones"


def _refused(files: dict[tuple[str, str], Path], split: str, part: str, what: str) -> DataError:
    return official.refused(files[split, part], SOURCES[split, part].file, what)
