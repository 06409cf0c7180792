"""The terms that objectives are made of: pure functions of tensors, one number per image (and latent), in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name for it
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def bernoulli_nats(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | z) of independent Bernoulli pixels, summed over channel, y and x; shape (n,).

    For grey levels between 0 and 1 this is the cross-entropy, as everywhere in the field, and not a log-likelihood.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), x.float(), reduction="none").flatten(1).sum(1)


def gaussian_nats(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | z) of independent Gaussian pixels with mean sigmoid(logits) and unit variance; shape (n,).

    The constant log(2 pi) / 2 per pixel is kept, so that the value is a log-density: at 64x64 it is 3,764 of the nats.
    """
    error = (torch.sigmoid(logits.float()) - x.float()).flatten(1)
    return 0.5 * (error.square().sum(1) + LOG_2PI * error.shape[1])


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp logvar) || N(0, 1)) per image and latent, shape (n, latent); Kingma & Welling 2014, appendix B."""
    mu, logvar = mu.float(), logvar.float()
    # expm1: the difference exp(logvar) - 1 - logvar loses all digits for an unused latent, whose logvar is about 0.
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


RECONSTRUCTIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bernoulli": bernoulli_nats,
    "gaussian": gaussian_nats,
}
