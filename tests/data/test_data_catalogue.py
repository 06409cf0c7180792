"""Data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cvi_widgets import data, paths
from cvi_widgets.config import DatasetName
from cvi_widgets.errors import DataError


@pytest.mark.parametrize("name", ["dsprites", "scm-dsprites"])
def test_every_data_set_keeps_the_protocol(name: str) -> None:
    loaded = data.load(name)
    assert isinstance(loaded, data.FactorData)
    assert loaded.name == name
    rng = np.random.default_rng(0)
    index = loaded.sample(32, rng)
    assert loaded.images(index, "float32").shape == (32, *loaded.image_shape)
    assert loaded.images(index, "float32").max() == 1
    assert np.array_equal(loaded.index(loaded.factors(index)), index)
    for factor in loaded.factor_names:
        pairs = loaded.pairs(factor, 20, rng)
        alike = (loaded.images(pairs.base) == loaded.images(pairs.source)).all(axis=(1, 2, 3))
        assert not alike.any()
    assert "re-rendered" in loaded.provenance
    assert loaded.licence == "Apache-2.0"


def test_loading_twice_gives_the_same_object_also_through_a_link(home: Path) -> None:
    here = data.load("dsprites")
    assert data.load("dsprites") is here
    assert data.load("dsprites", scm="nonlinear") is here
    assert data.load("scm-dsprites") is not data.load("scm-dsprites", scm="nonlinear")
    assert data.load("scm-dsprites").pixels is here.pixels


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: data.load("dsprite"),
            f"dataset 'dsprite' is unknown; allowed are {', '.join(get_args(DatasetName))}; did you mean dsprites?",
        ),
        (
            lambda: data.load("scm-dsprites", scm="liner"),  # type: ignore[arg-type]
            "scm 'liner' is unknown; allowed are linear, nonlinear; did you mean linear?",
        ),
        (
            lambda: data.load("dsprites", data_path="x.npz"),
            "data_path is 'x.npz', but dataset 'dsprites' is re-rendered and reads no file; "
            "did you mean dataset dsprites-official?",
        ),
    ],
)
def test_wrong_names_are_said_in_one_sentence(call, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) == sentence


def test_the_table_lists_all_and_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "empty"))
    table = data.describe()
    assert table.index.tolist() == list(get_args(DatasetName))
    assert not table["present"].any()
    assert not (tmp_path / "empty").exists()
    sprites = table["factors"][["dsprites", "dsprites-official", "scm-dsprites"]]
    assert sprites.unique().tolist() == ["shape 3, scale 6, orientation 40, posX 32, posY 32"]
    assert not table.drop(columns="present").isin([""]).any().any()
    assert all(sentence.endswith(".") for sentence in table["provenance"])
    assert all(Path(file).is_relative_to(paths.data_dir()) for file in table["file"])


def test_the_table_sees_what_is_there() -> None:
    data.load("dsprites")
    present = data.describe()["present"]
    assert present[present].index.tolist() == ["dsprites", "scm-dsprites"]
