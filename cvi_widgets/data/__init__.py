"""Factor data sets: images by index, factors by index, index by factors, and one known causal model."""

from __future__ import annotations

from cvi_widgets.data.attribute_data import AttributeData
from cvi_widgets.data.catalogue import describe, load
from cvi_widgets.data.causal_data import CausalData
from cvi_widgets.data.effects import effect, linear_effect
from cvi_widgets.data.grid import FactorGrid
from cvi_widgets.data.grid_data import GridData
from cvi_widgets.data.measured import measure_effects
from cvi_widgets.data.pixels import BytePixels, PackedPixels
from cvi_widgets.data.protocol import FactorData, Factors, Index, Pairs, Split
from cvi_widgets.data.scm import Additive, Linear, Mechanism, StructuralModel, Uniform

__all__ = [
    "Additive",
    "AttributeData",
    "BytePixels",
    "CausalData",
    "FactorData",
    "FactorGrid",
    "Factors",
    "GridData",
    "Index",
    "Linear",
    "Mechanism",
    "PackedPixels",
    "Pairs",
    "Split",
    "StructuralModel",
    "Uniform",
    "describe",
    "effect",
    "linear_effect",
    "load",
    "measure_effects",
]
