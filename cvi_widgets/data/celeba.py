"""CelebA from the authors' files: 202,599 aligned faces with 40 binary attributes, given by people.

Format: `img_align_celeba.zip` (or the folder it unpacks to) holds `img_align_celeba/000001.jpg` and so on, 178 wide and
218 high. `list_attr_celeba.txt` has the number of images, the attribute names, then one row per image of its name and
-1 or 1 per attribute, apart by any number of spaces. `list_eval_partition.txt` has the name and 0, 1 or 2 (training,
validation, test) in each row. Nothing is downloaded: the authors' host asks for a person.

The attributes are labels and no generative factors: they are noisy, correlated, and form no grid.

Liu, Luo, Wang & Tang (2015); for non-commercial research, not to be redistributed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cvi_widgets.data import official
from cvi_widgets.data.attribute_data import AttributeData
from cvi_widgets.errors import DataError

NAME = "celeba"
LICENCE = "non-commercial research only, not to be redistributed"
COUNT = 202_599
N_ATTRIBUTES = 40
SOURCE = official.Source(NAME, "celeba", "mmlab.ie.cuhk.edu.hk/projects/CelebA.html")
ATTRIBUTES, PARTITION, IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"
FILES = f"{ATTRIBUTES}, {PARTITION} and {IMAGES}.zip or the folder {IMAGES}"
CROP = "the middle 148x148 of 178x218 reduced to 64x64"
MATCHING = (
    "No two images differ in one attribute alone: a pair's source is the image nearest in the other 39 attributes, "
    "and other attributes can differ too."
)
_MD5 = {
    f"{IMAGES}.zip": "md5:00d2c5bc6d35e252742224ab0c1e8fcb",
    ATTRIBUTES: "md5:75e246fa4810816ffd6ee81facbd244c",
    PARTITION: "md5:d32c9cbf5e040fd4025c592c306e6668",
}
_FOLDERS = ("", "Anno", "Eval", "Img")
"""Where the authors' own folders have the files."""
_SIZE = (178, 218)
_BOX = (15, 35, 163, 183)
_BLOCK = 512


def load(data_path: str | Path | None = None) -> AttributeData:
    """All faces at 64x64 (see `CROP`), packed the first time (2.5 GB, some minutes).

    Parameters
    ----------
    data_path
        The folder that holds `FILES`, or one of them; without it, `celeba` in the data folder.

    Raises
    ------
    DataError
        When a file is missing, truncated, swapped or corrupt; one sentence says which.
    """
    folder = _folder(data_path)
    attributes, partition, images = (_found(folder, name) for name in (ATTRIBUTES, PARTITION, IMAGES))
    names, classes = _attributes(attributes)
    parts = _partition(partition)
    pixels, twin = official.packed(NAME, _key(images), COUNT, lambda out: pack(images, out))
    verdicts = [
        f"{path.name}, {official.verdict(_MD5.get(path.name), [path])}" for path in (images, attributes, partition)
    ]
    return AttributeData(
        NAME,
        names,
        classes,
        pixels,
        twin=twin,
        provenance=f"The CelebA authors' own images from {'; '.join(verdicts)}; {CROP}. {MATCHING}",
        licence=LICENCE,
        partition=parts,
    )


def pack(path: Path, out: NDArray[np.uint8]) -> None:
    """Write the faces of the zip or folder `path` into `out`, shape (202599, 12288), channels first."""
    names = _names()
    with (
        official.reading(path, IMAGES),
        _reader(path) as read,
        official.progress(COUNT, NAME) as bar,
        # Decoding leaves Python's lock, reading out of one archive does not.
        ThreadPoolExecutor() as pool,
    ):
        for start in range(0, COUNT, _BLOCK):
            block = names[start : start + _BLOCK]
            contents = [read(name) for name in block]
            faces = list(pool.map(_face, contents, block, [path] * len(block)))
            out[start : start + len(block)] = official.channels_first(np.stack(faces))
            bar.update(len(block))


def _face(content: bytes, name: str, path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.size != _SIZE or image.mode != "RGB":
                what = f"{name} is {image.size[0]} wide, {image.size[1]} high and {image.mode}"
                raise official.refused(path, IMAGES, f"{what}; allowed is {_SIZE[0]} wide, {_SIZE[1]} high and RGB")
            face = image.crop(_BOX).resize((official.SIDE, official.SIDE), Image.Resampling.LANCZOS)
    except DataError:
        raise
    except (Image.DecompressionBombError, *official.BROKEN) as error:
        raise official.refused(path, IMAGES, f"{name} is no whole JPEG") from error
    return np.asarray(face)


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Reads one image by its name, from the folder or the zip."""
    if path.is_dir():
        held = {file.name for file in path.iterdir()}
        _check_complete(held, path)
        yield lambda name: (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        held = {name.removeprefix(f"{IMAGES}/") for name in archive.namelist()}
        _check_complete(held, path)
        inside = f"{IMAGES}/" if f"{IMAGES}/{_names()[0]}" in archive.namelist() else ""
        yield lambda name: archive.read(f"{inside}{name}")


def _check_complete(held: set[str], path: Path) -> None:
    lacking = [name for name in _names() if name not in held]
    if lacking:
        raise official.refused(path, IMAGES, f"it lacks {len(lacking)} of {COUNT} images, the first {lacking[0]}")


def _attributes(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Attribute names, and 0 or 1 per image and attribute, shape (202599, 40)."""
    with official.reading(path, ATTRIBUTES):
        with path.open(encoding="ascii") as file:
            count, names = file.readline().strip(), file.readline().split()
        if count != str(COUNT):
            raise official.refused(path, ATTRIBUTES, f"its first line is {count[:40]!r}; allowed is {COUNT}")
        if len(names) != N_ATTRIBUTES or len(set(names)) != N_ATTRIBUTES:
            raise official.refused(
                path, ATTRIBUTES, f"it names {len(set(names))} attributes; allowed are {N_ATTRIBUTES}"
            )
        values = _table(path, ATTRIBUTES, 2, N_ATTRIBUTES, {-1, 1})
    return names, (values + 1) // 2


def _partition(path: Path) -> NDArray[np.int64]:
    """0, 1 or 2 per image, shape (202599,)."""
    with official.reading(path, PARTITION):
        return _table(path, PARTITION, 0, 1, {0, 1, 2})[:, 0]


def _table(path: Path, file: str, skip: int, columns: int, allowed: set[int]) -> NDArray[np.int64]:
    """The numbers of a list whose rows are an image's name and `columns` whole numbers."""
    table = pd.read_csv(path, sep=r"\s+", header=None, skiprows=skip, dtype=str, keep_default_na=False)
    if table.shape != (COUNT, columns + 1):
        found = f"{len(table)} rows of {table.shape[1] - 1} numbers"
        raise official.refused(path, file, f"it has {found}; allowed are {COUNT} of {columns}")
    wrong = np.flatnonzero(table[0].to_numpy() != np.array(_names(), dtype=object))
    if wrong.size:
        row = int(wrong[0])
        raise official.refused(path, file, f"row {row + 1} is {table[0][row]!r}; allowed is {_names()[row]}")
    texts = {str(number) for number in allowed}
    odd = set(pd.unique(table.iloc[:, 1:].to_numpy().ravel())) - texts
    if odd:
        listed = ", ".join(sorted(texts))
        raise official.refused(path, file, f"it has the value {min(odd)!r}; allowed are {listed}")
    return table.iloc[:, 1:].astype(np.int64).to_numpy()


def _names() -> list[str]:
    return [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]


def _folder(data_path: str | Path | None) -> Path:
    if data_path is None:
        if not SOURCE.place.is_dir():
            raise DataError(
                f"dataset {NAME!r} needs {FILES}, which are not downloaded by themselves: get them from {SOURCE.page} "
                f"and put them into {str(SOURCE.place)!r}, or set data_path to their folder."
            )
        return SOURCE.place
    given = Path(data_path).expanduser()
    return given.parent if given.is_file() or given.name == IMAGES else given


def _found(folder: Path, name: str) -> Path:
    """The file `name`, or the images as a zip or a folder, in `folder` or one of the authors' folders in it."""
    tried = [folder / inner / name for inner in _FOLDERS]
    if name == IMAGES:
        found = [path.with_name(f"{IMAGES}.zip") for path in tried if path.with_name(f"{IMAGES}.zip").is_file()]
        found += [path for path in tried if path.is_dir()]
    else:
        found = [path for path in tried if path.is_file()]
    if not found:
        lacks = f"{IMAGES}.zip and the folder {IMAGES}" if name == IMAGES else name
        raise DataError(
            f"data_path {str(folder)!r} lacks {lacks}; dataset {NAME!r} needs the folder of {FILES} "
            f"(from {SOURCE.page})."
        )
    return found[0]


def _key(images: Path) -> str:
    """Names the cache: the archive's MD5; of a folder the names, sizes and times, as reading it takes as long again."""
    if images.is_file():
        return official.digest([images])
    listing = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(images.iterdir())]
    return hashlib.md5(repr(listing).encode(), usedforsecurity=False).hexdigest()
