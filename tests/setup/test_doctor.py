"""`cvi doctor` finds what is missing and says what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cvi_widgets import doctor
from cvi_widgets.doctor import Check


def found(name: str) -> Check:
    return next(check for check in doctor.diagnose() if check.name == name)


def pretend_version(monkeypatch: pytest.MonkeyPatch, name: str, version: str | None) -> None:
    genuine = importlib.metadata.version

    def fake(asked: str) -> str:
        if asked != name:
            return genuine(asked)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(importlib.metadata, "version", fake)


def test_this_environment_is_healthy_and_every_dependency_is_named(home: Path) -> None:
    checks = doctor.diagnose()
    assert doctor.healthy(checks)
    declared = [Requirement(line) for line in importlib.metadata.requires("cvi_widgets") or ()]
    wanted = {r.name for r in declared if not r.marker or r.marker.evaluate({"extra": ""})}
    names = [check.name for check in checks]
    assert len(wanted) > 30 and wanted <= set(names)
    assert len(names) == len(set(names))
    assert "pytest" not in names
    text = doctor.render(checks)
    assert text.endswith("Everything that cvi_widgets needs is here.")
    assert str(home / "runs") in text and str(home / "data") in text


@pytest.mark.parametrize(
    ("version", "sentence"),
    [(None, "not installed; zarr>=3"), ("2.18.1", "2.18.1 is too old; zarr>=3")],
)
def test_missing_or_old_dependency_gets_its_sentence(
    monkeypatch: pytest.MonkeyPatch, version: str | None, sentence: str
) -> None:
    pretend_version(monkeypatch, "zarr", version)
    checks = doctor.diagnose()
    assert not doctor.healthy(checks)
    zarr = next(check for check in checks if check.name == "zarr")
    assert sentence in zarr.detail and "pip install 'zarr>=3" in zarr.remedy
    text = doctor.render(checks)
    assert "MISSING  zarr " in text and zarr.remedy in text
    assert text.endswith("To repair: zarr.")


def test_newer_and_local_versions_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_version(monkeypatch, "torch", "3.1.0.dev20270101+cu140")
    assert found("torch").ok


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", fake)
    check = found("cvi_widgets")
    assert not check.ok and "pip install -e ." in check.remedy


def test_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check = found("torch device")
    assert not check.ok and check.required and "does not import" in check.detail


@pytest.mark.parametrize(
    ("flags", "fast"), [("avx2 avx512f avx512_bf16", True), ("fphp asimd bf16", True), ("avx2 avx512f", False)]
)
def test_bfloat16_that_is_emulated_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, fast: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse\n")
    monkeypatch.setattr(doctor, "_CPU_INFO", tmp_path / "cpuinfo")
    check = found("bfloat16")
    assert (check.ok, check.required) == (fast, False)
    assert ("slower than float32" in check.detail) is not fast
    monkeypatch.setattr(doctor, "_CPU_INFO", tmp_path / "elsewhere")
    assert "bfloat16" not in [check.name for check in doctor.diagnose()]


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    check = found("Python")
    assert not check.ok and "Python 3.11 or newer" in check.remedy


def test_folders_are_checked_and_not_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "a" / "b"))
    assert found("data folder").ok and found("runs folder").ok
    assert list(tmp_path.iterdir()) == []


def test_home_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "file"))
    check = found("runs folder")
    assert not check.ok and str(tmp_path / "file" / "runs") in check.detail and "CVI_HOME" in check.remedy


def test_home_without_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CVI_HOME", str(tmp_path))
    genuine = os.access  # root may write anywhere, so the answer is made up for this one folder
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and genuine(path, mode))
    assert "cannot be written" in found("data folder").detail


def test_full_disk(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 2 * 10**8, 2 * 10**8))
    assert not found("data folder").ok and "only 200 MB free, 500 MB are needed" in found("data folder").detail
    assert found("runs folder").ok


def test_kernel_of_another_python_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found("kernel python3").ok
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    check = found("kernel python3")
    assert not check.ok and "/opt/other/bin/python" in check.detail and "ipykernel install" in check.remedy


def test_chromium_is_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not found("Chromium").ok and doctor.healthy(doctor.diagnose())
    (tmp_path / "chromium-1234").mkdir()
    assert found("Chromium").detail == str(tmp_path / "chromium-1234")
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    assert not found("Chromium").ok and "/nowhere/chromium" in found("Chromium").detail


def test_lines_are_aligned_and_remedies_follow_what_fails() -> None:
    checks = [
        Check("a", True, "fine", "unused"),
        Check("longer", False, "gone", "fetch it."),
        Check("b", False, "no", "", False),
    ]
    assert doctor.render(checks).splitlines() == [
        "ok       a       fine",
        "MISSING  longer  gone",
        "                 -> fetch it.",
        "-        b       no",
        "",
        "To repair: longer.",
    ]
