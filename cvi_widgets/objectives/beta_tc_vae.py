"""reconstruction + KL + (beta - 1) * total correlation (Chen et al. 2018, equation 4 with alpha = gamma = 1).

The aggregate posterior q(z) is a mixture over all training images; a batch stands for them with weights (appendix C):
*weighted* gives each of its n images 1 / (n N), a lower bound that is off by up to log N per density; *stratified*
gives the image that z came from its true 1 / N, and the others, drawn from the rest, the remaining weight.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cvi_widgets.objectives.beta_vae import Terms
from cvi_widgets.objectives.terms import LOG_2PI, RECONSTRUCTIONS, kl_standard_normal

Estimator = Literal["stratified", "weighted"]


class Decomposition(NamedTuple):
    """The KL's three parts, scalars in nats (equation 2); their sum is a one-draw estimate of the KL."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


def beta_tc_vae(
    logits: Tensor,
    mu: Tensor,
    logvar: Tensor,
    z: Tensor,
    x: Tensor,
    *,
    beta: float,
    images: int,
    estimator: Estimator = "stratified",
    weight: float = 1.0,
    reconstruction: str = "bernoulli",
) -> Terms:
    """The beta-TC-VAE's loss and its terms; with beta = 1 it is the negative ELBO.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, logvar, z
        Posterior and the codes drawn from it, shape (n, latent).
    beta
        Weight of the total correlation, zero or more.
    images
        Number of training images.
    estimator
        How the batch stands for the training images.
    weight
        Factor on everything but the reconstruction, for a warm-up.
    reconstruction
        "bernoulli" or "gaussian".
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    kl_latent = kl_standard_normal(mu, logvar).mean(0)
    kl = kl_latent.sum()
    parts = decompose(mu, logvar, z, images, estimator)
    loss = nats + weight * (kl + (beta - 1) * parts.total_correlation)
    return Terms(loss, nats, kl, kl_latent, parts._asdict())


def decompose(mu: Tensor, logvar: Tensor, z: Tensor, images: int, estimator: Estimator = "stratified") -> Decomposition:
    """Mutual information, total correlation and the latents' own KL of codes `z` drawn from (n, latent) posteriors."""
    mu, logvar, z = mu.float(), logvar.float(), z.float()
    each = _log_normal(z[:, None], mu[None], logvar[None])
    given = each.diagonal(dim1=0, dim2=1).sum(0)
    if estimator == "stratified":
        weights = stratified_log_weights(len(z), images, z.device)
    else:
        weights = torch.full((len(z), len(z)), -math.log(len(z) * images), device=z.device)
    joint = torch.logsumexp(weights + each.sum(2), dim=1)
    marginals = torch.logsumexp(weights[:, :, None] + each, dim=1).sum(1)
    prior = -0.5 * (z.square() + LOG_2PI).sum(1)
    return Decomposition((given - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean())


def stratified_log_weights(n: int, images: int, device: torch.device | str = "cpu") -> Tensor:
    """log of the weight that the density of z_i given image j has in q(z_i), shape (i = n, j = n); rows sum to 1.

    Of a batch of M + 1 images and N in all, image i itself weighs 1 / N, one other (N - M) / (N M), the rest 1 / M
    (appendix C.2). The one other is the next image, so that each is it once.
    """
    if n == 1:
        return torch.zeros(1, 1, device=device)
    others = n - 1
    # Batches larger than the data repeat images; then each weighs the same.
    total = max(images, n)
    weights = torch.full((n, n), 1 / others, dtype=torch.float64)
    row = torch.arange(n)
    weights[row, row] = 1 / total
    weights[row, (row + 1) % n] = (total - others) / (total * others)
    return weights.log().float().to(device)


def _log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar + LOG_2PI)
