"""The store: what is written comes back, what was lost is noticed, nothing is half there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cvi_widgets.errors import StoreError
from cvi_widgets.results.store import (
    has_group,
    manifest_of,
    open_results,
    read_group,
    same_values,
    seal,
    summary,
    tree_of,
    write_group,
)


def _activations(n: int = 256, channels: int = 40) -> xr.Dataset:
    rng = np.random.default_rng(0)
    act = rng.random((n, channels, 4, 4)).astype(np.float16)
    return xr.Dataset({"act": (("example", "channel", "y", "x"), act, {"long_name": "activation", "units": "1"})})


def _table() -> xr.Dataset:
    return xr.Dataset(
        {"value": ("metric", [1.0, np.nan])},
        coords={"metric": ["a", "longer name"], "convention": ("metric", ["as published", "bounded"])},
        attrs={"draws": 100},
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "results.zarr"
    path.parent.mkdir()
    write_group(path, "activations/encoder.conv0", _activations())
    write_group(path, "metrics/run", _table())
    seal(path, {"seed": 3, "config": "{}"})
    return path


def test_values_names_and_attributes_come_back(store: Path) -> None:
    tree = open_results(store, verify=True)
    assert tree.attrs["schema_version"] == 1
    assert tree.attrs["seed"] == 3
    assert same_values(tree["activations/encoder.conv0"].to_dataset(), _activations())
    table = tree["metrics/run"].to_dataset()
    xr.testing.assert_identical(table.load(), _table().assign_coords(
        metric=np.array(["a", "longer name"], dtype=object),
        convention=("metric", np.array(["as published", "bounded"], dtype=object)),
    ))
    assert isinstance(table.metric.values[1], str)
    assert table.sel(metric="a").value.item() == 1.0


def test_a_unit_is_read_out_of_few_files(store: Path) -> None:
    files = list((store / "activations/encoder.conv0/act").rglob("*"))
    assert sum(f.is_file() for f in files) <= 3
    act = open_results(store)["activations/encoder.conv0"]["act"]
    np.testing.assert_array_equal(act.isel(channel=7), _activations().act.isel(channel=7))


def test_a_missing_chunk_is_not_read_as_fill_values(store: Path) -> None:
    chunk = next(p for p in store.rglob("c/*") if p.is_file())
    chunk.unlink()
    with pytest.raises(StoreError, match=r"is truncated: file '.*' is missing"):
        open_results(store)


def test_a_shortened_file_is_noticed(store: Path) -> None:
    chunk = next(p for p in store.rglob("c/**/*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"truncated: file '.*' has \d+ of \d+ bytes"):
        open_results(store)


def test_a_flipped_bit_is_noticed_when_asked(store: Path) -> None:
    chunk = next(p for p in store.rglob("c/**/*") if p.is_file())
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="is damaged"):
        open_results(store, verify=True)


def test_a_store_never_sealed_or_gone_or_newer_is_refused(store: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_results(store.with_name("nowhere.zarr"))
    manifest = manifest_of(store)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(StoreError, match="schema version 99; this installation reads 1"):
        open_results(store)
    manifest.write_text("{")
    with pytest.raises(StoreError, match="unreadable manifest"):
        open_results(store)
    manifest.unlink()
    with pytest.raises(StoreError, match="never finished"):
        open_results(store)


def test_a_group_is_replaced_whole_and_leaves_nothing_beside_it(store: Path) -> None:
    write_group(store, "metrics/run", _table().isel(metric=[0]))
    assert read_group(store, "metrics/run").sizes == {"metric": 1}
    assert [p.name for p in store.parent.iterdir() if p.name.startswith(".")] == []
    assert has_group(store, "metrics/run")
    assert not has_group(store, "metrics")


def test_a_failed_write_leaves_the_earlier_group(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full_disk)
    with pytest.raises(StoreError, match="No space left on device"):
        write_group(store, "metrics/run", _table().isel(metric=[0]))
    monkeypatch.undo()
    assert read_group(store, "metrics/run").sizes == {"metric": 2}


def test_the_summary_names_groups_dims_and_variables(store: Path) -> None:
    text = summary(open_results(store))
    assert "/activations/encoder.conv0  (example 256, channel 40, y 4, x 4)  act" in text
    assert "/metrics/run  (metric 2)  value" in text
    assert summary(tree_of({"metrics/run": _table()})) == "/metrics/run  (metric 2)  value"


def test_same_values_sees_every_difference() -> None:
    assert same_values(_table(), _table().assign_attrs(created="later"))
    assert not same_values(_table(), _table().fillna(0.0))
    assert not same_values(_table(), _table().drop_vars("value"))


def test_opening_never_needs_the_parents_name(store: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(store.parent, moved)
    assert open_results(moved / store.name, verify=True).attrs["seed"] == 3
