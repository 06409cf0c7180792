"""Pictures of traversals: a strip for the head of the page, and the grid of all latents."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets import views
from cvi_widgets.report.parts import Block, picture
from cvi_widgets.report.scrub import strongest
from cvi_widgets.report.source import Source
from cvi_widgets.report.words import count, number
from cvi_widgets.views.style import actives, latent_name

LATENTS_DRAWN = 16
"""Rows of the traversal grid; models with more latents show the strongest."""


def hero(source: Source) -> Block | None:
    """A strip of the latent that moves the picture farthest, for the head of the page."""
    dataset = source.latent
    if dataset is None or "traversal" not in dataset:
        return None
    first = strongest(dataset, actives(dataset))
    name, last = latent_name(dataset["latent"].values[first]), dataset.sizes["frame"] - 1
    columns = np.unique(np.linspace(0, last, min(9, last + 1)).round().astype(int))
    strip = dataset["traversal"].isel(shown=0, latent=first, frame=columns)
    frames = strip.transpose("frame", "channel", "y", "x").values[None]
    values = dataset["frame_value"].values[columns]
    return picture(
        views.mosaic(frames),
        f"One sprite as {name} is set to values from {number(values[0], 2)} to {number(values[-1], 2)}.",
        f"One held-out image while {name} is set from {number(values[0], 2)} to {number(values[-1], 2)} "
        "and nothing else is touched.",
    )


def traversals(dataset: xr.Dataset) -> list[Block]:
    """The grid of the first example: latents in use, strongest on top, and dead ones folded away."""
    strength = dataset["ces_l2"].values if "ces_l2" in dataset else np.ones(dataset.sizes["latent"])
    alive = actives(dataset)
    drawn = np.argsort(-strength, kind="stable")[:LATENTS_DRAWN]
    blocks: list[Block] = []
    used, dead = drawn[alive[drawn]], np.sort(drawn[~alive[drawn]])
    if used.size:
        text = "Each row sets one latent in the first example, the others held; the strongest is on top."
        blocks.append(_traversal(dataset, used, text))
    if dead.size:
        few = f"Traversals of {count(len(dead), 'dead latent')}"
        blocks.append(_traversal(dataset, dead, "", folded=few))
    return blocks


def _traversal(dataset: xr.Dataset, rows: NDArray[np.intp], caption: str, folded: str = "") -> Block:
    frames = dataset["traversal"].isel(shown=0, latent=rows).transpose("latent", "frame", "channel", "y", "x").values
    step = max(1, -(-frames.shape[1] // 13))
    values = dataset["frame_value"].values[::step]
    return picture(
        views.mosaic(frames[:, ::step]),
        f"Traversal grid, one row per latent, values from {number(values[0], 2)} to {number(values[-1], 2)}.",
        caption,
        rows=tuple(f"z{z}" for z in dataset["latent"].values[rows]),
        columns=tuple(f"{v:g}".replace("-", "\u2212") for v in values),
        folded=folded,
    )
