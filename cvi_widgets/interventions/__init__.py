"""Reaching into a model: sites, hooks, interventions as values, and the four measurements.

`wrap` any torch VAE, then `intervene_input`, `intervene_latent`, `patch` or `mediate` it; each returns a data set with
named dimensions and 95 % intervals. Nothing here knows a data set except through `data.protocol.FactorData`.
"""

from cvi_widgets.interventions.input import intervene_input
from cvi_widgets.interventions.latent import intervene_latent, traversals
from cvi_widgets.interventions.mediation import contrasts, mediate
from cvi_widgets.interventions.model import Model, Pass, wrap
from cvi_widgets.interventions.patching import patch
from cvi_widgets.interventions.planted import Planted, planted
from cvi_widgets.interventions.sites import Encoded, Site, SiteMap
from cvi_widgets.interventions.values import Intervention

__all__ = [
    "wrap",
    "Model",
    "Pass",
    "Encoded",
    "Site",
    "SiteMap",
    "Intervention",
    "intervene_input",
    "intervene_latent",
    "traversals",
    "patch",
    "mediate",
    "contrasts",
    "Planted",
    "planted",
]
