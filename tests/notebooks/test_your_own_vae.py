"""Notebook 04 is executed as a reader would: with the libraries it speaks of, and without them."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import papermill
import pytest
from nbformat import NotebookNode

import cvi_widgets as cvi

SOURCE = Path(__file__).parents[2] / "notebooks" / "04_your_own_vae.py"
LIBRARIES = ("pythae VAE", "pythae VQVAE", "diffusers AutoencoderKL", "diffusers VQModel")


def executed(notebook: NotebookNode, folder: Path) -> list[NotebookNode]:
    """Code cells of the notebook after a run with next to no training."""
    done = papermill.execute_notebook(
        notebook,
        str(folder / "done.ipynb"),
        parameters={"steps": 3, "pairs": 6},
        kernel_name="python3",
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    return [cell for cell in done.cells if cell.cell_type == "code"]


def printed(cells: list[NotebookNode], stream: str = "stdout") -> str:
    return "".join(o.text for c in cells for o in c.outputs if o.output_type == "stream" and o.name == stream)


def shown(cells: list[NotebookNode]) -> str:
    """Plain text of everything that is displayed."""
    return "\n".join(o.data.get("text/plain", "") for c in cells for o in c.outputs if "data" in o)


def pictures(cells: list[NotebookNode]) -> int:
    return sum("application/vnd.holoviews_exec.v0+json" in o.get("data", {}) for c in cells[3:] for o in c.outputs)


def test_every_library_goes_through_every_call(tmp_path: Path) -> None:
    notebook = jupytext.read(SOURCE)
    assert sum("parameters" in c.metadata.get("tags", []) for c in notebook.cells) == 1
    cells = executed(notebook, tmp_path)
    assert all(c.execution_count for c in cells)
    assert printed(cells, "stderr") == ""
    said = printed(cells)
    assert "not installed" not in said
    for name in ("MyVAE", *LIBRARIES):
        # Explained, and planned.
        assert f"{name}: At latent." in said
        assert f"{name}: 6 pairs, 6 at a time" in said
    assert said.count("At latent.code, set all codebooks to code") == 2
    effects = shown(cells[-2:-1])
    assert [name in effects for name in LIBRARIES] == [True] * 4
    assert "ces_code_l2" in effects and "snapped" in effects
    assert pictures(cells) == 8


def test_without_the_libraries_it_says_how_to_get_them_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # None in this table is how Python marks a module that cannot be imported.
    for name in ("pythae", "pythae.models", "diffusers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(cvi, "setup", lambda: None)
    cells = [c for c in jupytext.read(SOURCE).cells if c.cell_type == "code"]
    names: dict[str, object] = {}
    for cell in cells[:-1]:
        source = "steps, pairs, seed = 1, 4, 0" if "parameters" in cell.metadata.get("tags", []) else cell.source
        exec(compile(source, "notebook", "exec"), names)
    said = capsys.readouterr().out
    for name in ("pythae", "diffusers"):
        assert f"{name} is not installed, so its part is left out; `pip install {name}` brings it." in said
    assert said.count("At latent.mu, add 2 to unit 0.") == 1
    *work, last = cells[-1].source.rpartition("\n")
    exec(compile("".join(work), "notebook", "exec"), names)
    assert "No discrete model is here" in eval(last, names)
