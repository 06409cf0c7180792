"""reconstruction + KL + gamma * total correlation, read from a discriminator (Kim & Mnih 2018, equation 2).

The discriminator has two outputs: the logit that a code comes from q(z), and the logit that it comes from the product
of q(z)'s marginals. Their difference estimates log q(z) - sum_j log q(z_j), whose mean is the total correlation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name for it
from torch import Tensor

from cvi_widgets.objectives.beta_vae import Terms
from cvi_widgets.objectives.terms import RECONSTRUCTIONS, kl_standard_normal


def factor_vae(
    logits: Tensor,
    mu: Tensor,
    logvar: Tensor,
    judged: Tensor,
    x: Tensor,
    *,
    gamma: float,
    weight: float = 1.0,
    reconstruction: str = "bernoulli",
) -> Terms:
    """The FactorVAE's loss and its terms; with gamma = 0 it is the negative ELBO.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, logvar
        Posterior, shape (n, latent).
    judged
        The discriminator's outputs for the codes drawn, shape (n, 2).
    gamma
        Weight of the total correlation, zero or more.
    weight
        Factor on everything but the reconstruction, for a warm-up.
    reconstruction
        "bernoulli" or "gaussian".
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    kl_latent = kl_standard_normal(mu, logvar).mean(0)
    kl = kl_latent.sum()
    correlation = total_correlation(judged)
    return Terms(nats + weight * (kl + gamma * correlation), nats, kl, kl_latent, {"total_correlation": correlation})


def total_correlation(judged: Tensor) -> Tensor:
    """Mean log density ratio in nats, a scalar, of the discriminator's outputs (n, 2) for codes from q(z)."""
    return (judged[:, 0] - judged[:, 1]).float().mean()


def discriminator_loss(judged: Tensor, judged_permuted: Tensor) -> Tensor:
    """Mean cross-entropy in nats of telling codes (n, 2) from permuted codes (m, 2), each half of the weight."""
    real, permuted = judged.float(), judged_permuted.float()
    first = F.cross_entropy(real, torch.zeros(len(real), dtype=torch.long, device=real.device))
    second = F.cross_entropy(permuted, torch.ones(len(permuted), dtype=torch.long, device=permuted.device))
    return 0.5 * (first + second)


def permute_dims(z: Tensor, order: Tensor) -> Tensor:
    """Each latent's column shuffled on its own (algorithm 1): `order` (n, latent) holds a permutation per column.

    The columns keep their values, so the marginals are those of `z`; what tied one to another is lost.
    """
    return z.gather(0, order)
