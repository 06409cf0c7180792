"""reconstruction + commitment, and how the codebook follows (van den Oord et al. 2017, equation 3 and appendix A.1).

Squared distances are summed over the code's dimensions and averaged over cells and images, as in the paper; the
reconstruction is in nats, summed over pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cvi_widgets.objectives.beta_vae import Terms
from cvi_widgets.objectives.terms import RECONSTRUCTIONS


class Codebook(NamedTuple):
    """Entries (code, latent), and moving averages of use (code,) and of the vectors' sum (code, latent)."""

    entries: Tensor
    usage: Tensor
    total: Tensor


def vq_vae(
    logits: Tensor,
    mu: Tensor,
    z: Tensor,
    codes: Tensor,
    x: Tensor,
    *,
    n_codes: int,
    commitment: float,
    trained: bool,
    reconstruction: str = "bernoulli",
) -> Terms:
    """The VQ-VAE's loss and its terms.

    Parameters
    ----------
    logits, x
        Decoder logits and images, shape (n, channel, y, x); images in [0, 1].
    mu, z
        What enters the quantiser and what leaves it, shape (n, latent, cell y, cell x).
    codes
        Integers (n, 1, cell y, cell x).
    n_codes
        Entries of the codebook.
    commitment
        Weight of drawing `mu` to its code.
    trained
        Whether the loss also draws the codes to `mu`; otherwise moving averages do.
    reconstruction
        "bernoulli" or "gaussian".

    Returns
    -------
    Terms
        `kl` is that of a certain code to the uniform prior, log `n_codes` per cell: a constant, and in no loss. It
        belongs to no latent, so that `kl_latent` (latent,) is zero.
    """
    nats = RECONSTRUCTIONS[reconstruction](logits, x).mean()
    mu, z = mu.float(), z.float()
    drawn = (mu - z.detach()).square().sum(1).mean()
    loss = nats + commitment * drawn
    if trained:
        loss = loss + (mu.detach() - z).square().sum(1).mean()
    kl = torch.full_like(nats, math.log(n_codes) * codes[0].numel())
    extras = {"commitment_distance": drawn, "perplexity": perplexity(codes, n_codes)}
    return Terms(loss, nats, kl, torch.zeros(mu.shape[1], device=mu.device), extras)


def perplexity(codes: Tensor, n_codes: int) -> Tensor:
    """exp of the entropy of how often the codes of a batch occur, a scalar from 1 to `n_codes`."""
    share = torch.bincount(codes.flatten(), minlength=n_codes).float() / codes.numel()
    return torch.exp(torch.special.entr(share).sum())


def follow(book: Codebook, mu: Tensor, codes: Tensor, decay: float, keep: bool = False) -> Codebook:
    """The codebook after a batch: each entry is the moving average of the vectors given to it (appendix A.1).

    Parameters
    ----------
    book
        Entries and moving averages before.
    mu
        Vectors that entered the quantiser (vector, latent).
    codes
        The code of each (vector,).
    decay
        Weight of the past, below 1.
    keep
        Leave the entries as they are, and count only.
    """
    usage = book.usage.lerp(torch.bincount(codes, minlength=len(book.usage)).to(mu.dtype), 1 - decay)
    total = book.total.lerp(torch.zeros_like(book.total).index_add_(0, codes, mu), 1 - decay)
    if keep:
        return Codebook(book.entries, usage, total)
    # An entry without any use keeps its place; total / usage is not defined for it.
    used = usage > torch.finfo(mu.dtype).tiny
    entries = torch.where(used[:, None], total / torch.where(used, usage, 1.0)[:, None], book.entries)
    return Codebook(entries, usage, total)


def restart(book: Codebook, mu: Tensor, drawn: Tensor, below: float) -> Codebook:
    """Move codes whose use has fallen under `below` to vectors of the batch (Dhariwal et al. 2020, section 3.1).

    `mu` (vector, latent) are the batch's vectors, `drawn` (code,) the row of it that each code would move to. A moved
    code starts with the use of one vector.
    """
    idle = book.usage < below
    entries = torch.where(idle[:, None], mu[drawn], book.entries)
    usage = torch.where(idle, 1.0, book.usage)
    return Codebook(entries, usage, torch.where(idle[:, None], entries, book.total))
