"""reconstruction + beta * KL (Higgins et al. 2017, equation 4); with beta = 1 it is the negative ELBO.

Sums over pixels and latents, mean over the batch: beta means what it means in the papers. Dividing either sum by its
number of entries, as some libraries do, changes beta by a factor of hundreds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from cvi_widgets.objectives.terms import RECONSTRUCTIONS, kl_standard_normal


class Terms(NamedTuple):
    """Loss terms in nats, means over the batch: three scalars and the KL of each latent, shape (latent,).

    `extras` are the scalars that only this objective has, by name.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    kl_latent: Tensor
    extras: Mapping[str, Tensor] = MappingProxyType({})


def beta_vae(
    logits: Tensor, mu: Tensor, logvar: Tensor, x: Tensor, *, beta: float, reconstruction: str = "bernoulli"
) -> Terms:
    """The beta-VAE's loss and its terms.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, logvar
        Posterior, shape (n, latent).
    beta
        Weight of the KL, zero or more.
    reconstruction
        "bernoulli" or "gaussian".
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    kl_latent = kl_standard_normal(mu, logvar).mean(0)
    kl = kl_latent.sum()
    return Terms(nats + beta * kl, nats, kl, kl_latent)
