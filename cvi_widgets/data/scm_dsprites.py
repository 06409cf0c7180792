"""`scm-dsprites`: dSprites images under a known causal graph, in a linear-Gaussian and a non-linear variant.

    orientation -> scale -> posY      a chain
    scale -> posX, scale -> posY      a fork
    orientation -> scale -> posX      a mediated path beside the direct one, orientation -> posX

`shape` has no causes and no effects, so that a measured effect of it can only be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import networkx as nx
import numpy as np

from cvi_widgets.data.causal_data import CausalData
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.readouts import SpriteReadout
from cvi_widgets.data.scm import Additive, Classes, Floats, Linear, Mechanism, Uniform

NAME = "scm-dsprites"
SUMMARY = (
    "Factors drawn from a known structural causal model "
    "(orientation -> scale -> posX and posY, orientation -> posX, shape apart)."
)
EDGES = (("orientation", "scale"), ("orientation", "posX"), ("scale", "posX"), ("scale", "posY"))


def build(images: GridData, scm: Literal["linear", "nonlinear"]) -> CausalData:
    """The causal data set over the dSprites images `images` (re-rendered or the authors')."""
    mechanisms = _linear() if scm == "linear" else _nonlinear()
    return CausalData(
        images,
        graph(),
        mechanisms,
        name=NAME,
        provenance=f"{SUMMARY} Its {scm} variant, on these images: {images.provenance}",
        readout=SpriteReadout(),
    )


def graph() -> nx.DiGraph:
    """The causal graph over the five factors of dSprites."""
    drawn = nx.DiGraph(EDGES)
    drawn.add_node("shape")
    return drawn


def _linear() -> dict[str, Mechanism]:
    # Centred on the grid, with its ends beyond three standard deviations, so that path coefficients stay valid.
    return {
        "shape": Uniform(),
        "orientation": Linear(19.5, 6.0),
        "scale": Linear(0.55, 0.6, {"orientation": 0.1}),
        "posX": Linear(2.0, 2.0, {"orientation": 0.5, "scale": 1.5}),
        "posY": Linear(21.75, 2.5, {"scale": -2.5}),
    }


def _nonlinear() -> dict[str, Mechanism]:
    return {
        "shape": Uniform(),
        "orientation": Uniform(),
        "scale": Additive(_scale, 0.6, "2.5 + 2 tanh((orientation - 19.5) / 8) + 0.6 noise"),
        "posX": Additive(_pos_x, 2.0, "15.5 + (3 + 1.5 scale) sin(pi (orientation - 13) / 39) + 2 noise"),
        "posY": Additive(_pos_y, 2.5, "21 - 0.6 scale^2 + 2.5 noise"),
    }


def _scale(parents: Mapping[str, Classes]) -> Floats:
    return np.asarray(2.5 + 2.0 * np.tanh((parents["orientation"] - 19.5) / 8), dtype=np.float64)


def _pos_x(parents: Mapping[str, Classes]) -> Floats:
    swing = np.sin(np.pi * (parents["orientation"] - 13) / 39)
    return np.asarray(15.5 + (3 + 1.5 * parents["scale"]) * swing, dtype=np.float64)


def _pos_y(parents: Mapping[str, Classes]) -> Floats:
    return np.asarray(21.0 - 0.6 * np.square(parents["scale"]), dtype=np.float64)
