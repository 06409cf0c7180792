from __future__ import annotations

import numpy as np
import pytest

from cvi_widgets.errors import DataError
from cvi_widgets.metrics.factor_reader import fit_reader


def pictures(n, seed=0):
    """A bright square whose place is one factor and whose brightness is another; the third is seen nowhere."""
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.integers(0, 12, n), rng.integers(0, 3, n), rng.integers(0, 8, n)], axis=1)
    images = np.zeros((n, 1, 32, 32), np.float32)
    for image, (place, light, _) in zip(images, classes, strict=True):
        image[0, 10:20, 2 * place : 2 * place + 8] = (light + 1) / 3
    return images, classes


@pytest.fixture(scope="module")
def reader():
    return fit_reader(*pictures(1500), ("place", "light", "hidden"))


def test_what_can_be_seen_is_read_and_what_cannot_is_said(reader):
    assert (reader.r2[:2] > 0.9).all()
    assert reader.r2[2] < 0.1


def test_changes_are_those_of_the_factor_that_changed(reader):
    images, classes = pictures(200, seed=1)
    moved = np.roll(images, 4, axis=3)
    free = classes[:, 0] <= 9
    change = reader.change(reader.read(images), reader.read(moved))[free].mean(0)
    # Two classes of twelve, whose standard deviation is 3.45.
    assert change[0] == pytest.approx(2 / 3.45, rel=0.25)
    assert change[1] < change[0] / 2
    same = reader.change(reader.read(images), reader.read(images))
    assert (same[:, :2] == 0).all()
    # What is not read has no effect, neither large nor none.
    assert np.isnan(same[:, 2]).all()


def test_the_same_seed_gives_the_same_reader(reader):
    again = fit_reader(*pictures(1500), ("place", "light", "hidden"))
    np.testing.assert_array_equal(again.r2, reader.r2)


def test_a_factor_that_never_varies_has_no_quality_and_no_effect():
    images, classes = pictures(300)
    classes[:, 2] = 4
    found = fit_reader(images, classes, ("place", "light", "still"))
    assert np.isnan(found.r2[2])
    assert np.isnan(found.change(found.read(images[:9]), found.read(images[9:18]))[:, 2]).all()


def test_too_little_to_read_gets_a_sentence():
    with pytest.raises(DataError, match="at least 50 images"):
        fit_reader(*pictures(20), ("place", "light", "hidden"))
    images, classes = pictures(60)
    with pytest.raises(DataError, match=r"classes of shape \(60, 3\)"):
        fit_reader(images, classes, ("place",))
