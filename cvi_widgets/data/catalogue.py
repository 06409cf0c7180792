"""The data sets by name: loading one, and a table of all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from cvi_widgets import paths
from cvi_widgets.config import DatasetName
from cvi_widgets.data import dsprites, dsprites_official, others, scm_dsprites, shapes3d, shapes3d_like
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.protocol import FactorData
from cvi_widgets.errors import DataError
from cvi_widgets.names import unknown

SCM = Literal["linear", "nonlinear"]
_RENDERED = {dsprites.NAME: dsprites_official.NAME, shapes3d_like.NAME: shapes3d.NAME}
"""Data sets that read no file, and the genuine ones that do."""


def load(name: str, *, data_path: str | Path | None = None, scm: SCM = "linear") -> FactorData:
    """The data set `name`; the same object each time within a process.

    Parameters
    ----------
    name
        `dsprites` (re-rendered, no download), `dsprites-official` (the authors' file) or `scm-dsprites` (dSprites
        images under a known structural causal model), or one of the sets that `describe` lists besides.
    data_path
        The authors' file, for `dsprites-official` and the others (without it: downloaded, where their host allows it,
        or looked for in the data folder) and, if wanted, the images of `scm-dsprites`.
    scm
        Which causal model `scm-dsprites` follows; the others do not use it.

    Raises
    ------
    DataError
        One sentence about an unknown name, or a file that is missing or wrong.
    """
    if name not in get_args(DatasetName):
        raise DataError(unknown("dataset", name, get_args(DatasetName)))
    if scm not in get_args(SCM):
        raise DataError(unknown("scm", scm, get_args(SCM)))
    if name in _RENDERED and data_path is not None:
        raise DataError(
            f"data_path is {str(data_path)!r}, but dataset {name!r} is re-rendered and reads no file; "
            f"did you mean dataset {_RENDERED[name]}?"
        )
    path = None if data_path is None else str(Path(data_path).expanduser().resolve())
    return _loaded(name, path, scm if name == scm_dsprites.NAME else "linear", str(paths.data_dir().resolve()))


@lru_cache(maxsize=8)
def _loaded(name: str, data_path: str | None, scm: SCM, data_dir: str) -> FactorData:
    if name == dsprites.NAME:
        return dsprites.load()
    if name == dsprites_official.NAME:
        return dsprites_official.load(data_path)
    if name == shapes3d_like.NAME:
        return shapes3d_like.load()
    if name in others.ENTRIES:
        return others.ENTRIES[name].load(data_path)
    images = _loaded(dsprites.NAME if data_path is None else dsprites_official.NAME, data_path, "linear", data_dir)
    assert isinstance(images, GridData)
    return scm_dsprites.build(images, scm)


def describe() -> pd.DataFrame:
    """One row per data set, index `dataset`: its factors and sizes, licence, file, whether it is there, provenance.

    Loads and renders nothing. `file` is where an authors' file goes, by download or by hand; `data_path` can name
    another place.
    """
    factors = ", ".join(f"{n} {s}" for n, s in zip(dsprites.GRID.names, dsprites.GRID.sizes, strict=True))
    rendered = dsprites.cache_folder()
    official = paths.data_dir() / dsprites_official.FILE_NAME
    notes = {
        dsprites.NAME: (rendered, dsprites.PROVENANCE),
        dsprites_official.NAME: (official, f"The dSprites authors' own images, from {dsprites_official.URL}."),
        scm_dsprites.NAME: (rendered, f"{scm_dsprites.SUMMARY} {dsprites.PROVENANCE}"),
    }
    rows = {
        name: {
            "factors": factors,
            "images": len(dsprites.GRID),
            "image_shape": dsprites.IMAGE_SHAPE,
            "licence": dsprites.LICENCE,
            "file": str(file),
            "present": file.exists(),
            "provenance": provenance,
        }
        for name, (file, provenance) in notes.items()
    }
    grid = shapes3d.GRID
    rows[shapes3d_like.NAME] = {
        "factors": ", ".join(f"{n} {s}" for n, s in zip(grid.names, grid.sizes, strict=True)),
        "images": len(grid),
        "image_shape": shapes3d_like.IMAGE_SHAPE,
        "licence": shapes3d_like.LICENCE,
        "file": str(shapes3d_like.cache_folder()),
        "present": shapes3d_like.cache_folder().exists(),
        "provenance": shapes3d_like.PROVENANCE,
    }
    rows |= {name: entry.row() for name, entry in others.ENTRIES.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")
