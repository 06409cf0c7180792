"""reconstruction + gamma * |KL - C| with a capacity C that grows (Burgess et al. 2018, equation 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from cvi_widgets.objectives.beta_vae import Terms
from cvi_widgets.objectives.terms import RECONSTRUCTIONS, kl_standard_normal


def annealed_vae(
    logits: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x: Tensor,
    *,
    gamma: float,
    capacity: float,
    reconstruction: str = "bernoulli",
) -> Terms:
    """The annealed VAE's loss and its terms.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, logvar
        Posterior, shape (n, latent).
    gamma
        Weight of the distance between the KL and the capacity, zero or more.
    capacity
        Nats that the KL is drawn to at this step.
    reconstruction
        "bernoulli" or "gaussian".
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    kl_latent = kl_standard_normal(mu, logvar).mean(0)
    kl = kl_latent.sum()
    loss = nats + gamma * (kl - capacity).abs()
    return Terms(loss, nats, kl, kl_latent, {"capacity": torch.as_tensor(capacity, device=kl.device)})
