"""Pictures as elements: originals beside reconstructions, and latent traversals."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.views.style import latent_name, options


def mosaic(images: NDArray[Any], gap: int = 2) -> NDArray[np.uint8]:
    """Lay pictures out as one, rows by columns, parted by transparent gaps.

    Parameters
    ----------
    images : array (row, column, channel, y, x)
        uint8, or floats in [0, 1]; one or three channels.
    gap : int
        Pixels between two pictures.

    Returns
    -------
    array (y, x, 4) uint8
        Red, green, blue and opacity; gaps have none.
    """
    pixels = as_uint8(images)
    rows, columns, channels, height, width = pixels.shape
    out = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    colours = np.repeat(pixels, 3, axis=2) if channels == 1 else pixels[:, :, :3]
    for r in range(rows):
        for c in range(columns):
            y, x = r * (height + gap), c * (width + gap)
            out[y : y + height, x : x + width, :3] = np.moveaxis(colours[r, c], 0, -1)
            out[y : y + height, x : x + width, 3] = 255
    return out


def as_uint8(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images in 0 to 255: floats are taken to lie in [0, 1], bits (no value above 1) are stretched."""
    array = np.asarray(images)
    if array.dtype.kind == "f":
        return np.asarray(np.rint(np.clip(array, 0, 1) * 255), dtype=np.uint8)
    if array.dtype.kind == "b" or (array.size and int(array.max()) <= 1):
        return np.asarray(array, dtype=np.uint8) * np.uint8(255)
    return np.asarray(array, dtype=np.uint8)


def image_grid(originals: NDArray[Any], reconstructions: NDArray[Any]) -> hv.RGB:
    """Originals above their reconstructions, each (n, channel, y, x)."""
    both = np.stack([as_uint8(originals), as_uint8(reconstructions)])
    return _picture(mosaic(both), "Originals above, reconstructions below")


def traversal_grid(dataset: xr.Dataset, shown: int = 0) -> hv.RGB:
    """One row per latent, one column per value it is set to: `/effects/latent` `traversal`, one example."""
    array = dataset["traversal"].isel(shown=shown).transpose("latent", "frame", "channel", "y", "x")
    rows, height = array.sizes["latent"], array.sizes["y"] + 2
    columns, width = array.sizes["frame"], array.sizes["x"] + 2
    values = array["frame_value"].values if "frame_value" in array.coords else np.arange(columns)
    picture = mosaic(array.values)
    top = picture.shape[0]
    return _picture(
        picture,
        "Latent traversals",
        xlabel="value the latent is set to",
        ylabel="latent",
        xaxis="bottom",
        yaxis="left",
        xticks=[((i + 0.5) * width - 1, f"{v:g}") for i, v in enumerate(values)],
        yticks=[(top - (i + 0.5) * height + 1, latent_name(z)) for i, z in enumerate(array["latent"].values[:rows])],
    )


_PAGE = 860
"""Width of a plot on a page, in screen pixels."""


def _picture(pixels: NDArray[np.uint8], title: str, **more: Any) -> hv.RGB:
    height, width = pixels.shape[:2]
    look = {"xaxis": None, "yaxis": None, **more}
    element = hv.RGB(pixels, bounds=(0, 0, width, height))
    # A plot takes the width it is given; its height is what keeps pixels about square on a page.
    axes = 60 if look["xaxis"] else 30
    return element.opts(**options(max(120, min(760, round(_PAGE * height / width) + axes)), title=title, **look))
