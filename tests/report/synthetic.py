"""A run that never was: sprites drawn by formula, a code that is known, and a results tree laid out as runs store it.

The "decoder" is the drawing itself, so what the tree says can be checked by eye: latent 0 moves the sprite along x,
latent 1 along y, latent 3 scales it, 4 turns it, 6 morphs its shape; 2, 5, 7, 8 and 9 are dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.config import RunConfig

SIZES = (3, 6, 40, 32, 32)
NAMES = ("shape", "scale", "orientation", "posX", "posY")
LATENTS = 10
LIVE = {0: "posX", 1: "posY", 3: "scale", 4: "orientation", 6: "shape"}
READOUTS = ("centroid_x", "centroid_y", "area")
_SITES = {"encoder.conv0": 32, "encoder.conv1": 64, "encoder.conv2": 128, "latent.mu": LATENTS}


def draw(shape: Any, scale: Any, turn: Any, x: Any, y: Any, soft: float) -> NDArray[np.float32]:
    """Sprites in [0, 1], shape (n, 1, 64, 64); `shape` 0 square, 1 ellipse, 2 heart, anything between is between."""
    shape, scale, turn, x, y = (np.asarray(a, dtype=float)[:, None, None] for a in (shape, scale, turn, x, y))
    grid = np.arange(64) + 0.5
    right, down = grid[None, None, :] - (16 + 32 * x), grid[None, :, None] - (16 + 32 * y)
    radius, angle = np.hypot(right, down), np.arctan2(down, right) + turn
    t = np.linspace(-np.pi, np.pi, 721)
    square = 9.6 / np.maximum(np.abs(np.cos(t)), np.abs(np.sin(t)))
    ellipse = 9.6 / np.sqrt((np.cos(t) / 1.33) ** 2 + (np.sin(t) * 1.33) ** 2)
    k = np.linspace(0, 2 * np.pi, 721)
    hx, hy = (
        9.6 * np.sin(k) ** 3,
        -9.6 * ((13 * np.cos(k) - 5 * np.cos(2 * k) - 2 * np.cos(3 * k) - np.cos(4 * k)) / 14.5 + 0.15),
    )
    heart = np.interp(t, *_sorted(np.arctan2(hy, hx), np.hypot(hx, hy)), period=2 * np.pi)
    edge = [np.interp(angle, t, r, period=2 * np.pi) for r in (square, ellipse, heart)]
    near = np.clip(1 - np.abs(shape - np.arange(3)), 0, 1)
    outline = sum(near[:, :, i : i + 1] * edge[i] for i in range(3))
    return (1 / (1 + np.exp(np.clip((radius - scale * outline) / soft, -30, 30)))).astype(np.float32)[:, None]


def _sorted(angle: NDArray[Any], radius: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    order = np.argsort(angle)
    return angle[order], radius[order]


@dataclass(frozen=True)
class Sprites:
    """Factor data over the full dSprites grid, drawn by formula."""

    name: str = "dsprites"
    factor_names: tuple[str, ...] = NAMES
    factor_sizes: tuple[int, ...] = SIZES
    image_shape: tuple[int, int, int] = (1, 64, 64)
    provenance: str = "Drawn by formula for tests, close to dSprites but not the authors' pixels."
    licence: str = "Apache-2.0"
    factor_values: Mapping[str, NDArray[np.float64]] = field(
        default_factory=lambda: {
            "shape": np.arange(3.0),
            "scale": np.linspace(0.5, 1, 6),
            "orientation": np.linspace(0, 2 * np.pi, 40),
            "posX": np.linspace(0, 1, 32),
            "posY": np.linspace(0, 1, 32),
        }
    )

    def __len__(self) -> int:
        return int(np.prod(SIZES))

    def images(self, index: Any, dtype: str = "uint8") -> NDArray[Any]:
        values = self.values(index)
        bits = draw(*values.T, soft=0.01) > 0.5
        return bits.astype(dtype)

    def values(self, index: Any) -> NDArray[np.float64]:
        classes = self.factors(index)
        return np.stack([list(self.factor_values.values())[i][classes[:, i]] for i in range(5)], axis=1)

    def factors(self, index: Any) -> NDArray[np.int64]:
        return np.stack(np.unravel_index(np.asarray(index), SIZES), axis=1).astype(np.int64)

    def index(self, factors: Any) -> NDArray[np.int64]:
        return np.ravel_multi_index(tuple(np.asarray(factors).T), SIZES).astype(np.int64)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(len(self), size=n)

    def pairs(self, factor: str, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
        base = self.sample(n, rng)
        classes, column = self.factors(base), NAMES.index(factor)
        classes[:, column] = (classes[:, column] + rng.integers(1, SIZES[column], size=n)) % SIZES[column]
        return base, self.index(classes)


class KnownModel:
    """Encodes sprites' factor values and decodes by drawing; the members that a wrapped model has."""

    latents = LATENTS

    def decode(self, z: Any) -> NDArray[np.float32]:
        z = np.asarray(z, dtype=float)
        squash = np.tanh(z / 2.2)
        return draw(
            1 + squash[:, 6] * 1.05,
            np.clip(0.75 + 0.26 * squash[:, 3], 0.3, 1.1),
            np.pi * z[:, 4] / 3,
            0.5 - 0.58 * squash[:, 0],
            0.5 + 0.56 * squash[:, 1],
            soft=0.75,
        )

    def code(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean code of sprites with these factor values (n, 5)."""
        mu = np.zeros((len(values), LATENTS))
        shape, scale, turn, x, y = values.T
        mu[:, 0] = 2.2 * np.arctanh(np.clip(0.5 - x, -0.55, 0.55) / 0.58)
        mu[:, 1] = 2.2 * np.arctanh(np.clip(y - 0.5, -0.53, 0.53) / 0.56)
        mu[:, 3] = 2.2 * np.arctanh(np.clip((scale - 0.75) / 0.26, -0.97, 0.97))
        mu[:, 4] = 3 * np.angle(np.exp(1j * turn)) / np.pi
        mu[:, 6] = 2.2 * np.arctanh(np.clip((shape - 1) / 1.05, -0.96, 0.96))
        return mu


@dataclass(frozen=True)
class SyntheticRun:
    """Has the members a report and a dashboard read from a run."""

    config: RunConfig
    results: xr.DataTree
    data: Any
    directory: Path
    status: Mapping[str, Any]
    model: Any


def synthetic_run(
    directory: Path, *, scm: bool = False, without: tuple[str, ...] = (), **settings: Any
) -> SyntheticRun:
    """A whole run in memory; `without` leaves groups out of its tree."""
    config = RunConfig.of("scm-dsprites" if scm else "dsprites", "beta_vae", **settings)
    data, model = Sprites(), KnownModel()
    groups = {k: v for k, v in _groups().items() if scm or k != "effects/graph"}
    tree = xr.DataTree.from_dict({f"/{k}": v for k, v in groups.items() if k not in without})
    tree.attrs = {"schema_version": 1, "device": "cpu", "dtype": "bfloat16"}
    status = {
        "state": "done",
        "started": "2026-11-22T01:40:00+00:00",
        "updated": "2026-11-22T01:44:31+00:00",
        "seconds": {"data": 1.9, "train": 182.4, "interventions": 41.2, "metrics": 22.8},
        "images_per_second": 713.0,
        "versions": {"cvi_widgets": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "xarray": "2026.9.0"},
    }
    return SyntheticRun(config, tree, data, directory, status, model)


@cache
def _groups() -> dict[str, xr.Dataset]:
    rng = np.random.default_rng(1)
    data, model = Sprites(), KnownModel()
    index = data.sample(400, rng)
    mu = model.code(data.values(index)) + rng.normal(0, 0.04, (400, LATENTS))
    seen = {
        "index": ("example", index),
        "factor_class": (("example", "factor"), data.factors(index)),
    }
    return {
        "training": _training(rng),
        "observations": xr.Dataset(seen, {"factor": list(NAMES)}),
        "posterior": _posterior(mu, rng),
        "effects/input": _inputs(data, model, rng),
        "effects/latent": _latents(model, mu),
        "effects/patching": _patching(rng),
        "effects/mediation": _mediation(rng),
        "effects/graph": _graph(rng),
        "metrics/run": _metrics(),
        "metrics/latent": _latent_metrics(rng),
        "metrics/site": _site_metrics(),
    }


def _said(**variables: tuple[Any, ...]) -> dict[str, xr.Variable]:
    return {n: xr.Variable(d, v, {"long_name": said, "units": u}) for n, (d, v, said, u) in variables.items()}


def _banded(name: str, dims: Any, value: NDArray[Any], half: Any, said: str, unit: str) -> dict[str, xr.Variable]:
    return _said(
        **{
            name: (dims, value, said, unit),
            f"{name}_low": (dims, value - half, f"{said}, low end", unit),
            f"{name}_high": (dims, value + half, f"{said}, high end", unit),
        }
    )


def _training(rng: np.random.Generator) -> xr.Dataset:
    images = np.linspace(650, 130_000, 200).astype(int)
    decay = np.exp(-images / 9000)
    final = np.array([4.4, 4.3, 0.004, 3.1, 2.2, 0.006, 1.7, 0.003, 0.005, 0.002])
    onset = np.array([6e3, 7e3, 9e4, 2e4, 5e4, 9e4, 4e4, 9e4, 9e4, 9e4])
    kl_latent = final / (1 + np.exp(-(images[:, None] - onset) / (onset / 4))) + 0.002 * rng.random((200, LATENTS))
    recon = 72 + 560 * decay + 70 * np.exp(-images / 45_000) + rng.normal(0, 1.2, 200)
    dims = "step"
    return xr.Dataset(
        _said(
            loss=(dims, recon + 4 * kl_latent.sum(1), "loss", "nats"),
            reconstruction=(dims, recon, "reconstruction", "nats"),
            kl=(dims, kl_latent.sum(1), "KL", "nats"),
            kl_latent=(("step", "latent"), kl_latent, "KL of each latent", "nats"),
        ),
        {"images": ("step", images), "latent": np.arange(LATENTS)},
        {"images": 130_000, "seconds": 182.4, "images_per_second": 713.0, "stopped": "images"},
    )


def _posterior(mu: NDArray[Any], rng: np.random.Generator) -> xr.Dataset:
    live = np.isin(np.arange(LATENTS), list(LIVE))
    kl = np.where(live, 3.0, 0.004) + 0.3 * rng.random(mu.shape) * live
    return xr.Dataset(
        _said(
            mu=(("example", "latent"), mu, "posterior mean", "1"),
            logvar=(("example", "latent"), np.where(live, -3.5, 0.0) + 0 * mu, "posterior log variance", "1"),
            kl=(("example", "latent"), kl, "KL", "nats"),
            reconstruction=("example", rng.gamma(30, 72 / 30, len(mu)), "reconstruction", "nats"),
        ),
        {"latent": np.arange(LATENTS)},
    )


def _inputs(data: Sprites, model: KnownModel, rng: np.random.Generator, pairs: int = 64) -> xr.Dataset:
    base, source, delta = [], [], []
    for name in NAMES:
        pair = data.pairs(name, pairs, rng)
        base.append(pair[0])
        source.append(pair[1])
        delta.append(model.code(data.values(pair[1])) - model.code(data.values(pair[0])))
    moved = np.stack(delta) + rng.normal(0, 0.05, (5, pairs, LATENTS))
    share = np.abs(moved)
    site, channel, response = _unit_profiles(rng)
    return xr.Dataset(
        {
            **_said(
                base=(("factor", "pair"), np.stack(base), "base image", "1"),
                source=(("factor", "pair"), np.stack(source), "source image", "1"),
                delta_mu_pair=(("factor", "pair", "latent"), moved, "change of the code", "1"),
            ),
            **_banded(
                "delta_mu",
                ("factor", "latent"),
                share.mean(1),
                1.96 * share.std(1) / 8,
                "change of the code",
                "sd of mu",
            ),
            **_banded(
                "response", ("factor", "unit"), response, 0.06 * response, "mean absolute change of activation", "1"
            ),
        },
        {"factor": list(NAMES), "latent": np.arange(LATENTS), "site": ("unit", site), "channel": ("unit", channel)},
    )


def _unit_profiles(rng: np.random.Generator) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    site = [s for s, n in _SITES.items() for _ in range(n)]
    channel = np.concatenate([np.arange(n) for n in _SITES.values()])
    sharpness = np.concatenate([np.full(n, a) for n, a in zip(_SITES.values(), (6.0, 1.6, 0.7, 0.25), strict=True)])
    profile = np.stack([rng.dirichlet(a * np.array([0.6, 0.9, 0.7, 1.2, 1.2])) for a in sharpness], axis=1)
    return site, channel, profile * rng.gamma(2, 0.2, len(site))


def _latents(model: KnownModel, mu: NDArray[Any], examples: int = 24, shown: int = 8) -> xr.Dataset:
    values, frames = np.linspace(-3, 3, 7), np.linspace(-3, 3, 13)
    base = model.decode(mu[:examples])
    l2 = np.zeros((examples, LATENTS))
    change = np.zeros((LATENTS, 7, 64, 64))
    shift = np.zeros((examples, LATENTS, 7, 3))
    for i in LIVE:
        for k, v in enumerate(values):
            z = mu[:examples].copy()
            z[:, i] = v
            image = model.decode(z)
            l2[:, i] += np.sqrt(((image - base) ** 2).sum((1, 2, 3))) / 7
            change[i, k] = np.abs(image - base).mean((0, 1))
            shift[:, i, k] = _readouts(image) - _readouts(base)
    traversal = np.repeat(base[:shown, None, None], LATENTS, 1).repeat(len(frames), 2)
    for i in LIVE:
        z = np.repeat(mu[:shown, None], len(frames), 1)
        z[:, :, i] = frames
        traversal[:, i] = model.decode(z.reshape(-1, LATENTS)).reshape(shown, len(frames), 1, 64, 64)
    error = 1.96 / np.sqrt(examples)
    slope = np.einsum("v,elvr->elr", values / (values**2).sum(), shift)
    live = np.isin(np.arange(LATENTS), list(LIVE))
    read = live[:, None] * (0.2 + np.eye(LATENTS, 5))
    read[:, 4] = np.nan
    return xr.Dataset(
        {
            **_said(
                l2=(("example", "latent"), l2, "change of the image", "L2 norm"),
                change=(("latent", "value", "y", "x"), change.astype(np.float32), "mean change of a pixel", "1"),
                traversal=(
                    ("shown", "latent", "frame", "channel", "y", "x"),
                    np.rint(255 * traversal).astype(np.uint8),
                    "decoded image",
                    "1",
                ),
                active=("latent", live, "latent is in use", "1"),
            ),
            **_banded("slope", ("latent", "readout"), slope.mean(0), error * slope.std(0), "shift per unit of z", "px"),
            **_banded("ces_l2", "latent", l2.mean(0), error * l2.std(0), "causal effect strength", "L2 norm"),
            **_banded("ces_rms", "latent", l2.mean(0) / 64, error * l2.std(0) / 64, "causal effect strength", "RMS"),
            **_banded("ces_factor", ("latent", "factor"), read, 0.1 * read, "change of the factor as read", "sd"),
            **_said(reader_r2=("factor", np.array([0.97, 0.9, 0.4, 0.99, 0.05]), "share of variance read", "1")),
            **_banded(
                "readout_shift",
                ("latent", "value", "readout"),
                shift.mean(0),
                error * shift.std(0),
                "mean shift of the read-out",
                "px",
            ),
        },
        {
            "latent": np.arange(LATENTS),
            "value": values,
            "frame_value": ("frame", frames),
            "readout": list(READOUTS),
            "factor": list(NAMES),
        },
        {"n_examples": examples},
    )


def _readouts(image: NDArray[Any]) -> NDArray[Any]:
    grid = np.arange(64) + 0.5
    mass = image[:, 0].sum((1, 2)) + 1e-9
    return np.stack(
        [(image[:, 0].sum(1) * grid).sum(1) / mass, (image[:, 0].sum(2) * grid).sum(1) / mass, mass], axis=1
    )


def _patching(rng: np.random.Generator) -> xr.Dataset:
    encoder = {s: n for s, n in _SITES.items()}
    site = [s for s, n in encoder.items() for _ in range(n)]
    channel = np.concatenate([np.arange(n) for n in encoder.values()])
    transfer = np.concatenate([rng.dirichlet(np.full(n, 0.35)) * 0.9 - 0.004 * rng.random(n) for n in encoder.values()])
    effect = np.abs(rng.normal(0, 0.2, (len(site), LATENTS))) * transfer[:, None] * 10
    pairs = 64
    return xr.Dataset(
        {
            **_said(
                base=("pair", rng.integers(0, 700_000, pairs), "base", "1"),
                source=("pair", rng.integers(0, 700_000, pairs), "source", "1"),
            ),
            **_banded(
                "transfer", "unit", transfer, 0.002 + 0.1 * np.abs(transfer), "transfer to the source's code", "share"
            ),
            **_banded("effect", ("unit", "latent"), effect, 0.1 * effect, "change of the code", "sd of mu"),
        },
        {"site": ("unit", site), "channel": ("unit", channel), "latent": np.arange(LATENTS)},
    )


def _mediation(rng: np.random.Generator) -> xr.Dataset:
    site, channel, profile = _unit_profiles(rng)
    share = profile.T / np.array([profile[:, np.array(site) == s].sum(1) for s in site])
    mediated = share * rng.choice([1, 1, 1, 1, -0.3], share.shape)
    total = np.abs(rng.normal(1, 0.1, (len(site), 5, LATENTS)))
    effect = np.stack([total, total * (1 - np.abs(mediated))[..., None], total * np.abs(mediated)[..., None]])
    return xr.Dataset(
        {
            **_said(effect=(("kind", "unit", "factor", "latent"), effect, "change of the code", "sd of mu")),
            **_banded(
                "mediated",
                ("unit", "factor"),
                mediated,
                0.004 + 0.1 * np.abs(mediated),
                "mediated share of the total effect",
                "share",
            ),
        },
        {
            "kind": ["total", "direct", "indirect"],
            "site": ("unit", site),
            "channel": ("unit", channel),
            "factor": list(NAMES),
            "latent": np.arange(LATENTS),
        },
        {"n_pairs": 64},
    )


def _metrics() -> xr.Dataset:
    nan = float("nan")
    rows = {
        "reconstruction_nats": (
            72.4,
            71.6,
            73.2,
            nan,
            nan,
            nan,
            "nats",
            "summed over pixels, mean over held-out images",
        ),
        "kl_nats": (15.7, 15.4, 16.0, nan, nan, nan, "nats", "KL to the standard normal, summed over latents"),
        "active_latents": (5.0, 5.0, 5.0, nan, nan, nan, "latents", "latents whose mu varies by more than 0.01"),
        "ces_l2_mean": (
            5.82,
            5.51,
            6.14,
            nan,
            nan,
            nan,
            "intensity",
            "E ||D(z) - D(z; do(z_i = v))||_2 over all pixels",
        ),
        "specificity_mean": (0.487, 0.451, 0.522, nan, nan, nan, "1", "1 - H(p)/ln n, mean over active latents"),
        "monosemantic_share": (
            0.31,
            0.27,
            0.36,
            nan,
            nan,
            nan,
            "1",
            "exactly one factor reaches 0.2 of the largest response",
        ),
        "modularity_mu": (0.623, 0.574, 0.668, 0.642, 0.05, 0.62, "1", "1 - mean over pairs of |Pearson rho|"),
        "position_r2": (0.93, 0.91, 0.95, 0.004, 0.002, 0.001, "1", "largest R^2 between posX and mu of one latent"),
        "position_shift_px": (
            5.96,
            5.71,
            6.19,
            nan,
            nan,
            nan,
            "px",
            "pixels that centroid_x moves per unit of latent 0",
        ),
    }
    columns = ("value", "ci_low", "ci_high", "null_mean", "null_sd", "p")
    return xr.Dataset(
        _said(**{c: ("metric", [r[i] for r in rows.values()], c, "1") for i, c in enumerate(columns)}),
        {
            "metric": list(rows),
            "units": ("metric", [r[6] for r in rows.values()]),
            "convention": ("metric", [r[7] for r in rows.values()]),
        },
    )


def _latent_metrics(rng: np.random.Generator) -> xr.Dataset:
    value = rng.random((1, LATENTS))
    return xr.Dataset(
        _banded("value", ("metric", "latent"), value, 0.05, "specificity", "1"),
        {"metric": ["specificity"], "latent": np.arange(LATENTS)},
    )


def _site_metrics() -> xr.Dataset:
    value = np.array([[3.4, 2.5, 1.9, 1.3], [0.03, 0.19, 0.44, 0.8]])
    half = np.array([[0.1, 0.12, 0.08, 0.15], [0.03, 0.06, 0.07, 0.12]])
    dims = ("metric", "site")
    return xr.Dataset(
        _said(
            value=(dims, value, "value", "1"),
            ci_low=(dims, value - half, "low", "1"),
            ci_high=(dims, np.minimum(value + half, [[5], [1]]), "high", "1"),
            null_mean=(dims, np.full((2, 4), np.nan), "null", "1"),
        ),
        {
            "metric": ["polysemanticity", "monosemantic_share"],
            "site": list(_SITES),
            "units": ("metric", ["factors", "1"]),
            "convention": ("metric", ["sum r / max r", "share of units with one factor above 0.2 of the largest"]),
        },
    )


def _graph(rng: np.random.Generator) -> xr.Dataset:
    names = ["shape", "scale", "posX", "posY"]
    known = np.full((3, 4, 4), np.nan)
    for k, (total, direct) in {
        (0, 1): (0.61, 0.61),
        (1, 2): (0.83, 0.83),
        (0, 2): (0.94, 0.43),
        (1, 3): (-0.52, -0.52),
    }.items():
        known[:, k[0], k[1]] = total, direct, total - direct
    measured = known + rng.normal(0, 0.015, known.shape)
    dims = ("kind", "cause", "outcome")
    return xr.Dataset(
        {
            **_said(known=(dims, known, "effect", "classes")),
            **_banded("measured", dims, measured, 0.04, "effect", "classes"),
        },
        {"kind": ["total", "direct", "indirect"], "cause": names, "outcome": names},
    )
