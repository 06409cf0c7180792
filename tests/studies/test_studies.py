"""Studies: the grid is checked whole before anything runs; the three notebooks make one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvi_widgets import studies
from cvi_widgets.config import RunConfig
from cvi_widgets.errors import CviError
from cvi_widgets.results import RunDirectory
from cvi_widgets.studies import runner, sweep
from cvi_widgets.studies.grid import StudyConfig, load_study, shipped_studies


def _study(**changes: object) -> StudyConfig:
    content = {
        "name": "mine",
        "datasets": ["dsprites", "scm-dsprites"],
        "models": {"vae": {}, "beta_vae": {"beta": 6.0}},
        "seeds": [0, 1],
        "settings": {"preset": "smoke"},
    }
    return StudyConfig.model_validate({**content, **changes})


def test_the_grid_is_every_combination_with_seed_fastest() -> None:
    runs = list(_study().runs())
    assert len({c.run_id for c in runs}) == len(runs) == 8
    assert [c.seed for c in runs[:4]] == [0, 1, 0, 1]
    assert [c.model.model for c in runs[:4]] == ["vae", "vae", "beta_vae", "beta_vae"]
    assert {c.study for c in runs} == {"mine"}
    assert {c.preset for c in runs} == {"smoke"}
    assert runs[2].flat()["beta"] == 6.0


def test_every_shipped_study_is_valid() -> None:
    assert "smoke" in shipped_studies()
    for name in shipped_studies():
        assert load_study(name).name == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1, 2]", "does not hold a mapping"),
        ("name: [", "no readable YAML"),
        ("name: a\ndatasets: []\nmodels: {vae: {}}\nseeds: [0]", "datasets"),
        ("name: a\ndatasets: [dsprite]\nmodels: {vae: {}}\nseeds: [0]", "did you mean dsprites"),
        ("name: a\ndatasets: [dsprites]\nmodels: {vae: {}}\nseeds: [0]\nseed: 3", "did you mean seeds"),
        ("name: a\ndatasets: [dsprites]\nmodels: {vae: {}}\nseeds: [-1]", "'seed' is -1"),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(CviError, match=words) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


def test_the_joined_notebook_has_one_parameters_cell_with_every_parameter() -> None:
    notebook = runner.joined_notebook()
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for name in ("dataset", "model", "settings", "folder", "interactive"):
        assert f"\n{name} = " in f"\n{tagged[0].source}"
    headings = [c.source.splitlines()[0] for c in notebook.cells if c.source.startswith("# ")]
    assert headings == ["# 1. Train", "# 2. Intervene", "# 3. Report"]
    position = notebook.cells.index(tagged[0])
    assert all(c.cell_type == "markdown" for c in notebook.cells[:position])


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def pretend(config: RunConfig, folder: Path | None, *, progress: bool) -> None:
        seen.append(config.run_id)
        if config.seed == 0:
            raise runner.RunError("diverged at step 3.", RunDirectory.of(config, folder), 3)

    monkeypatch.setattr(sweep, "execute", pretend)
    study = _study(datasets=["dsprites"], models={"vae": {}})
    outcomes = studies.run_study(study, tmp_path, progress=False)
    assert seen == [c.run_id for c in study.runs()]
    assert [o.error for o in outcomes] == ["diverged at step 3.", ""]


def test_ctrl_c_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: RunConfig, folder: Path | None, *, progress: bool) -> None:
        raise runner.RunError("interrupted.", RunDirectory.of(config, folder), runner.EXIT_INTERRUPTED)

    monkeypatch.setattr(sweep, "execute", interrupted)
    with pytest.raises(runner.RunError, match="interrupted"):
        studies.run_study(_study(), tmp_path, progress=False)
