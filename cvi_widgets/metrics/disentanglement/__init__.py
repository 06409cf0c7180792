"""Disentanglement metrics: codes and factors in, a data set with value, interval and null out.

Each metric names its `convention`, because numbers of the same name differ by convention more than models do. The
default is the one we hold to be sound; `dlib` is disentanglement_lib's, for comparison with what was published.
"""

from __future__ import annotations

from cvi_widgets.metrics.disentanglement.beta_vae import beta_vae_score
from cvi_widgets.metrics.disentanglement.dci import dci
from cvi_widgets.metrics.disentanglement.explicitness import explicitness
from cvi_widgets.metrics.disentanglement.factor_vae import factor_vae_score
from cvi_widgets.metrics.disentanglement.infomec import infomec
from cvi_widgets.metrics.disentanglement.irs import irs
from cvi_widgets.metrics.disentanglement.mig import mig
from cvi_widgets.metrics.disentanglement.modularity import modularity_score
from cvi_widgets.metrics.disentanglement.sap import sap
from cvi_widgets.metrics.disentanglement.udr import udr

__all__ = [
    "mig",
    "dci",
    "sap",
    "modularity_score",
    "explicitness",
    "factor_vae_score",
    "beta_vae_score",
    "irs",
    "infomec",
    "udr",
]
