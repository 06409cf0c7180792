"""The in-page scrubber's data: traversal frames of a few examples as one compressed blob of bytes."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.report.parts import Scrubber, script_safe
from cvi_widgets.views import as_uint8

BLOB_BUDGET = 4_000_000
"""Characters of base64; whole examples are left out until the frames fit."""


def scrubber(
    latent: xr.Dataset, originals: NDArray[Any], reconstructions: NDArray[Any], own: NDArray[Any], caption: str
) -> Scrubber:
    """Pack frames for the page.

    Parameters
    ----------
    latent : Dataset
        `/effects/latent` with `traversal(shown, latent, frame, channel, y, x)` uint8 and `frame_value(frame)`.
    originals, reconstructions : array (shown, channel, y, x)
    own : array (shown, latent)
        The examples' own codes, mu.

    Notes
    -----
    Order of the bytes: originals, reconstructions, then frames in the order of the dims above. The blob is gzip (the
    browser inflates it), which takes sprites to about a twentieth.
    """
    frames = latent["traversal"].transpose("shown", "latent", "frame", "channel", "y", "x").values
    shown = min(len(frames), len(originals), len(reconstructions), len(own))
    while True:
        parts = (as_uint8(originals[:shown]), as_uint8(reconstructions[:shown]), np.ascontiguousarray(frames[:shown]))
        raw = b"".join(part.tobytes() for part in parts)
        blob = base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()
        if len(blob) <= BLOB_BUDGET or shown <= 1:
            break
        shown -= max(1, shown // 4)
    active = np.asarray(latent["active"].values, bool) if "active" in latent else np.ones(frames.shape[1], bool)
    meta = {
        "shown": shown,
        "latents": [int(z) for z in latent["latent"].values],
        "active": [bool(a) for a in active],
        "frames": [round(float(v), 4) for v in latent["frame_value"].values],
        "shape": list(frames.shape[3:]),
        "own": np.round(np.asarray(own[:shown], float), 4).tolist(),
        "first": strongest(latent, active),
        "strength": np.round(latent["ces_l2"].values.astype(float), 4).tolist() if "ces_l2" in latent else [],
    }
    return Scrubber(script_safe(json.dumps(meta, separators=(",", ":"))), blob, caption)


def strongest(latent: xr.Dataset, active: NDArray[np.bool_]) -> int:
    """Position of the latent that a reader should try first: the one that moves the picture farthest."""
    if "slope" in latent:
        slopes = latent["slope"]
        moves = [r for r in slopes["readout"].values if str(r).startswith("centroid")]
        if moves:
            reach = np.abs(slopes.sel(readout=moves).transpose("latent", "readout").values).max(axis=1)
            return int(np.nanargmax(np.where(active, np.nan_to_num(reach), -1)))
    strength = latent["ces_l2"].values if "ces_l2" in latent else active.astype(float)
    return int(np.nanargmax(strength))
