"""The factor grid and what stands on it: addressing, pairs, splits, identical pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvi_widgets.data import BytePixels, FactorData, FactorGrid, GridData, PackedPixels
from cvi_widgets.data.pixels import find_twins
from cvi_widgets.errors import DataError

sizes_strategy = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def grid_of(sizes: list[int]) -> FactorGrid:
    return FactorGrid({f"f{i}": np.linspace(0, 1, size) for i, size in enumerate(sizes)})


def toy(sizes: list[int], pixels: np.ndarray | None = None) -> GridData:
    grid = grid_of(sizes)
    images = np.arange(len(grid), dtype=np.uint16).view(np.uint8).reshape(len(grid), 1, 1, 2)
    source = BytePixels(images if pixels is None else pixels)
    return GridData("toy", grid, source, provenance="Drawn in this test.", licence="CC0-1.0")


@given(sizes_strategy)
def test_index_and_factors_are_inverse_and_the_last_factor_is_fastest(sizes: list[int]) -> None:
    grid = grid_of(sizes)
    index = np.arange(len(grid))
    factors = grid.factors(index)
    assert np.array_equal(grid.index(factors), index)
    weights = [int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))]
    assert np.array_equal(factors @ np.array(weights), index)
    assert factors.max(axis=0).tolist() == [s - 1 for s in sizes]


@given(sizes_strategy, st.integers(0, 2**32 - 1))
def test_a_changed_factor_changes_alone_and_always(sizes: list[int], seed: int) -> None:
    grid = grid_of([*sizes, 3])
    rng = np.random.default_rng(seed)
    base = grid.sample(50, rng)
    for column, (name, size) in enumerate(zip(grid.names, grid.sizes, strict=True)):
        if size > 1:
            differ = grid.factors(base) != grid.factors(grid.changed(base, name, rng))
            assert differ[:, column].all()
            assert not np.delete(differ, column, axis=1).any()


def test_every_other_class_is_equally_likely() -> None:
    grid = grid_of([5])
    source = grid.changed(np.full(40_000, 2), "f0", np.random.default_rng(0))
    counts = np.bincount(source, minlength=5)
    assert counts[2] == 0
    assert np.all(np.abs(counts[[0, 1, 3, 4]] - 10_000) < 5 * np.sqrt(10_000))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda g: g.factors([12]), "index has 12; allowed are 0 to 11."),
        (lambda g: g.factors([-1, 3]), "index has -1; allowed are 0 to 11."),
        (lambda g: g.factors([[1, 2]]), "index has shape (1, 2); a vector of image numbers is needed."),
        (lambda g: g.factors([0.5]), "index has values of type float64; whole numbers are needed."),
        (lambda g: g.index([[0, 0]]), "factors have shape (1, 2); allowed is (n, 3) for shape, scale, posX."),
        (lambda g: g.index([[0, 3, 0]]), "factor 'scale' has class 3; allowed are 0 to 2."),
        (
            lambda g: g.column("scales"),
            "factor 'scales' is unknown; allowed are shape, scale, posX; did you mean scale?",
        ),
        (lambda g: g.sample(0, np.random.default_rng(0)), "n is 0; a whole number of at least 1 is needed."),
        (lambda g: g.sample(1.5, np.random.default_rng(0)), "n is 1.5; a whole number of at least 1 is needed."),
        (lambda g: FactorGrid({}), "factors are empty; a grid needs at least one factor."),
        (
            lambda g: FactorGrid({"shape": [0, np.nan]}),
            "factor 'shape' has values of shape (2,); a finite, filled list is needed.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(call, sentence: str) -> None:
    grid = FactorGrid({"shape": [0, 1], "scale": [0, 1, 2], "posX": [0, 1]})
    with pytest.raises(DataError) as caught:
        call(grid)
    assert str(caught.value) == sentence


def test_a_grid_is_frozen() -> None:
    levels = np.array([0.0, 1.0])
    grid = FactorGrid({"a": levels})
    levels[0] = 7
    assert grid.values["a"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        grid.values["a"][0] = 3


def test_grid_data_is_factor_data() -> None:
    data = toy([2, 3])
    assert isinstance(data, FactorData)
    assert data.factor_sizes == (2, 3)
    assert len(data) == 6
    assert "f0 2, f1 3" in repr(data)


def test_bytes_are_scaled_and_bits_are_not() -> None:
    images = np.array([0, 51, 255], dtype=np.uint8).reshape(3, 1, 1, 1)
    read = BytePixels(images).read(np.array([2, 1]), "float32")
    assert read.dtype == np.float32
    assert read.ravel().tolist() == pytest.approx([1.0, 0.2])

    pattern = np.random.default_rng(0).integers(0, 2, (5, 1, 3, 5), dtype=np.uint8)
    packed = PackedPixels(np.packbits(pattern.reshape(5, -1), axis=1), (1, 3, 5))
    assert np.array_equal(packed.read(np.array([4, 0]), "uint8"), pattern[[4, 0]])
    assert np.array_equal(packed.read(np.array([4, 0]), "float32"), pattern[[4, 0]].astype(np.float32))
    with pytest.raises(DataError, match=r"dtype 'float23' is unknown; .* did you mean float32"):
        packed.read(np.array([0]), "float23")  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_twins_agree_with_a_comparison_of_all_rows(n: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 2, (n, width), dtype=np.uint8) * np.uint8(128)
    slow = [next(j for j in range(n) if np.array_equal(rows[j], rows[i])) for i in range(n)]
    assert find_twins(rows).tolist() == slow


def test_a_digest_that_merges_different_rows_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from cvi_widgets.data import pixels

    honest, seeds = pixels._digests, []

    def first_is_useless(rows: np.ndarray, seed: int) -> np.ndarray:
        seeds.append(seed)
        return np.zeros(len(rows), dtype=np.uint64) if seed == 0 else honest(rows, seed)

    monkeypatch.setattr(pixels, "_digests", first_is_useless)
    rows = np.array([[1, 2], [3, 4], [1, 2], [3, 4]], dtype=np.uint8)
    assert find_twins(rows).tolist() == [0, 1, 0, 1]
    assert seeds == [0, 1]


@given(st.integers(1, 20), st.integers(0, 1000))
def test_no_picture_is_on_both_sides_of_a_split(test: int, seed: int) -> None:
    # 40 cells that show only 13 different pictures
    pictures = np.random.default_rng(1).integers(0, 13, 40, dtype=np.uint8).reshape(40, 1, 1, 1)
    data = toy([8, 5], pictures)
    try:
        split = data.split(test, seed)
    except DataError as error:
        assert "leaves no image to learn from" in str(error)
        return
    assert len(split.test) == test == len(set(split.test.tolist()))
    assert not set(pictures[split.train].ravel().tolist()) & set(pictures[split.test].ravel().tolist())
    assert np.array_equal(split.train, np.unique(split.train))
    unseen = set(range(40)) - set(split.train.tolist()) - set(split.test.tolist())
    held = set(pictures[split.test].ravel().tolist())
    assert all(pictures[i].item() in held for i in unseen)


def test_a_split_is_decided_by_its_seed() -> None:
    data = toy([10, 10])
    first, again, other = data.split(10, 3), data.split(10, 3), data.split(10, 4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.test, other.test)
    for test in (0, 100):
        with pytest.raises(DataError, match=r"^test is "):
            data.split(test, 0)


def test_pairs_that_look_alike_are_drawn_again() -> None:
    # Classes 0 and 3 of f1 look the same, as the first and last orientation of dSprites do.
    shown = np.array([0, 1, 2, 0, 10, 11, 12, 10], dtype=np.uint8).reshape(8, 1, 1, 1)
    data = toy([2, 4], shown)
    pairs = data.pairs("f1", 2000, np.random.default_rng(0))
    assert len(pairs.base) == len(pairs.source) == 2000
    assert (shown[pairs.base] != shown[pairs.source]).all()
    differ = data.factors(pairs.base) != data.factors(pairs.source)
    assert differ.tolist() == [[False, True]] * 2000

    with pytest.raises(DataError, match="factor 'f0' changes no pixel of data set 'toy'"):
        toy([2, 2], np.zeros((4, 1, 1, 1), dtype=np.uint8)).pairs("f0", 4, np.random.default_rng(0))
    with pytest.raises(DataError, match="factor 'f1' has a single class"):
        toy([2, 1]).pairs("f1", 4, np.random.default_rng(0))


def test_images_and_factors_must_fit() -> None:
    with pytest.raises(DataError, match="data set 'toy' has 3 images; its factors need 4"):
        toy([4], np.zeros((3, 1, 1, 1), dtype=np.uint8))
