"""The synthetic run for the tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(path: Path) -> ModuleType:
    name = f"cvi_tests_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes synthetic runs."""
    return _load(Path(__file__).parents[1] / "report" / "synthetic.py")


@pytest.fixture(scope="session")
def run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One synthetic run with a known causal graph, read by all tests."""
    return synthetic.synthetic_run(tmp_path_factory.mktemp("run"), scm=True)
