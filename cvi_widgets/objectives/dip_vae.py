"""reconstruction + KL + a penalty that draws the covariance of the codes to the identity (Kumar et al. 2018).

Variant i takes the covariance of the posterior means (equation 6), variant ii that of the sampled codes, which is the
former plus the mean posterior variance on the diagonal (equation 7).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cvi_widgets.objectives.beta_vae import Terms
from cvi_widgets.objectives.terms import RECONSTRUCTIONS, kl_standard_normal

Variant = Literal["i", "ii"]


def dip_vae(
    logits: Tensor,
    mu: Tensor,
    logvar: Tensor,
    x: Tensor,
    *,
    lambda_od: float,
    lambda_d: float,
    variant: Variant = "ii",
    weight: float = 1.0,
    reconstruction: str = "bernoulli",
) -> Terms:
    """The DIP-VAE's loss and its terms; with both lambdas zero it is the negative ELBO.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, logvar
        Posterior, shape (n, latent).
    lambda_od, lambda_d
        Weights of the squared covariances and of the squared differences of the variances from 1.
    variant
        "i" or "ii".
    weight
        Factor on everything but the reconstruction, for a warm-up.
    reconstruction
        "bernoulli" or "gaussian".
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    kl_latent = kl_standard_normal(mu, logvar).mean(0)
    kl = kl_latent.sum()
    covariance = code_covariance(mu, logvar, variant)
    variances = covariance.diagonal()
    # Not the sum of all squares less that of the diagonal: what is sought is their small difference.
    off_diagonal = (covariance - torch.diag(variances)).square().sum()
    diagonal = (variances - 1).square().sum()
    loss = nats + weight * (kl + lambda_od * off_diagonal + lambda_d * diagonal)
    return Terms(loss, nats, kl, kl_latent, {"squared_covariances": off_diagonal, "squared_variance_errors": diagonal})


def code_covariance(mu: Tensor, logvar: Tensor, variant: Variant = "ii") -> Tensor:
    """Covariance of the codes over a batch, shape (latent, latent): of the means, or with the posterior's variance.

    The batch's own second moments are taken (division by n), as in the authors' expectation.
    """
    mu, logvar = mu.float(), logvar.float()
    centred = mu - mu.mean(0)
    covariance = centred.T @ centred / len(mu)
    return covariance if variant == "i" else covariance + torch.diag(logvar.exp().mean(0))
