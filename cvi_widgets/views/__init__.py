"""Views: pure functions from a data set to a HoloViews element, no widgets and no model."""

from __future__ import annotations

from cvi_widgets.views.bars import ces_bars, graph_effects, site_bars
from cvi_widgets.views.curves import kl_curves, position_panel, training_curves
from cvi_widgets.views.maps import (
    effect_on_factors,
    factor_by_latent,
    input_response,
    mediation_map,
    patching_map,
    sites_of,
)
from cvi_widgets.views.pictures import as_uint8, image_grid, mosaic, traversal_grid
from cvi_widgets.views.style import SCHEMES

__all__ = [
    "SCHEMES",
    "as_uint8",
    "ces_bars",
    "effect_on_factors",
    "factor_by_latent",
    "graph_effects",
    "image_grid",
    "input_response",
    "kl_curves",
    "mediation_map",
    "mosaic",
    "patching_map",
    "position_panel",
    "site_bars",
    "sites_of",
    "training_curves",
    "traversal_grid",
]
