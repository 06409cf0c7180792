"""What a run leaves behind: its directory, its status, and its Zarr store of xarray data sets."""

from __future__ import annotations

from cvi_widgets.results.directory import RunDirectory, RunStatus, find_run, list_runs
from cvi_widgets.results.store import SCHEMA_VERSION, open_results, read_group, seal, write_group

__all__ = [
    "SCHEMA_VERSION",
    "RunDirectory",
    "RunStatus",
    "find_run",
    "list_runs",
    "open_results",
    "read_group",
    "seal",
    "write_group",
]
