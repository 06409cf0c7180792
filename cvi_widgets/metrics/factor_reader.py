"""Reading factors off pictures, so that a change of the decoded image can be told in factors.

A reader is a small network from the image, averaged down to 16 x 16, to the classes of all factors. It is fitted on
real images with known factors and then frozen. What it cannot read it cannot measure: its R^2 on held-out images
belongs beside every effect in its terms. Do not use it far from the images it has seen; a latent pushed out of its
range may decode to nothing the reader knows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cvi_widgets.errors import DataError

SIDE = 16
READABLE = 0.2
"""R^2 below which a factor counts as not read: its outputs then move with anything."""
KINDS = 4
"""Factors with at most as many classes are read as kinds, one number per class; others as their class's number."""


@dataclass(frozen=True)
class FactorReader:
    """Reads factors off images; made by `fit_reader`.

    Attributes
    ----------
    factors : names
    columns : of each factor, which outputs are its
    scale : of each factor, standard deviation of its outputs over real images
    r2 : of each factor, share of variance read on held-out images
    """

    factors: tuple[str, ...]
    columns: tuple[slice, ...]
    scale: NDArray[np.float64]
    r2: NDArray[np.float64]
    n: int
    seed: int
    _network: Pipeline

    def read(self, images: ArrayLike) -> NDArray[np.float64]:
        """Outputs (n, output) of images (n, channel, y, x) in [0, 1]."""
        found: NDArray[np.float64] = np.asarray(self._network.predict(_small(images)), np.float64)
        return found.reshape(len(found), -1)

    def change(self, before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
        """Size of the change of each factor between two outputs, (n, factor), in sd of the factor as read.

        NaN for factors that the reader does not read.
        """
        step = np.asarray(after) - np.asarray(before)
        sizes = np.stack([np.sqrt((step[:, c] ** 2).sum(1)) for c in self.columns], axis=1)
        read = (self.r2 >= READABLE) & (self.scale > 0)
        return np.asarray(np.divide(sizes, self.scale, out=np.full_like(sizes, np.nan), where=read))


def fit_reader(
    images: ArrayLike, classes: ArrayLike, factors: Sequence[str], *, held_out: float = 0.25, seed: int = 0
) -> FactorReader:
    """Fit a reader.

    Parameters
    ----------
    images : (n, channel, y, x), in [0, 1]
    classes : (n, factor), integers
    factors : names
    held_out : share of the images that `r2` and `scale` are measured on

    Raises
    ------
    DataError
        When there are fewer than 50 images, or as many classes as images do not fit.
    """
    x, labels = _small(images), np.asarray(classes)
    if len(x) < 50 or labels.shape != (len(x), len(factors)):
        raise DataError(
            f"a reader needs at least 50 images and their classes (n, {len(factors)}); "
            f"given are {len(x)} images and classes of shape {labels.shape}."
        )
    targets, columns = _targets(labels)
    order = np.random.default_rng(seed).permutation(len(x))
    cut = int(len(x) * (1 - held_out))
    train, test = order[:cut], order[cut:]
    network = make_pipeline(
        StandardScaler(),
        MLPRegressor(
            hidden_layer_sizes=(128,), early_stopping=True, learning_rate_init=2e-3, max_iter=150, random_state=seed
        ),
    )
    with warnings.catch_warnings():
        # It stops when held-out error does; where it had not by then, r2 says what that cost.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x[train], targets[train].squeeze())
    found = np.asarray(network.predict(x[test]), np.float64).reshape(len(test), -1)
    wrong, whole = (found - targets[test]) ** 2, (targets[test] - targets[train].mean(0)) ** 2
    # A factor that is the same in all images is not read, well or badly.
    r2 = [1 - wrong[:, c].sum() / whole[:, c].sum() if whole[:, c].sum() > 1e-9 else np.nan for c in columns]
    scale = [np.sqrt(found[:, c].var(0).sum()) if np.isfinite(r) else 0.0 for c, r in zip(columns, r2, strict=True)]
    return FactorReader(tuple(factors), columns, np.array(scale), np.array(r2), len(x), seed, network)


def _targets(labels: NDArray[Any]) -> tuple[NDArray[np.float64], tuple[slice, ...]]:
    """All factors' targets side by side, each factor with variance 1 in all."""
    blocks, columns, start = [], [], 0
    for values in labels.T:
        kinds = np.unique(values)
        block = (values[:, None] == kinds).astype(float) if len(kinds) <= KINDS else values[:, None].astype(float)
        sd = np.sqrt(block.var(0).sum())
        blocks.append(block / (sd if sd > 0 else 1))
        columns.append(slice(start, start + block.shape[1]))
        start += block.shape[1]
    return np.concatenate(blocks, axis=1), tuple(columns)


def _small(images: ArrayLike) -> NDArray[np.float32]:
    """Images averaged over blocks to at most 16 x 16, flattened; pixels that do not fill a block are left out."""
    x = np.asarray(images, np.float32)
    if x.ndim != 4:
        raise DataError(f"images have shape {x.shape}; a reader takes (n, channel, y, x).")
    step_y, step_x = max(1, x.shape[2] // SIDE), max(1, x.shape[3] // SIDE)
    height, width = x.shape[2] // step_y, x.shape[3] // step_x
    cut = x[:, :, : height * step_y, : width * step_x]
    blocks = cut.reshape(*cut.shape[:2], height, step_y, width, step_x)
    return np.asarray(blocks.mean((3, 5)).reshape(len(x), -1), np.float32)
