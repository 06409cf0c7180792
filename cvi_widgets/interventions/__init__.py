"""Reaching into a model: sites, hooks, interventions as values, measurements, and circuits.

`wrap` any torch VAE, then `intervene_input`, `intervene_latent`, `patch`, `mediate` or `path_patch` it; each returns a
data set with named dimensions, the spread over pairs and 95 % intervals, and `plan` says beforehand what it will cost.
`circuit` finds the graph that a factor's change travels along, `faithfulness` tests it, and `planted` makes models
whose circuit is known. Nothing here knows a data set except through `data.protocol.FactorData`.
"""

from cvi_widgets.interventions.circuits import circuit
from cvi_widgets.interventions.codes import intervene_code
from cvi_widgets.interventions.costs import CostPlan, plan
from cvi_widgets.interventions.faithfulness import faithfulness
from cvi_widgets.interventions.found_circuit import Circuit
from cvi_widgets.interventions.input import intervene_input
from cvi_widgets.interventions.latent import intervene_latent
from cvi_widgets.interventions.mediation import contrasts, mediate
from cvi_widgets.interventions.model import Model, Pass
from cvi_widgets.interventions.motifs import motifs
from cvi_widgets.interventions.patching import patch
from cvi_widgets.interventions.paths import path_patch
from cvi_widgets.interventions.planted import Planted, planted
from cvi_widgets.interventions.sites import Encoded, Site, SiteMap
from cvi_widgets.interventions.sweeps import traversals
from cvi_widgets.interventions.values import Intervention
from cvi_widgets.interventions.wrapping import wrap

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
    "intervene_code",
    "traversals",
    "patch",
    "path_patch",
    "plan",
    "CostPlan",
    "mediate",
    "contrasts",
    "circuit",
    "Circuit",
    "faithfulness",
    "motifs",
    "Planted",
    "planted",
]
