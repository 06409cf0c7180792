from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def planted() -> ModuleType:
    """The module that makes codes with known scores; loaded by its path, since test folders are no packages."""
    spec = importlib.util.spec_from_file_location("cvi_tests_planted", Path(__file__).parent / "planted.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
