"""Interventions on discrete codes: exchange one code, hold the others, and see what happens to the picture.

The published shift of one coordinate, do(z_e[i] = v) with v from -3 to 3 (arXiv 2505.03530, equations 3-4), happens
before the quantiser, which snaps most shifts back to the code that was there. Exchanging the code itself is the
intervention that the decoder can see; both are measured at the same cells, with the share of shifts that changed no
code. Use `intervene_latent` for continuous codes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cvi_widgets.errors import ConfigError, DataError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.engine import batches
from cvi_widgets.interventions.model import BATCH, Images, Model
from cvi_widgets.metrics.statistics import Interval

Floats = NDArray[np.float32]


class _Shift(NamedTuple):
    """One latent of what enters the quantiser, shifted at every sampled cell."""

    l2: Floats
    """(example, latent, cell): mean over values"""
    snapped: Floats
    """(example, latent, value): share of cells"""


def intervene_code(
    model: Model,
    x: Images,
    swaps: int = 1,
    *,
    cells: int | None = 64,
    latents: int | None = 16,
    values: ArrayLike | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Exchange the code at one (codebook, cell) for another code in use, hold the others, decode.

    Parameters
    ----------
    model : discrete
    x : images (example, channel, y, x); codes in use are those that they have
    swaps : other codes tried per position and example, drawn with replacement
    cells, latents : how many cells, and how many latents of mu, are sampled; None for all
        mu is what enters the quantiser, z_e in the literature; where it is a map, a latent is a channel, and is shifted
        at one cell at a time.
    values : values v that a latent of mu is set to; None for seven from -3 to 3

    Returns
    -------
    Dataset
        `l2` (example, codebook, cell), the L2 norm over pixels and channels averaged over swaps, NaN in codebooks of
        which only one code is in use, and its means `ces_code_l2` and `ces_code_rms` (codebook); `l2_coordinate`
        (example, latent, cell), the same for the shift, averaged over values, and its means `ces_coordinate_l2` and
        `ces_coordinate_rms` (latent); `snapped` (latent), the share of shifts that changed no code, and `snapped_at`
        (latent, value); `in_use` (codebook), how many codes. Means have `_low` and `_high`.

    Raises
    ------
    ConfigError
        When the model's code is continuous, or a number is less than 1.
    DataError
        When every image has the same codes, so that nothing can be exchanged.
    """
    if not model.discrete:
        raise ConfigError("intervene_code exchanges codes, and this model's code is continuous; use intervene_latent.")
    for name, number in (("swaps", swaps), ("cells", cells), ("latents", latents)):
        if number is not None and number < 1:
            raise ConfigError(f"setting {name!r} is {number}; it must be at least 1.")
    grid = np.linspace(-3, 3, 7) if values is None else np.asarray(values, np.float64)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all():
        raise ConfigError(f"values are {grid.tolist()}; they must be a list of numbers.")
    rng = np.random.default_rng(seed)
    mu = model.encode(x).mu
    codes = _codes(model, mu)
    in_use = [torch.unique(codes[:, book]) for book in range(codes.shape[1])]
    if all(len(used) < 2 for used in in_use):
        raise DataError("every image has the same codes, so there is no other code to exchange one for.")
    positions = codes.shape[2:]
    at_cells = _sample(int(np.prod(positions)), cells, rng)
    # A flat mu has no cells of its own: each of its latents is shifted once.
    z_cells = at_cells if mu.shape[2:] == positions else np.arange(int(np.prod(mu.shape[2:])))
    at_latents = _sample(mu.shape[1], latents, rng)
    base = model.decode_codes(codes)
    l2 = _swapped(model, codes, base, in_use, at_cells, swaps, rng)
    shift = _shifted(model, mu, codes, base, at_latents, z_cells, grid)
    n, n_pixels = len(codes), int(np.prod(model.image_shape))
    by_code = effects.mean_over_first(l2.mean(2), draws, seed)
    by_shift = effects.mean_over_first(shift.l2.mean(2), draws, seed)
    root = np.sqrt(n_pixels)
    per_book, per_latent = ("codebook",), ("latent",)
    norm = "L2 norm over pixels of the change of the image"
    z_cell = "cell" if mu.shape[2:] == positions else "z_cell"
    variables = {
        "l2": effects.variable(("example", "codebook", "cell"), l2, f"{norm}, mean over swaps", "intensity"),
        **effects.with_interval(
            "ces_code_l2",
            per_book,
            by_code,
            "causal effect strength of exchanging one code, L2 norm over pixels",
            "intensity",
        ),
        **effects.with_interval(
            "ces_code_rms",
            per_book,
            Interval(*(v / root for v in by_code)),
            "causal effect strength of exchanging one code, per pixel (RMS)",
            "intensity",
        ),
        "l2_coordinate": effects.variable(
            ("example", "latent", z_cell), shift.l2, f"{norm}, mean over values", "intensity"
        ),
        **effects.with_interval(
            "ces_coordinate_l2",
            per_latent,
            by_shift,
            "causal effect strength of setting one coordinate before the quantiser, L2 norm over pixels",
            "intensity",
        ),
        **effects.with_interval(
            "ces_coordinate_rms",
            per_latent,
            Interval(*(v / root for v in by_shift)),
            "causal effect strength of setting one coordinate before the quantiser, per pixel (RMS)",
            "intensity",
        ),
        **effects.with_interval(
            "snapped",
            per_latent,
            effects.mean_over_first(shift.snapped.mean(2), draws, seed),
            "share of shifts of one coordinate that changed no code",
            "1",
        ),
        "snapped_at": effects.variable(
            ("latent", "value"), shift.snapped.mean(0), "share of shifts to this value that changed no code", "1"
        ),
        "in_use": effects.variable(per_book, [len(used) for used in in_use], "codes that the images have", "codes"),
    }
    coords = {
        "codebook": ("codebook", np.arange(codes.shape[1])),
        "latent": ("latent", at_latents),
        "value": ("value", grid, {"long_name": "value the latent is set to", "units": "mu"}),
        **_cell_coords("cell", at_cells, positions),
    }
    if z_cell != "cell":
        coords |= _cell_coords(z_cell, z_cells, mu.shape[2:])
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="the code at one (codebook, cell) is exchanged for another in use, all others are held; beside "
        "it, one coordinate at one cell is set to a value before the quantiser",
        convention="ces_code_l2 is E ||D(code) - D(code~)||_2 over all pixels and channels, averaged over swaps and "
        "cells; the _rms divide by the root of their number; ces_coordinate_l2 counts shifts that snap back as 0",
        interval="95 % percentile bootstrap over examples",
        n_examples=n,
        n_pixels=n_pixels,
        swaps=swaps,
        seed=seed,
        draws=draws,
    )


def _codes(model: Model, mu: Tensor) -> Tensor:
    with model.running():
        return torch.cat([model.quantise(mu[start : start + BATCH]) for start in range(0, len(mu), BATCH)])


def _sample(n: int, wanted: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
    if wanted is None or wanted >= n:
        return np.arange(n)
    return np.sort(rng.choice(n, wanted, replace=False))


def _swapped(
    model: Model,
    codes: Tensor,
    base: Tensor,
    in_use: list[Tensor],
    cells: NDArray[np.int64],
    swaps: int,
    rng: np.random.Generator,
) -> Floats:
    """Effect of other codes, shape (example, codebook, cell)."""
    n, books = codes.shape[:2]
    out = np.zeros((n, books, len(cells)), np.float32)
    for book, used in enumerate(in_use):
        if len(used) < 2:
            out[:, book] = np.nan
            continue
        for k, cell in enumerate(cells):
            for _ in range(swaps):
                new = codes.flatten(2).clone()
                # A step of 1 to len - 1 through the sorted codes in use never lands where it began.
                step = torch.as_tensor(rng.integers(1, len(used), n), device=codes.device)
                now = torch.searchsorted(used, new[:, book, int(cell)].contiguous())
                new[:, book, int(cell)] = used[(now + step) % len(used)]
                out[:, book, k] += _distance(model.decode_codes(new.view_as(codes)), base) / swaps
    return out


def _shifted(
    model: Model,
    mu: Tensor,
    codes: Tensor,
    base: Tensor,
    latents: NDArray[np.int64],
    cells: NDArray[np.int64],
    grid: NDArray[np.float64],
) -> _Shift:
    n, tried = len(mu), [(int(latent), float(value)) for latent in latents for value in grid]
    l2 = np.zeros((n, len(latents), len(cells)), np.float32)
    snapped = np.zeros((n, len(latents), len(grid)), np.float32)
    flat, rows = mu.flatten(2) if mu.ndim > 2 else mu[..., None], codes.flatten(1)
    example = torch.arange(n, device=codes.device)
    for k, cell in enumerate(cells):
        new = torch.empty((len(tried), *rows.shape), dtype=codes.dtype, device=codes.device)
        for t, (latent, value) in enumerate(tried):
            shifted = flat.clone()
            shifted[:, latent, int(cell)] = value
            new[t] = _codes(model, shifted.view_as(mu)).flatten(1)
        moved = (new != rows).any(2)
        snapped += (~moved).T.reshape(snapped.shape).cpu().numpy() / len(cells)
        # The decoder sees nothing but codes: examples that keep theirs change by exactly 0, and of the shifts that
        # bring an example to the same codes only one is decoded.
        keys = torch.cat([example.expand(len(tried), n)[moved][:, None], new[moved]], dim=1)
        distinct, which = torch.unique(keys, dim=0, return_inverse=True)
        change = np.zeros(moved.shape, np.float32)
        if len(distinct):
            found = _changes(model, distinct[:, 1:].unflatten(1, codes.shape[1:]), base, distinct[:, 0])
            change[moved.cpu().numpy()] = found[which.cpu().numpy()]
        l2[:, :, k] = change.T.reshape(snapped.shape).mean(2)
    return _Shift(l2, snapped)


def _changes(model: Model, codes: Tensor, base: Tensor, example: Tensor) -> Floats:
    """Distance (row,) between what rows of codes decode to and the base image of each row's example."""
    return np.concatenate([_distance(model.decode_codes(codes[b]), base[example[b]]) for b in batches(len(codes))])


def _distance(images: Tensor, base: Tensor) -> Floats:
    out: Floats = (images - base).flatten(1).square().sum(1).sqrt().cpu().numpy()
    return out


def _cell_coords(
    dim: str, cells: NDArray[np.int64], shape: tuple[int, ...]
) -> dict[str, tuple[str, NDArray[np.int64]]]:
    coords = {dim: (dim, cells)}
    if len(shape) == 2:
        y, x = np.unravel_index(cells, shape)
        coords |= {f"{dim}_y": (dim, y), f"{dim}_x": (dim, x)}
    return coords
