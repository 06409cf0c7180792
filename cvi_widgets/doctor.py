"""Is this installation complete, and where does it keep things? `cvi doctor` prints what this module finds.

Nothing is written, downloaded or repaired here: each check says what it saw and, where that is not enough, one thing to
do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from cvi_widgets import paths

_PYTHON = (3, 11)
_DATA_BYTES = 500e6
"""Room for all rendered dSprites (377 MB) and a little."""
_RUN_BYTES = 100e6
_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls arithmetic in bfloat16 on x86 and on ARM processors."""


@dataclass(frozen=True)
class Check:
    """One finding: `remedy` says what to do where `ok` is False, and what that costs where it is not `required`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def diagnose() -> list[Check]:
    """Every check, in the order in which a person would repair what fails."""
    return [
        _python(),
        *_dependencies(),
        *_torch(),
        *_bfloat16(),
        _folder("data", paths.data_dir(), _DATA_BYTES),
        _folder("runs", paths.runs_dir(), _RUN_BYTES),
        _kernel(),
        _notebooks(),
        _chromium(),
    ]


def healthy(checks: list[Check]) -> bool:
    """Whether every required check is fine; the command line exits with 1 when not."""
    return all(check.ok for check in checks if check.required)


def render(checks: list[Check]) -> str:
    """The checks as aligned lines, remedies under what needs them, and one sentence that sums up."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        mark = "ok" if check.ok else "MISSING" if check.required else "-"
        lines.append(f"{mark:<7}  {check.name:<{width}}  {check.detail}".rstrip())
        if not check.ok and check.remedy:
            lines.append(f"{'':<7}  {'':<{width}}  -> {check.remedy}")
    failed = [check.name for check in checks if check.required and not check.ok]
    total = "Everything that cvi_widgets needs is here." if not failed else f"To repair: {', '.join(failed)}."
    return "\n".join([*lines, "", total])


def _python() -> Check:
    wanted = ".".join(map(str, _PYTHON))
    remedy = f"install Python {wanted} or newer and install cvi_widgets there."
    detail = f"{platform.python_version()} at {sys.executable}"
    return Check("Python", sys.version_info[:2] >= _PYTHON, detail, remedy)


def _dependencies() -> Iterator[Check]:
    try:
        own = importlib.metadata.distribution("cvi_widgets")
    except importlib.metadata.PackageNotFoundError:
        yield Check("cvi_widgets", False, "imported from its sources, not installed", "run `pip install -e .` there.")
        return
    yield Check("cvi_widgets", True, f"{own.version} at {Path(__file__).parent}")
    for line in own.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _dependency(requirement)


def _dependency(requirement: Requirement) -> Check:
    wanted = f"{requirement.name}{requirement.specifier}"
    remedy = f"run `{Path(sys.executable).name} -m pip install '{wanted}'`."
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(requirement.name, False, f"not installed; {wanted} is needed", remedy)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check(requirement.name, False, f"{found} is too old; {wanted} is needed", remedy)
    return Check(requirement.name, True, found)


def _torch() -> Iterator[Check]:
    remedy = "reinstall torch; for a machine without an NVIDIA GPU its CPU build is enough."
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch device", False, f"torch does not import ({str(error).splitlines()[0]})", remedy)
        return
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("torch threads", True, f"{threads} on {cores} cores")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        more = f", one of {torch.cuda.device_count()}" if torch.cuda.device_count() > 1 else ""
        detail = f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB{more}; `--device cpu` leaves it alone"
    elif torch.version.cuda:
        detail = f"none that torch sees (built for CUDA {torch.version.cuda}); everything runs on the CPU"
    else:
        detail = "not used: this torch is a CPU build; everything runs on the CPU"
    yield Check("GPU", torch.cuda.is_available(), detail, required=False)


def _bfloat16() -> Iterator[Check]:
    """Whether the processor computes in bfloat16; where it does not, PyTorch emulates it, slower than float32."""
    try:
        words = set(_CPU_INFO.read_text().split())
    except OSError:
        return
    fast = bool(words & _BFLOAT16_FLAGS)
    detail = "in this processor" if fast else "not in this processor, so on the CPU it is slower than float32"
    yield Check("bfloat16", fast, detail, "leave `--precision` at its default, float32.", required=False)


def _folder(name: str, folder: Path, needed: float) -> Check:
    """Whether `folder` could be written, without creating it."""
    folder = folder.absolute()
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    said = "CVI_HOME" if paths.home() else "CVI_HOME is not set"
    remedy = "set CVI_HOME to a folder that can be written and has room."
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        return Check(f"{name} folder", False, f"{folder} cannot be written ({said})", remedy)
    free = shutil.disk_usage(standing).free
    fine = free >= needed
    room = f"{free / 1e9:.1f} GB free" if fine else f"only {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed"
    return Check(f"{name} folder", fine, f"{folder} ({said}), {room}", remedy)


def _kernel() -> Check:
    """Notebooks run in the kernel called `python3`; one that a person once installed elsewhere can hide this one."""
    remedy = f"run `{Path(sys.executable).name} -m ipykernel install --sys-prefix`."
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Check("kernel python3", False, f"cannot be looked for ({error})", "install what is missing above.")
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check("kernel python3", False, "not found; notebooks cannot run", remedy)
    # jupyter_client itself replaces a bare `python...` by the interpreter that asks.
    here = not os.path.isabs(command) or Path(command).absolute() == Path(sys.executable).absolute()
    detail = f"runs {sys.executable if here else command}"
    return Check("kernel python3", here, detail if here else f"{detail}, not this Python", remedy)


def _notebooks() -> Check:
    package = Path(str(importlib.resources.files("cvi_widgets")))
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        names = sorted(path.name for path in folder.glob("[0-9][0-9]_*.py"))
        if names:
            return Check("notebooks", True, f"{len(names)} in {folder}: {', '.join(names)}")
    return Check("notebooks", False, "none found beside the package or inside it", "install cvi_widgets again.")


def _chromium() -> Check:
    named = os.environ.get("CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        caches = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        cached = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or caches / "ms-playwright")
        found = next((str(path) for path in sorted(cached.glob("chromium-*"))), None)
    remedy = "only the tests of pages need it: install the package `chromium`, or run `playwright install chromium`."
    if named and not shutil.which(named):
        return Check("Chromium", False, f"CHROMIUM is {named}, which does not run", remedy, required=False)
    return Check("Chromium", bool(found), found or "not found", remedy, required=False)
