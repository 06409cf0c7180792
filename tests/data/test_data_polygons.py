"""The rasteriser against exact rational arithmetic, pixel by pixel."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cvi_widgets.data import dsprites, polygons

coordinate = st.integers(-300, 64 * 256 + 300)
outlines = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)


def slow_fill(points: list[tuple[int, int]]) -> np.ndarray:
    """On where a ray to the left of the centre meets the outline an odd number of times."""
    image = np.zeros((64, 64), dtype=np.uint8)
    for row in range(64):
        y = 256 * row + 128
        met = []
        for (xa, ya), (xb, yb) in zip(points, points[1:] + points[:1], strict=True):
            if min(ya, yb) < y <= max(ya, yb):
                met.append(xa + Fraction((y - ya) * (xb - xa), yb - ya))
        for column in range(64):
            image[row, column] = sum(x <= 256 * column + 128 for x in met) % 2
    return image


def fast_fill(points: list[tuple[int, int]]) -> np.ndarray:
    x, y = np.array(points).T[:, None, :]
    return np.unpackbits(polygons.to_bytes(polygons.rasterise(x, y))[0, 0]).reshape(64, 64)


@settings(max_examples=40, deadline=None)
@given(outlines)
def test_any_polygon_is_filled_exactly(points: list[tuple[int, int]]) -> None:
    assert np.array_equal(fast_fill(points), slow_fill(points))


def test_on_an_edge_left_and_lower_are_in_right_and_upper_are_out() -> None:
    # Corners on the centres of pixels 10 and 13: columns 10-12 and rows 11-13 (y points down).
    low, high = 10 * 256 + 128, 13 * 256 + 128
    image = fast_fill([(low, low), (high, low), (high, high), (low, high)])
    rows, columns = np.nonzero(image)
    assert set(columns.tolist()) == {10, 11, 12}
    assert set(rows.tolist()) == {11, 12, 13}
    assert image.sum() == 9


def test_a_polygon_without_area_draws_nothing() -> None:
    assert fast_fill([(100, 100), (100, 100), (100, 100)]).sum() == 0
    assert fast_fill([(5, 130), (9000, 130), (700, 130)]).sum() == 0


def test_offsets_are_combined() -> None:
    x = np.array([[0, 512, 256], [1024, 1536, 1280]])
    y = np.array([[0, 0, 512], [256, 256, 768], [2560, 2560, 3072]])
    images = polygons.rasterise(x, y)
    assert images.shape == (2, 3, 64)
    for i in range(2):
        for j in range(3):
            alone = polygons.rasterise(x[i : i + 1], y[j : j + 1])
            assert np.array_equal(images[i, j], alone[0, 0])


def test_sprites_are_filled_exactly() -> None:
    rng = np.random.default_rng(0)
    for shape, scale, orientation in ((0, 5, 7), (1, 2, 13), (2, 5, 3), (2, 0, 29)):
        x, y = dsprites.vertices(shape, scale, orientation)
        images = np.unpackbits(polygons.to_bytes(polygons.rasterise(x, y)), axis=-1).reshape(32, 32, 64, 64)
        for i, j in rng.integers(0, 32, (4, 2)):
            points = [(int(a), int(b)) for a, b in zip(x[i], y[j], strict=True)]
            assert np.array_equal(images[i, j], slow_fill(points))
