"""The Zarr store of a run: written group by group, sealed by a manifest, read lazily as one DataTree.

Zarr shows a missing chunk as fill values without a word, so a store that lost files would read as silently wrong
numbers. Each group is therefore written aside and renamed whole, and `seal` records every file with its size and
digest; `open_results` refuses a store that does not hold what its manifest says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cvi_widgets.errors import StoreError

SCHEMA_VERSION = 1
_EXAMPLES_PER_SHARD = 2000
_UNITS_PER_SHARD = 32


def write_group(store: Path, group: str, dataset: xr.Dataset) -> None:
    """Write `dataset` as `group` of the store, whole or not at all; an earlier group of that name is replaced.

    Parameters
    ----------
    store : Path
        Folder of the store, created when missing.
    group : str
        Path of the group, such as `"effects/input"`.
    """
    aside = store.parent / f".{store.name}.{group.replace('/', '.')}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _ensure_groups(store, group)
        _plain_strings(dataset).to_zarr(
            aside, mode="w", consolidated=False, zarr_format=3, encoding=_encoding(dataset)
        )
        target = store / group
        if target.exists():
            shutil.rmtree(target)
        aside.replace(target)
    except OSError as error:
        raise StoreError(f"store {str(store)!r} cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def has_group(store: Path, group: str) -> bool:
    """Whether `group` was written whole; a folder that only holds further groups is none."""
    return any(json.loads(meta.read_text())["node_type"] == "array" for meta in (store / group).glob("*/zarr.json"))


def read_group(store: Path, group: str) -> xr.Dataset:
    """Open one group of a store that is not sealed yet, lazily."""
    if not has_group(store, group):
        raise StoreError(f"store {str(store)!r} has no group {group!r}.")
    return _python_strings(xr.open_zarr(store / group, consolidated=False, chunks=None))


def seal(store: Path, attrs: Mapping[str, Any]) -> None:
    """Write the root attributes and, last of all, the manifest that makes the store readable by `open_results`."""
    manifest = manifest_of(store)
    manifest.unlink(missing_ok=True)
    zarr.open_group(store, mode="r+", zarr_format=3).attrs.put({"schema_version": SCHEMA_VERSION, **attrs})
    files = {path.relative_to(store).as_posix(): _entry(path) for path in sorted(store.rglob("*")) if path.is_file()}
    aside = manifest.with_name(f".{manifest.name}.partial")
    aside.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": files}, indent=0))
    aside.replace(manifest)


def manifest_of(store: Path) -> Path:
    """The manifest lies beside the store: zarr warns of any foreign file inside one."""
    return store.with_name(f"{store.name}.manifest.json")


def open_results(store: Path, *, verify: bool = False) -> xr.DataTree:
    """Open a sealed store lazily.

    Parameters
    ----------
    store : Path
        Folder of the store.
    verify : bool
        Also compare every file's SHA-256 with the manifest; sizes are always compared.

    Raises
    ------
    StoreError
        The store is missing, was never finished, is truncated, or has another schema.
    """
    files = _manifest(store)
    for name, (size, digest) in files.items():
        path = store / name
        if not path.is_file():
            raise StoreError(f"store {str(store)!r} is truncated: file {name!r} is missing; run it again.")
        if path.stat().st_size != size:
            raise StoreError(
                f"store {str(store)!r} is truncated: file {name!r} has {path.stat().st_size} of {size} bytes; "
                "run it again."
            )
        if verify and _entry(path)[1] != digest:
            raise StoreError(f"store {str(store)!r} is damaged: file {name!r} is not what was written; run it again.")
    tree = xr.open_datatree(store, engine="zarr", consolidated=False, chunks=None)
    return tree.map_over_datasets(_python_strings)


def _manifest(store: Path) -> dict[str, tuple[int, str]]:
    if not store.is_dir():
        raise StoreError(f"store {str(store)!r} does not exist.")
    try:
        manifest = json.loads(manifest_of(store).read_text())
        version, files = manifest["schema_version"], manifest["files"]
        entries = {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()}
    except FileNotFoundError as error:
        raise StoreError(f"store {str(store)!r} was never finished: it has no manifest; run it again.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"store {str(store)!r} has an unreadable manifest; run it again.") from error
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"store {str(store)!r} has schema version {version!r}; this installation reads {SCHEMA_VERSION}."
        )
    return entries


def _entry(path: Path) -> tuple[int, str]:
    return path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()


def _ensure_groups(store: Path, group: str) -> None:
    parts = group.split("/")[:-1]
    for depth in range(len(parts) + 1):
        folder = store.joinpath(*parts[:depth])
        if not (folder / "zarr.json").exists():
            zarr.open_group(folder, mode="a", zarr_format=3)


def _plain_strings(dataset: xr.Dataset) -> xr.Dataset:
    """Fixed-width string arrays have no settled Zarr 3 form (zarr warns), variable-width ones have."""
    changed = {
        name: variable.astype(object) for name, variable in dataset.variables.items() if variable.dtype.kind == "U"
    }
    return dataset.assign_coords({k: v for k, v in changed.items() if k in dataset.coords}).assign(
        {k: v for k, v in changed.items() if k not in dataset.coords}
    )


def _python_strings(dataset: xr.Dataset) -> xr.Dataset:
    """Names come back as plain `str` objects: plotting and data frames do not know NumPy's StringDType."""
    strings = {k: v.astype(object) for k, v in dataset.variables.items() if v.dtype.kind == "T"}
    if not strings:
        return dataset
    return dataset.assign_coords({k: v for k, v in strings.items() if k in dataset.coords}).assign(
        {k: v for k, v in strings.items() if k not in dataset.coords}
    )


def _encoding(dataset: xr.Dataset) -> dict[Hashable, dict[str, Any]]:
    """One chunk per unit and up to 100 examples inside few shards; everything else is small and one chunk."""
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, array in dataset.data_vars.items():
        if array.dims[:2] == ("example", "channel") and array.size:
            n, units = array.shape[:2]
            rest = array.shape[2:]
            per_chunk = min(100, n)
            per_shard = per_chunk * min(-(-n // per_chunk), _EXAMPLES_PER_SHARD // per_chunk)
            encoding[name] = {
                "chunks": (per_chunk, 1, *rest),
                "shards": (per_shard, min(_UNITS_PER_SHARD, units), *rest),
            }
        elif array.size:
            encoding[name] = {"chunks": array.shape} if array.shape else {}
    return encoding


def summary(tree: xr.DataTree) -> str:
    """One line per group: its name, dims with sizes, and variables."""
    lines = []
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        if dataset.data_vars:
            dims = ", ".join(f"{d} {n}" for d, n in dataset.sizes.items())
            lines.append(f"{node.path}  ({dims})  {', '.join(map(str, dataset.data_vars))}")
    return "\n".join(lines)


def tree_of(groups: Mapping[str, xr.Dataset]) -> xr.DataTree:
    """The same layout in memory, from a mapping of group path to data set."""
    return xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in groups.items()})


def same_values(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether every variable has equal bits; attributes (which hold times) are not compared."""
    if set(a.variables) != set(b.variables):
        return False
    return all(
        a[name].dims == b[name].dims and np.array_equal(a[name].values, b[name].values, equal_nan=_has_nan(a[name]))
        for name in a.variables
    )


def _has_nan(array: xr.DataArray) -> bool:
    return array.dtype.kind == "f"
