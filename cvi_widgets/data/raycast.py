"""A room with one object, seen by casting one ray per sample: what each pixel shows, and how brightly lit.

The camera circles the object at distance 1 and looks at its axis. Nothing is coloured here: the result is how much of
each pixel is sky, wall, floor and object, each weighted by its light, and how much white the highlight adds, so that
one picture serves all colours. All constants were fitted to genuine frames of 3D Shapes; they are estimates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SURFACES = ("sky", "wall", "floor", "object", "highlight")
CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
_SAMPLES = 2
"""Rays along each side of a pixel."""
_HEIGHT, _PITCH, _HALF_FIELD = 0.3539, 0.0203, 0.5666
"""Camera: height over the floor, radians downwards, tangent of half the field of view."""
_SIDE, _BACK, _CEILING = 1.3953, 1.2855, 0.9161
"""Room: half its width, distance of the back wall, height of the walls."""
_LIGHT = np.array([-0.241, 0.111, 0.964])
_SHADOW = 0.336
"""Light that is left on the floor in the object's shadow."""
_FAR = np.inf
_NEAR = 1e-6


class Hits(NamedTuple):
    """Where rays meet a surface: distance (ray,), infinite where they do not, and normal (ray, 3)."""

    distance: Floats
    normal: Floats


def weights(scale: float, shape: int, degrees: float, pixels: int = 64) -> Floats:
    """Light of each surface in each pixel, shape (y, x, surface), between 0 and 1.

    Parameters
    ----------
    scale : size of the object, 0.75 to 1.25 in the data set
    shape : 0 cube, 1 cylinder, 2 sphere, 3 capsule
    degrees : how far the camera has gone round the object
    """
    origin, rays, forward = _camera(np.deg2rad(degrees), pixels * _SAMPLES)
    wall, floor = _room(origin, rays)
    thing = _object(np.broadcast_to(origin, rays.shape), rays, scale, shape)
    light = np.zeros((len(rays), len(SURFACES)))
    is_floor = floor < wall.distance
    high = origin[2] + wall.distance * rays[:, 2] > _CEILING
    is_sky, is_wall = ~is_floor & high, ~is_floor & ~high
    light[is_sky, 0] = 1
    facing = np.maximum(0, -wall.normal @ forward)
    light[is_wall, 1] = np.minimum(1, 0.484 + 0.526 * facing)[is_wall]
    light[is_floor, 2] = _on_floor(origin + floor[is_floor, None] * rays[is_floor], scale, shape)
    hit = thing.distance < np.where(is_floor, floor, wall.distance)
    lit = np.maximum(0, thing.normal @ _LIGHT)
    light[hit] = 0
    light[hit, 3] = np.minimum(1, 0.534 + 0.403 * np.maximum(0, -thing.normal @ forward) + 0.3 * lit)[hit]
    light[hit, 4] = (93.85 / 255 * np.maximum(0, lit - 0.8))[hit]
    fine = light.reshape(pixels, _SAMPLES, pixels, _SAMPLES, len(SURFACES))
    return np.asarray(fine.mean((1, 3)))


def _camera(angle: float, side: int) -> tuple[Floats, Floats, Floats]:
    """Origin (3,), unit rays (side * side, 3) row by row from the top left, and the direction of view (3,)."""
    right = np.array([np.cos(angle), np.sin(angle), 0.0])
    level = np.array([-np.sin(angle), np.cos(angle), 0.0])
    forward = np.cos(_PITCH) * level - np.sin(_PITCH) * np.array([0.0, 0.0, 1.0])
    grid = _HALF_FIELD * ((np.arange(side) + 0.5) / side * 2 - 1)
    across, down = np.meshgrid(grid, grid)
    rays = forward + across[..., None] * right - down[..., None] * np.cross(right, forward)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return np.array([0.0, 0.0, _HEIGHT]) - level, rays.reshape(-1, 3), forward


def _room(origin: Floats, rays: Floats) -> tuple[Hits, Floats]:
    """The nearest wall, and the distance of the floor."""
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(rays[:, 2] < 0, -origin[2] / rays[:, 2], _FAR)
        sides = np.where(rays[:, 0] != 0, (np.sign(rays[:, 0]) * _SIDE - origin[0]) / rays[:, 0], _FAR)
        back = np.where(rays[:, 1] > 0, (_BACK - origin[1]) / rays[:, 1], _FAR)
    normal = np.zeros_like(rays)
    at_side = sides < back
    normal[at_side, 0] = -np.sign(rays[at_side, 0])
    normal[~at_side, 1] = -1
    return Hits(np.minimum(sides, back), normal), floor


def _on_floor(points: Floats, scale: float, shape: int) -> Floats:
    away = np.hypot(points[:, 0], points[:, 1])
    light = np.maximum(0.48, 0.998 - 0.275 * np.maximum(0, away - 0.4) ** 2)
    to_light = np.broadcast_to(_LIGHT / np.linalg.norm(_LIGHT), points.shape)
    shaded = np.isfinite(_object(points + 1e-6 * _LIGHT, to_light, scale, shape).distance)
    return np.asarray(light * np.where(shaded, _SHADOW, 1))


def _object(origins: Floats, rays: Floats, scale: float, shape: int) -> Hits:
    """The nearest point of the object; it stands on the axis, its foot a little below the floor."""
    if shape == CUBE:
        half = 0.171 * scale
        return _box(origins, rays, half, -0.0183)
    if shape == CYLINDER:
        return _cylinder(origins, rays, 0.1816 * scale, -0.0006, -0.0006 + 2 * 0.1755 * scale)
    if shape == SPHERE:
        radius = 0.2289 * scale
        return _ball(origins, rays, radius, radius - 0.0131)
    radius, half = 0.1901 * scale, 0.1906 * scale
    low = radius - 0.0176
    parts = [
        _cylinder(origins, rays, radius, low, low + 2 * half),
        *(_ball(origins, rays, radius, z) for z in (low, low + 2 * half)),
    ]
    return _nearest(parts)


def _nearest(parts: list[Hits]) -> Hits:
    distance = np.stack([p.distance for p in parts])
    first = distance.argmin(0)
    normal = np.stack([p.normal for p in parts])
    ray = np.arange(distance.shape[1])
    return Hits(distance[first, ray], normal[first, ray])


def _box(origins: Floats, rays: Floats, half: float, foot: float) -> Hits:
    low, high = np.array([-half, -half, foot]), np.array([half, half, foot + 2 * half])
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - origins) / rays, (high - origins) / rays
    enter, leave = np.minimum(a, b), np.maximum(a, b)
    distance, face = enter.max(1), enter.argmax(1)
    hit = (distance < leave.min(1)) & (distance > _NEAR)
    normal = np.zeros_like(rays)
    ray = np.arange(len(rays))
    normal[ray, face] = -np.sign(rays[ray, face])
    return Hits(np.where(hit, distance, _FAR), normal)


def _ball(origins: Floats, rays: Floats, radius: float, height: float) -> Hits:
    start = origins - np.array([0.0, 0.0, height])
    distance = _root((rays**2).sum(1), (start * rays).sum(1), (start**2).sum(1) - radius**2)
    reach = np.where(np.isfinite(distance), distance, 0)
    return Hits(distance, (start + reach[:, None] * rays) / radius)


def _cylinder(origins: Floats, rays: Floats, radius: float, low: float, high: float) -> Hits:
    flat, way = origins[:, :2], rays[:, :2]
    around = _root((way**2).sum(1), (flat * way).sum(1), (flat**2).sum(1) - radius**2)
    reach = np.where(np.isfinite(around), around, 0)
    height = origins[:, 2] + reach * rays[:, 2]
    normal = np.zeros_like(rays)
    normal[:, :2] = (flat + reach[:, None] * way) / radius
    parts = [Hits(np.where((height >= low) & (height <= high), around, _FAR), normal)]
    for z, up in ((high, 1.0), (low, -1.0)):
        with np.errstate(divide="ignore", invalid="ignore"):
            cap = (z - origins[:, 2]) / rays[:, 2]
            inside = ((flat + cap[:, None] * way) ** 2).sum(1) <= radius**2
        parts.append(Hits(np.where(inside & (cap > _NEAR), cap, _FAR), np.broadcast_to([0.0, 0.0, up], rays.shape)))
    return _nearest(parts)


def _root(a: Floats, b: Floats, c: Floats) -> Floats:
    """Smaller solution of a t^2 + 2 b t + c = 0 in front of the start, infinite where there is none."""
    inside = b**2 - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where((inside > 0) & (a > 0) & (root > _NEAR), root, _FAR)
