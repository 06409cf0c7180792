"""Losses only: pure functions of tensors."""

from __future__ import annotations

from cvi_widgets.objectives.annealed_vae import annealed_vae
from cvi_widgets.objectives.beta_tc_vae import Decomposition, beta_tc_vae, decompose, stratified_log_weights
from cvi_widgets.objectives.beta_vae import Terms, beta_vae
from cvi_widgets.objectives.dip_vae import code_covariance, dip_vae
from cvi_widgets.objectives.factor_vae import discriminator_loss, factor_vae, permute_dims, total_correlation
from cvi_widgets.objectives.terms import RECONSTRUCTIONS, bernoulli_nats, gaussian_nats, kl_standard_normal
from cvi_widgets.objectives.vq_vae import Codebook, follow, perplexity, restart, vq_vae

__all__ = [
    "RECONSTRUCTIONS",
    "Codebook",
    "Decomposition",
    "Terms",
    "annealed_vae",
    "bernoulli_nats",
    "beta_tc_vae",
    "beta_vae",
    "code_covariance",
    "decompose",
    "dip_vae",
    "discriminator_loss",
    "factor_vae",
    "follow",
    "gaussian_nats",
    "kl_standard_normal",
    "permute_dims",
    "perplexity",
    "restart",
    "stratified_log_weights",
    "total_correlation",
    "vq_vae",
]
