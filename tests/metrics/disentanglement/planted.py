"""Codes whose scores are known: by construction, or because other implementations were run on them."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DSPRITES = (3, 6, 40, 32, 32)
_ROTATION = np.array(
    [
        [-0.9721530816768869, 0.08177661309848468, 0.21961550795941778],
        [-0.23434616194120356, -0.3412850621984309, -0.910278189733029],
        [0.0005120249598829618, -0.9363957987252793, 0.3509453603626733],
    ]
)
GRADES = tuple(product((0.0, 0.1, 0.2, 0.35, 0.5, 1.0), (0.02, 0.1, 0.2, 0.4, 0.7, 1.2)))
"""Mixing and noise of 36 codes from perfectly aligned to turned beyond recognition."""


def classes(n: int, sizes: tuple[int, ...] = (3, 4, 5), seed: int = 0) -> Ints:
    """Independent uniform classes, shape (n, factor)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, k, n) for k in sizes], axis=1)


def levels(factors: Ints) -> Floats:
    """Each factor on a code of its own, from -1 to 1."""
    return 2 * factors / factors.max(0) - 1


def golden(case: str, part: str) -> tuple[Floats, Ints]:
    """Codes (example, 10) and dSprites-sized factors (example, 5) on which other implementations were run.

    Cases: `clean`, each factor on its own code and five codes of noise; `noisy`, the same with noise of sd 0.15 and
    five nearly dead codes; `rotated`, the last three factors mixed by a rotation, and the fourth once more. Parts:
    `train` with 10,000 and `test` with 5,000 examples.
    """
    n, seed = (10_000, 0) if part == "train" else (5_000, 1)
    draw = np.random.RandomState(seed)
    factors = np.stack([draw.randint(0, k, n) for k in DSPRITES], axis=1).astype(np.int64)
    base = 2 * factors / (np.array(DSPRITES) - 1) - 1
    draw = np.random.RandomState(1000 + seed)
    noise = draw.randn(n, 5)
    if case == "clean":
        return np.hstack([base, noise]), factors
    if case == "noisy":
        return np.hstack([base + 0.15 * draw.randn(n, 5), 0.05 * noise]), factors
    aligned = base[:, :2] + 0.1 * draw.randn(n, 2)
    mixed = base[:, 2:] @ _ROTATION + 0.05 * draw.randn(n, 3)
    again = base[:, [3]] + 0.3 * draw.randn(n, 1)
    return np.hstack([aligned, mixed, again, 0.05 * noise[:, :4]]), factors


def graded(factors: Ints, latents: int, mixing: float, noise: float, seed: int) -> Floats:
    """Unit-variance codes of the factors and of noise, turned by `mixing` of a random rotation, plus `noise`."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(len(factors), latents))
    base[:, : factors.shape[1]] = np.sqrt(3) * levels(factors)
    turn = rng.normal(size=(latents, latents))
    return base @ expm(mixing * (turn - turn.T) / 2) + noise * rng.normal(size=base.shape)
