"""Imports go down only, and looking and measuring need no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cvi_widgets"
LAYERS = (
    ("errors", "names", "paths", "config", "model_config"),
    ("results", "objectives", "models", "data", "metrics"),
    ("views", "training", "interventions"),
    ("report",),
    ("runs",),
    ("stages",),
    ("dashboards",),
    ("studies", "doctor"),
    ("cli",),
)
"""Rooms from the ground up; a room imports from itself and from lower layers, the ground layer also from itself."""
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """Full names of everything that a module imports, wherever in the file; `from a import b` counts as a and a.b."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return names


def own(module: str) -> set[str]:
    """Modules of ours that a module imports."""
    return imports(module) & set(MODULES) - {"cvi_widgets", module}


def room(module: str) -> str:
    return module.split(".")[1]


def reached(module: str) -> set[str]:
    """Every module of ours that importing `module` can bring in, packages on the way included."""
    seen: set[str] = set()
    queue = {module}
    while queue:
        here = queue.pop()
        seen.add(here)
        parts = here.split(".")
        parents = {".".join(parts[:n]) for n in range(2, len(parts))}
        queue |= (own(here) | parents) - seen
    return seen


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in MODULES if module != "cvi_widgets"} <= set(HEIGHT)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "cvi_widgets"])
def test_imports_go_down_only(module: str) -> None:
    here = room(module)
    allowed = {name for name, height in HEIGHT.items() if height < max(HEIGHT[here], 1)} | {here}
    assert {target for target in own(module) if room(target) not in allowed} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if module != "cvi_widgets"])
def test_rooms_do_not_come_in_by_the_front_door(module: str) -> None:
    """`from cvi_widgets import patch` inside the package would hide which room it needs."""
    names = {name for name in imports(module) if name.rpartition(".")[0] == "cvi_widgets"}
    assert names - set(MODULES) - {"cvi_widgets.__version__"} == set()


@pytest.mark.parametrize("pure", ["metrics", "views"])
def test_measuring_and_looking_import_no_torch_and_no_models(pure: str) -> None:
    modules = {name for start in MODULES if start != "cvi_widgets" and room(start) == pure for name in reached(start)}
    assert {name for name in modules if room(name) in {"models", "objectives", "training", "interventions"}} == set()
    assert {name for name in modules if any(target.split(".")[0] == "torch" for target in imports(name))} == set()


@pytest.mark.parametrize("pure", ["metrics", "views"])
def test_torch_does_not_come_in_by_a_side_door(pure: str) -> None:
    """What is true of the sources is true of a fresh interpreter, third parties included."""
    code = f"import sys, cvi_widgets.{pure}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_package_itself_imports_in_no_time() -> None:
    """The front door is lazy, so `cvi --help` and `cvi doctor` start without torch, xarray or panel."""
    code = (
        "import sys, cvi_widgets.cli; print(sorted({'torch', 'xarray', 'panel', 'scipy', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
