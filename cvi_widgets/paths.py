"""Where data and runs live.

`CVI_HOME` names one folder for both; without it the data cache is the user cache folder of the platform and runs go to
`./runs`, so that a first run leaves its results where the person stands.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from cvi_widgets.errors import StoreError


def home() -> Path | None:
    """The folder `CVI_HOME` names, or None when it is not set."""
    value = os.environ.get("CVI_HOME")
    return Path(value).expanduser() if value else None


def data_dir() -> Path:
    """Folder of downloaded and rendered data (`CVI_HOME/data`, else the platform's cache folder)."""
    root = home()
    return root / "data" if root else Path(platformdirs.user_cache_dir("cvi_widgets"))


def runs_dir() -> Path:
    """Folder of runs (`CVI_HOME/runs`, else `./runs`)."""
    root = home()
    return root / "runs" if root else Path("runs")


def ensure_writable(folder: Path) -> Path:
    """Create `folder` if needed and make sure that files can be created in it.

    Raises
    ------
    StoreError
        When the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".cvi-probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"folder {str(folder)!r} cannot be written ({error.strerror or error}); "
            "set CVI_HOME to a folder that can, or free it."
        ) from error
    return folder
