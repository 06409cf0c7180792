"""MPI3D from the authors' `.npz` files: a robot arm in three degrees of realism, seven factors, 64x64 in colour.

Format: one array `images` (n, 64, 64, 3) uint8 and no labels; the factors follow from the position, vertical_axis
fastest. There are two toy files under one name, the published one and that of the disentanglement challenge, which
leaves out two colours and two shapes; the number of images tells them apart.

Gondal et al. (2019), arXiv 1906.03292, github.com/rr-learning/disentanglement_dataset; CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cvi_widgets.data import npz, official
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData

LICENCE = "CC-BY-4.0"
_PAGE = "huggingface.co/datasets/waleedgondal/mpi3d"
_BLOCK = 2048


def _grid(colours: int, shapes: int) -> FactorGrid:
    return official.counted(
        object_color=colours,
        object_shape=shapes,
        object_size=2,
        camera_height=3,
        background_color=3,
        horizontal_axis=40,
        vertical_axis=40,
    )


FULL, REDUCED = _grid(6, 6), _grid(4, 4)
"""Values are class numbers. object_color: white, green, red, blue, brown, olive; object_shape: cone, cube, cylinder,
hexagonal, pyramid, sphere; object_size: small, large; camera_height: top, center, bottom; background_color: purple,
sea green, salmon. In `mpi3d-real-complex` the colours are yellow, green, olive, red and the shapes coffee-cup,
tennis-ball, croissant, beer-cup."""

# No hash was published for the files where they lie today, so they are not downloaded by themselves.
SOURCES: Mapping[str, official.Source] = MappingProxyType(
    {
        f"mpi3d-{kind.replace('_', '-')}": official.Source(f"mpi3d-{kind.replace('_', '-')}", f"mpi3d_{kind}.npz", page)
        for kind, page in (
            ("toy", _PAGE),
            ("realistic", _PAGE),
            ("real", _PAGE),
            ("real_complex", "github.com/rr-learning/disentanglement_dataset"),
        )
    }
)
GRIDS: Mapping[str, tuple[FactorGrid, ...]] = MappingProxyType(
    {
        "mpi3d-toy": (FULL, REDUCED),
        "mpi3d-realistic": (FULL,),
        "mpi3d-real": (FULL,),
        "mpi3d-real-complex": (REDUCED,),
    }
)
"""The grids that each file may hold, the published one first."""
MD5: Mapping[str, str] = MappingProxyType(
    {
        "mpi3d-toy": "md5:55889cb7c7dfc655d6e0277beee88868",
        "mpi3d-realistic": "md5:59a6225b88b635365f70c91b3e52f70f",
        "mpi3d-real": "md5:0f33f609918fb5c97996692f91129802",
    }
)
"""Of the files at their older address."""


def load(name: str, data_path: str | Path | None = None) -> GridData:
    """All images of `mpi3d-toy`, `-realistic`, `-real` or `-real-complex`, unpacked the first time (12.7 or 5.7 GB).

    Parameters
    ----------
    data_path
        The file, or the folder it is in; without it the file is looked for in the data folder.

    Raises
    ------
    DataError
        When the file is missing, truncated, corrupt, or has another number of images; one sentence says which.
    """
    source = SOURCES[name]
    path = official.located(source, data_path)
    grid = _grid_of(path, name)
    verdict = official.verdict(MD5.get(name), [path])
    which = "" if grid is GRIDS[name][0] else " It is the challenge's file, without held-out colours and shapes."
    return official.gridded(
        name,
        grid,
        official.digest([path]),
        lambda out: pack(path, source.file, out),
        provenance=f"The MPI3D authors' own images from {path.name}, {verdict}.{which}",
        licence=LICENCE,
    )


def pack(path: Path, file: str, out: NDArray[np.uint8]) -> None:
    """Write the images of `path` into `out`, shape (n, 12288), channels first."""
    done = 0
    with official.progress(len(out), file) as bar:
        for images in npz.blocks(path, "images", file, _BLOCK):
            out[done : done + len(images)] = official.channels_first(images)
            done += len(images)
            bar.update(len(images))


def _grid_of(path: Path, name: str) -> FactorGrid:
    file = SOURCES[name].file
    shape = npz.shape_of(path, "images", file)
    allowed = {len(grid): grid for grid in GRIDS[name]}
    if len(shape) != 4 or shape[0] not in allowed or shape[1:] != (64, 64, 3):
        shapes = " or ".join(f"({count}, 64, 64, 3)" for count in allowed)
        raise official.refused(path, file, f"images has shape {shape}; allowed is {shapes}")
    return allowed[shape[0]]
