"""pyproject.toml, environment.yml and constraints.txt tell one story about what is needed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}
"""Names on conda-forge that differ from those on PyPI."""
CONDA_ONLY = {"python", "pip"}


def parsed(lines: list[str]) -> dict[str, SpecifierSet]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def constraints() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = [re.fullmatch(r"([a-z0-9-]+)==([^\s+@]+)", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {pin[1]: Version(pin[2]) for pin in pins if pin}


def test_conda_and_pip_need_the_same_with_the_same_bounds() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = parsed([entry for entry in conda["dependencies"] if isinstance(entry, str)])
    ours = {
        canonicalize_name(CONDA_NAMES.get(name, name)): spec for name, spec in parsed(PROJECT["dependencies"]).items()
    }
    assert {name: spec for name, spec in listed.items() if name not in CONDA_ONLY} == ours
    assert listed["python"] == SpecifierSet(PROJECT["requires-python"])
    assert [entry for entry in conda["dependencies"] if isinstance(entry, dict)] == [{"pip": ["-e ."]}]


def test_no_dependency_is_listed_twice_or_capped() -> None:
    names = [canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]]
    assert len(names) == len(set(names))
    everything = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert {clause.operator for line in everything for clause in Requirement(line).specifier} == {">="}
    assert parsed(PROJECT["dependencies"])["torch"] == SpecifierSet(">=2.4")


def test_constraints_have_torch_first_and_allow_what_pyproject_asks() -> None:
    pins = constraints()
    assert next(iter(pins.items())) == ("torch", Version("2.13.0"))
    # The peers of the benchmarks are installed by hand, and newer ones are what one wants to be compared with.
    extras = [x for name, extra in PROJECT["optional-dependencies"].items() if name != "bench" for x in extra]
    wanted = parsed([*PROJECT["dependencies"], *extras])
    for name, specifier in wanted.items():
        if name != "cvi-widgets":
            assert name in pins, f"{name} is not in constraints.txt; run `make lock`"
            assert specifier.contains(pins[name], prereleases=True), (name, pins[name], str(specifier))


def test_constraints_cover_everything_that_is_pulled_in() -> None:
    """What `make lock` would write has the same names, so nothing that is installed here floats."""
    pulled = runpy.run_path(str(ROOT / ".ci" / "lock.py"))["closure"](Requirement("cvi_widgets[dev]"))
    assert len(pulled) > 100
    assert set(pulled) <= set(constraints())


def test_constraints_name_no_host_and_no_local_build() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text and not re.search(r"==\S*\+", text)
    assert text.index("make lock") < text.index("torch==")


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports and cannot go on without."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    excused = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any(getattr(h.type, "id", "") == "ImportError" for h in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in set(ast.walk(tree)) - excused:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", ["cvi_widgets", "notebooks"])
def test_whatever_is_imported_is_declared(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    owners = importlib.metadata.packages_distributions()
    declared = {*parsed(PROJECT["dependencies"]), "cvi-widgets"}
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path) - set(sys.stdlib_module_names) - {"cvi_widgets"}
        if not declared & {canonicalize_name(owner) for owner in owners.get(name, [name])}
    }
    assert undeclared == set()


def setup(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up script of a copied checkout."""
    script = checkout / ".ci" / "setup"
    script.parent.mkdir()
    script.write_bytes((ROOT / ".ci" / "setup").read_bytes())
    variables = {**os.environ, **environment}
    return subprocess.run(["sh", str(script)], env=variables, capture_output=True, text=True, check=False)


def test_set_up_refuses_an_old_python_in_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$*" in *platform*) echo 3.9.2 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    done = setup(checkout, PYTHON=str(old))
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr and "3.9.2" in done.stderr and "make PYTHON=" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_set_up_refuses_an_unknown_torch_in_one_sentence(tmp_path: Path) -> None:
    done = setup(tmp_path, TORCH="rocm")
    assert done.returncode == 2
    assert "TORCH is 'rocm'; allowed are cpu, default" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_browser_that_is_named_and_does_not_run_is_said(tmp_path: Path) -> None:
    named = {**os.environ, "CHROMIUM": str(tmp_path / "chromium")}
    done = subprocess.run(["sh", ROOT / ".ci" / "browser"], env=named, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"CHROMIUM is '{tmp_path / 'chromium'}', which does not run; name another or unset it.\n"


def test_make_without_a_target_says_what_there_is() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "lab", "dashboard", "study", "lock", "clean", "help"):
        assert re.search(rf"^  make {target}\s+\S", done.stdout, re.MULTILINE), target


def test_clean_never_touches_results(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for kept in ("runs/default/a/results.zarr", "reports/old", "notebooks"):
        (tmp_path / kept).mkdir(parents=True)
    (tmp_path / "notebooks" / "01_train.ipynb").write_text("edited")
    for gone in (".venv/bin", ".mypy_cache", ".pytest_cache", "dist", "cvi_widgets/__pycache__"):
        (tmp_path / gone).mkdir(parents=True)
    subprocess.run(["make", "--no-print-directory", "clean"], cwd=tmp_path, capture_output=True, check=True)
    left = {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() or not any(path.iterdir())
    }
    assert left == {
        "Makefile",
        "cvi_widgets",
        "notebooks/01_train.ipynb",
        "reports/old",
        "runs/default/a/results.zarr",
    }
