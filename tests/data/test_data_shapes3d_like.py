"""The stand-in for 3D Shapes beside genuine frames.

`shapes3d_frames.npz` holds 50 frames of the authors' set, recovered from the figures of their notebook (Apache-2.0, The
DeepMind authors); their classes are estimates, scale and orientation may be off by one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvi_widgets.data import raycast, shapes3d, shapes3d_like
from cvi_widgets.data.protocol import FactorData

FRAMES = Path(__file__).parent / "shapes3d_frames.npz"


@pytest.fixture(scope="module")
def frames():
    with np.load(FRAMES, allow_pickle=False) as stored:
        return stored["images"], stored["estimated_classes"]


@pytest.fixture(scope="module")
def views(frames):
    """Pixels whose views are cast where the frames need them, and dark elsewhere."""
    _, classes = frames
    sizes = shapes3d_like.GRID.sizes[3:]
    cast = np.zeros((int(np.prod(sizes)), 64 * 64 * 5), np.uint8)
    values = list(shapes3d_like.GRID.values.values())[3:]
    for at in {tuple(row) for row in classes[:, 3:].tolist()}:
        scale, shape, degrees = (float(v[k]) for v, k in zip(values, at, strict=True))
        light = raycast.weights(scale, int(shape), degrees)
        cast[np.ravel_multi_index(at, sizes)] = np.rint(255 * light).astype(np.uint8).reshape(-1)
    return shapes3d_like.Coloured(cast)


def test_frames_are_close_to_genuine_ones(frames, views):
    genuine, classes = frames
    index = shapes3d_like.GRID.index(classes)
    drawn = views.read(index, "uint8").transpose(0, 2, 3, 1)
    difference = np.abs(drawn.astype(int) - genuine).mean((1, 2, 3))
    assert difference.mean() < 8
    # Against the frame of another class, the difference is ten times as large: 8 is not small by itself.
    assert np.abs(np.roll(drawn, 1, axis=0).astype(int) - genuine).mean() > 40


def test_every_kind_of_object_is_close(frames, views):
    genuine, classes = frames
    for shape in range(4):
        chosen = classes[:, 4] == shape
        drawn = views.read(shapes3d_like.GRID.index(classes[chosen]), "uint8").transpose(0, 2, 3, 1)
        assert np.abs(drawn.astype(int) - genuine[chosen]).mean() < 9


def test_hues_colour_their_own_surface_only(views, frames):
    _, classes = frames
    for factor, surface in ((0, 2), (1, 1), (2, 3)):
        one = classes[:1].copy()
        other = one.copy()
        other[0, factor] = (one[0, factor] + 3) % 10
        a, b = (views.read(shapes3d_like.GRID.index(c), "uint8")[0].astype(int) for c in (one, other))
        changed = (a != b).any(0)
        light = views.views[shapes3d_like.GRID.index(one)[0] % 480].reshape(64, 64, 5)[..., surface]
        assert changed[light > 100].all()
        assert not changed[light == 0].any()


def test_light_is_a_share_and_covers_the_picture():
    light = raycast.weights(1.0, raycast.CAPSULE, 12.0)
    assert light.min() >= 0
    assert light.max() <= 1
    assert ((light[..., :4] > 0).any(-1)).all()
    # A larger object covers more, and every shape is there.
    cover = [[(raycast.weights(s, k, 0.0, 32)[..., 3] > 0).sum() for s in (0.75, 1.25)] for k in range(4)]
    assert all(large > 1.5 * small > 0 for small, large in cover)


def test_turning_the_camera_one_way_or_the_other_mirrors_a_round_object():
    left, right = (raycast.weights(1.0, raycast.SPHERE, degrees) for degrees in (-20.0, 20.0))
    np.testing.assert_allclose((left[..., 3] > 0), (right[:, ::-1, 3] > 0))
    np.testing.assert_allclose(left[..., 1], right[:, ::-1, 1], atol=1e-6)


def test_the_data_set_is_a_stand_in_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shapes3d_like, "cache_folder", lambda: tmp_path / "views")
    calls = []

    def few(out):
        calls.append(out.shape)
        out[:] = np.random.default_rng(0).integers(0, 50, out.shape, dtype=np.uint8)

    monkeypatch.setattr(shapes3d_like, "cast", few)
    data = shapes3d_like.load()
    assert isinstance(data, FactorData)
    assert calls == [(480, 64 * 64 * 5)]
    assert "stand-in" in data.provenance
    assert "not the authors' images" in data.provenance
    assert data.factor_names == shapes3d.GRID.names
    assert len(data) == 480_000
    assert data.images(np.array([0, 479_999]), "float32").shape == (2, 3, 64, 64)
    assert len(shapes3d_like.load()) == 480_000
    assert len(calls) == 1
