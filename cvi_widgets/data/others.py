"""The data sets that need their authors' files, by name: what they are, where the file goes, how to load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cvi_widgets.data import cars3d, celeba, mpi3d, shapes3d, smallnorb
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.official import IMAGE_SHAPE, Source
from cvi_widgets.data.protocol import FactorData


@dataclass(frozen=True)
class Entry:
    """One data set in the table.

    Parameters
    ----------
    source
        Its file; of several, the one that names the place.
    load
        Takes `data_path`, which may be None.
    factors
        The grid of its factors, or what it has instead, in words.
    summary
        One sentence: whose images, and what is done to them.
    """

    source: Source
    load: Callable[[str | Path | None], FactorData]
    factors: FactorGrid | str
    images: int
    licence: str
    summary: str
    image_shape: tuple[int, int, int] = IMAGE_SHAPE

    def row(self) -> dict[str, object]:
        """The columns of `catalogue.describe`."""
        place = self.source.place
        return {
            "factors": self.factors if isinstance(self.factors, str) else _words(self.factors),
            "images": self.images,
            "image_shape": self.image_shape,
            "licence": self.licence,
            "file": str(place),
            "present": place.exists(),
            "provenance": self.summary,
        }


def _words(grid: FactorGrid) -> str:
    return ", ".join(f"{name} {size}" for name, size in zip(grid.names, grid.sizes, strict=True))


def _entries() -> list[Entry]:
    return [
        Entry(
            shapes3d.SOURCE,
            shapes3d.load,
            shapes3d.GRID,
            len(shapes3d.GRID),
            shapes3d.LICENCE,
            f"The 3D Shapes authors' own images, from {shapes3d.SOURCE.url}.",
        ),
        *(
            Entry(
                source,
                partial(mpi3d.load, name),
                mpi3d.GRIDS[name][0],
                len(mpi3d.GRIDS[name][0]),
                mpi3d.LICENCE,
                f"The MPI3D authors' own images, from {source.page}.",
            )
            for name, source in mpi3d.SOURCES.items()
        ),
        Entry(
            cars3d.SOURCE,
            cars3d.load,
            cars3d.GRID,
            len(cars3d.GRID),
            cars3d.LICENCE,
            f"The Cars3D authors' own images, from {cars3d.SOURCE.url}, reduced from 128x128 to 64x64.",
        ),
        Entry(
            smallnorb.SOURCES["training", "dat"],
            smallnorb.load,
            smallnorb.GRID,
            len(smallnorb.GRID),
            smallnorb.LICENCE,
            "The SmallNORB authors' own images, six files side by side, first camera, reduced from 96x96 to 64x64.",
            smallnorb.IMAGE_SHAPE,
        ),
        Entry(
            celeba.SOURCE,
            celeba.load,
            "40 binary attributes",
            celeba.COUNT,
            celeba.LICENCE,
            f"The CelebA authors' own images: a folder of {celeba.FILES}; {celeba.CROP}. {celeba.MATCHING}",
        ),
    ]


ENTRIES: Mapping[str, Entry] = {entry.source.dataset: entry for entry in _entries()}
