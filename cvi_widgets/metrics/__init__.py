"""Metrics: pure functions of arrays, with intervals and nulls; no model is needed."""

from cvi_widgets.metrics.causal import (
    Modularity,
    active_latents,
    ces_l2,
    ces_rms,
    circuit_modularity,
    modularity,
    monosemantic,
    polysemantic_fraction,
    polysemanticity,
    specificity,
    specificity_published,
)
from cvi_widgets.metrics.disentanglement import (
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    infomec,
    irs,
    mig,
    modularity_score,
    sap,
    udr,
)
from cvi_widgets.metrics.position import PositionLatent, position_latent, r_squared, readouts
from cvi_widgets.metrics.statistics import Interval, Null, bootstrap, bootstrap_means, permutation_null
from cvi_widgets.metrics.summary import summarise

__all__ = [
    "summarise",
    "ces_l2",
    "ces_rms",
    "specificity",
    "specificity_published",
    "polysemanticity",
    "polysemantic_fraction",
    "monosemantic",
    "circuit_modularity",
    "modularity",
    "Modularity",
    "active_latents",
    "position_latent",
    "PositionLatent",
    "r_squared",
    "readouts",
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
    "bootstrap",
    "bootstrap_means",
    "permutation_null",
    "Interval",
    "Null",
]
