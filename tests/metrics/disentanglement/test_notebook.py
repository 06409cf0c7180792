"""`05_metrics` runs, and what it says of the conventions is what its own table shows."""

from __future__ import annotations

import json
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "05_metrics.py"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = jupytext.read(NOTEBOOK)
    show = "import json\nprint(json.dumps([[*key, *row] for key, row in zip(side_by_side.index, side_by_side.values)]))"
    notebook.cells.append(nbformat.v4.new_code_cell(show))
    target = tmp_path_factory.mktemp("notebook") / "05.ipynb"
    return papermill.execute_notebook(notebook, target, {"examples": 1200, "latents": 7}, progress_bar=False)


def test_every_cell_ran_and_the_picture_is_there(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert sum("parameters" in cell.metadata.tags for cell in code) == 1
    drawn = [o for cell in code for o in cell.outputs if "text/html" in o.get("data", {})]
    assert any("The same codes under every convention" in json.dumps(o["data"]) for o in drawn)


def test_the_table_bears_the_reasons_out(executed):
    printed = executed.cells[-1].outputs[0]["text"]
    columns = ("perfect", "noisy", "rotated", "random")
    table = {
        f"{metric} [{convention}]": dict(zip(columns, values, strict=True))
        for metric, convention, *values in json.loads(printed)
    }
    assert table["mig [dlib]"]["perfect"] < 0.95 < table["mig [adjusted]"]["perfect"]
    assert table["mig [zaidi_discrete]"]["noisy"] < table["mig [dlib]"]["noisy"]
    assert table["sap [dlib]"]["perfect"] < 0.3 and table["sap [tree]"]["perfect"] > 0.9
    assert table["modularity [dlib]"]["random"] > 0.5
    assert table["irs [dlib]"]["random"] > table["irs [quantile]"]["random"] + 0.1
    permuted, bagged = table["dci_disentanglement [permuted]"], table["dci_disentanglement [bagged]"]
    assert permuted["noisy"] > bagged["noisy"] + 0.2
    assert table["beta_vae_score [active]"]["rotated"] > 0.7 > table["mig [adjusted]"]["rotated"]
