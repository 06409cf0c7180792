"""3D Shapes from the authors' `3dshapes.h5`: 480,000 ray-traced rooms, six factors, 64x64 in colour.

Format: `images` (480000, 64, 64, 3) uint8 and `labels` (480000, 6) float64, which are values and not classes;
orientation runs fastest. The ranges that the authors' README gives are not the stored ones; those below are.

Burgess & Kim (2018), github.com/deepmind/3d-shapes; Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data import official
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData

NAME = "shapes3d"
LICENCE = "Apache-2.0"
SOURCE = official.Source(
    NAME,
    "3dshapes.h5",
    "github.com/deepmind/3d-shapes",
    "https://storage.googleapis.com/3d-shapes/3dshapes.h5",
    "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
)
_HUES = np.linspace(0, 0.9, 10)
GRID = FactorGrid(
    {
        "floor_hue": _HUES,
        "wall_hue": _HUES,
        "object_hue": _HUES,
        "scale": np.linspace(0.75, 1.25, 8),
        "shape": np.arange(4.0),
        "orientation": np.linspace(-30, 30, 15),
    }
)
"""Stored values; shape 0 to 3 is cube, cylinder, sphere, capsule; orientation in degrees."""
_BLOCK = 2048


def load(data_path: str | Path | None = None) -> GridData:
    """All images, unpacked into the data folder the first time (5.9 GB, about 40 s).

    Parameters
    ----------
    data_path
        The file, or the folder it is in; without it the file is downloaded once and its SHA-256 checked.

    Raises
    ------
    DataError
        When the file is missing, truncated, corrupt, or is not the 3D Shapes file; one sentence says which.
    """
    path = official.located(SOURCE, data_path)
    verdict = official.verdict(SOURCE.known_hash, [path])
    return official.gridded(
        NAME,
        GRID,
        official.digest([path]),
        lambda out: pack(path, out),
        provenance=f"The 3D Shapes authors' own images from {path.name}, {verdict}.",
        licence=LICENCE,
    )


def pack(path: Path, out: NDArray[np.uint8]) -> None:
    """Check the file at `path` and write its images into `out`, shape (480000, 12288), channels first."""
    # Here and not above: the library takes a tenth of a second to import, which every command would pay.
    import h5py

    expected = {"images": ((len(GRID), 64, 64, 3), "uint8"), "labels": ((len(GRID), len(GRID.names)), "float64")}
    with official.reading(path, SOURCE.file), h5py.File(path, "r") as file:
        for name, (shape, dtype) in expected.items():
            if name not in file:
                held = ", ".join(sorted(file)) or "nothing"
                raise official.refused(path, SOURCE.file, f"it lacks {name} and holds {held}")
            found = file[name]
            if not isinstance(found, h5py.Dataset) or found.shape != shape or found.dtype != np.dtype(dtype):
                what = f"{found.dtype} of shape {found.shape}" if isinstance(found, h5py.Dataset) else "no array"
                raise official.refused(path, SOURCE.file, f"{name} is {what}; allowed is {dtype} of shape {shape}")
        _check_labels(np.asarray(file["labels"][()]), path)
        images = file["images"]
        with official.progress(len(GRID), NAME) as bar:
            for start in range(0, len(GRID), _BLOCK):
                block = images[start : start + _BLOCK]
                out[start : start + len(block)] = official.channels_first(block)
                bar.update(len(block))


def _check_labels(labels: NDArray[np.float64], path: Path) -> None:
    classes = GRID.factors(np.arange(len(GRID)))
    for column, (name, levels) in enumerate(GRID.values.items()):
        # Never equality: 0.30000000000000004 is a stored hue.
        if not np.allclose(labels[:, column], levels[classes[:, column]], rtol=0, atol=1e-6):
            raise official.refused(
                path, SOURCE.file, f"labels of {name} are not in the order of the 3D Shapes grid (orientation fastest)"
            )
