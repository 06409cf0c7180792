"""Losses only: pure functions of tensors."""

from __future__ import annotations

from cvi_widgets.objectives.beta_vae import Terms, beta_vae
from cvi_widgets.objectives.terms import RECONSTRUCTIONS, bernoulli_nats, gaussian_nats, kl_standard_normal

__all__ = ["RECONSTRUCTIONS", "Terms", "bernoulli_nats", "beta_vae", "gaussian_nats", "kl_standard_normal"]
