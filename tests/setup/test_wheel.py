"""The built wheel is complete: away from the checkout it runs the main job."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def call(*command: str | Path, **options: object) -> str:
    """Output of a command that must succeed; what it said is in the failure otherwise."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, (
        f"{command[:4]} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with nothing but the wheel, which borrows third parties from the environment of the tests.

    The line that lends them names a folder; the editable checkout, itself such a line in that folder, is not seen.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    # Before the loan, lest pip takes the lent folder's cvi_widgets for an installed one.
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def test_wheel_holds_the_package_its_data_and_the_notebooks(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cvi_widgets").rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }
    notebooks = {f"cvi_widgets/_notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.py")}
    metadata = {name for name in names if ".dist-info/" in name}
    assert {"cvi_widgets/py.typed", "cvi_widgets/studies/smoke.yaml"} <= package
    assert {f"cvi_widgets/_notebooks/{n}.py" for n in ("01_train", "02_interventions", "03_report")} <= notebooks
    assert names - metadata == package | notebooks
    assert any(name.endswith("/LICENSE") for name in metadata)


def test_wheel_says_what_it_needs_and_offers_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        read = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name
        }
    assert "Requires-Python: >=3.11" in read["METADATA"]
    assert "License-Expression: Apache-2.0" in read["METADATA"]
    assert "Requires-Dist: torch>=2.4\n" in read["METADATA"]
    assert "cvi = cvi_widgets.cli:main" in read["entry_points.txt"]


def test_wheel_in_an_empty_environment_runs_the_main_job(empty_python: Path, home: Path, tmp_path: Path) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
        "HOME": str(tmp_path),
        "CVI_HOME": str(home),
        # An installer would have copied Jupyter's shared files into the new environment; this lends them too.
        "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
    }
    options = {"cwd": tmp_path, "env": variables}
    cvi = empty_python.parent / "cvi"

    where = call(empty_python, "-c", "import cvi_widgets; print(cvi_widgets.__file__)", **options)
    assert empty_python.parents[1] in Path(where.strip()).parents

    said = call(cvi, "doctor", **options)
    assert "Everything that cvi_widgets needs is here." in said
    assert str(Path("cvi_widgets") / "_notebooks") in said

    call(cvi, "run", "dsprites", "beta_vae", "--preset", "smoke", "--quiet", **options)
    (run,) = (home / "runs" / "default").glob("dsprites-beta_vae-*")
    assert (run / "model.safetensors").stat().st_size > 100_000
    assert (run / "results.zarr" / "zarr.json").exists()
    assert "<html" in (run / "report.html").read_text()[:2000].lower()
    assert str(run / "report.html") in call(
        cvi, "run", "dsprites", "beta_vae", "--preset", "smoke", "--quiet", **options
    )
