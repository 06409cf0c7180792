"""Cars3D from the authors' `nips2015-analogy-data.tar.gz`, or the folder it unpacks to: 183 cars on a turntable.

Format: `data/cars/list.txt` names the cars, `data/cars/<car>.mat` holds one each (MATLAB 5, read without executing
anything): `im` (128, 128, 3, 24, 4) uint8 as (y, x, colour, azimuth, elevation). Types are numbered by `list.txt`;
disentanglement_lib numbers them as the file system lists them, so type numbers found with it are other ones.

Reed, Zhang, Zhang & Lee (2015), Deep Visual Analogy-Making; no licence is published, so treat it as research only.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data import official
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.resize import resized

NAME = "cars3d"
LICENCE = "none published: research only"
SOURCE = official.Source(
    NAME,
    "nips2015-analogy-data.tar.gz",
    "www.scottreed.info",
    "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
    "md5:4e866a7919c1beedf53964e6f7a23686",
)
GRID = official.counted(elevation=4, azimuth=24, object_type=183)
"""Values are class numbers; the object type runs fastest."""
_SIDE = 128


def load(data_path: str | Path | None = None) -> GridData:
    """All images at 64x64 (128x128 in the files, reduced with anti-aliasing), packed the first time (216 MB).

    Parameters
    ----------
    data_path
        The archive, or the folder it was unpacked to; without it the archive is downloaded once and its MD5 checked.

    Raises
    ------
    DataError
        When a file is missing, truncated, corrupt, or is no car; one sentence says which.
    """
    folder = None if data_path is None else _unpacked(Path(data_path).expanduser())
    if folder is None:
        path = official.located(SOURCE, data_path)
        files, verdict = [path], official.verdict(SOURCE.known_hash, [path])
    else:
        path = folder
        files, verdict = sorted([*folder.glob("*.mat"), folder / "list.txt"]), official.verdict(None, [])
    return official.gridded(
        NAME,
        GRID,
        official.digest(files),
        lambda out: pack(path, out),
        provenance=f"The Cars3D authors' own images from {path.name}, {verdict}, reduced from 128x128 to 64x64.",
        licence=LICENCE,
    )


def pack(path: Path, out: NDArray[np.uint8]) -> None:
    """Write the images of the archive or folder `path` into `out`, shape (17568, 12288), channels first."""
    elevations, azimuths, types = GRID.sizes
    cells = out.reshape(elevations, azimuths, types, -1)
    with official.reading(path, SOURCE.file), official.progress(len(GRID), NAME) as bar:
        seen = set()
        for number, image in _cars(path):
            small = resized(image.transpose(4, 3, 0, 1, 2).reshape(-1, _SIDE, _SIDE, 3), official.SIDE)
            cells[:, :, number] = official.channels_first(small).reshape(elevations, azimuths, -1)
            seen.add(number)
            bar.update(len(small))
        if len(seen) != types:
            raise official.refused(path, SOURCE.file, f"it holds {len(seen)} of the {types} cars in list.txt")


def _cars(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and `im` of every car, in the order in which they lie there."""
    # Here and not above: few sets need it, and every command would pay for the import.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    numbers = _numbers(path)
    shape = (_SIDE, _SIDE, 3, GRID.size("azimuth"), GRID.size("elevation"))
    for name, stream in _members(path):
        number = numbers.get(name.removesuffix(".mat"))
        if number is None:
            continue
        try:
            # Out of the archive first: going back in a compressed stream starts it anew.
            found = loadmat(io.BytesIO(stream.read()), variable_names=["im"]).get("im")
        except (MatReadError, *official.BROKEN) as error:
            raise official.refused(path, SOURCE.file, f"{name} cannot be read as MATLAB 5 ({error})") from error
        if found is None or found.shape != shape or found.dtype != np.uint8:
            what = "is missing" if found is None else f"is {found.dtype} of shape {found.shape}"
            raise official.refused(path, SOURCE.file, f"im of {name} {what}; allowed is uint8 of shape {shape}")
        yield number, found


def _numbers(path: Path) -> dict[str, int]:
    """The type of each car by its name, from `list.txt`."""
    text = next((stream.read().decode("ascii") for name, stream in _members(path) if name == "list.txt"), None)
    if text is None:
        raise official.refused(path, SOURCE.file, "it lacks data/cars/list.txt")
    names = text.split()
    if len(names) != GRID.size("object_type") or len(set(names)) != len(names):
        raise official.refused(
            path, SOURCE.file, f"list.txt names {len(set(names))} cars; allowed are {GRID.size('object_type')}"
        )
    return {name: number for number, name in enumerate(names)}


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and open files of `data/cars`; nothing of the archive is written to disk."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.is_file():
                with file.open("rb") as stream:
                    yield file.name, stream
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            parts = Path(member.name).parts
            content = archive.extractfile(member) if member.isfile() and parts[-3:-1] == ("data", "cars") else None
            if content is not None:
                yield parts[-1], content


def _unpacked(given: Path) -> Path | None:
    """The folder of cars in or at `given`, if there is one."""
    candidates = (given, given / "cars", given / "data" / "cars")
    return next((folder for folder in candidates if (folder / "list.txt").is_file()), None)
