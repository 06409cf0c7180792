"""Held-out figures, one number per image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cvi_widgets.data.protocol import FactorData, Index
from cvi_widgets.models import VQVAE, GaussianVAE
from cvi_widgets.objectives import RECONSTRUCTIONS, kl_standard_normal

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """Per image: `reconstruction` in nats with z drawn from the posterior (the ELBO's term, one draw) and
    `reconstruction_at_mean` with z = mu, both (example,); `kl` in nats, `mu`, `logvar`, all (example, latent)."""

    reconstruction: Floats
    reconstruction_at_mean: Floats
    kl: Floats
    mu: Floats
    logvar: Floats


def evaluate(
    model: GaussianVAE | VQVAE,
    data: FactorData,
    index: Index,
    *,
    reconstruction: str = "bernoulli",
    seed: int = 0,
    batch_size: int = 256,
) -> Evaluation:
    """Evaluate `model` in float32 on the images `index`, in batches; `seed` fixes the draw of z.

    The draw of an image depends on its place in `index` and not on `batch_size`. Of a discrete code, which is not
    drawn, `mu` is what leaves the quantiser, averaged over cells; `kl` is log K per cell, spread evenly over the
    latents; `logvar` is 0.
    """
    device = next(model.parameters()).device
    noise = torch.randn(len(index), model.latents, generator=torch.Generator().manual_seed(seed))
    nats = RECONSTRUCTIONS[reconstruction]
    parts: list[list[torch.Tensor]] = []
    with torch.inference_mode():
        for start in range(0, len(index), batch_size):
            x = torch.from_numpy(data.images(index[start : start + batch_size], "float32")).to(device)
            x = x.contiguous(memory_format=torch.channels_last)
            if isinstance(model, VQVAE):
                parts.append(_discrete(model, x, nats))
                continue
            posterior = model.encode(x)
            z = model.sample(posterior, noise[start : start + batch_size].to(device))
            parts.append(
                [
                    nats(model.decode_logits(z), x),
                    nats(model.decode_logits(posterior.mu), x),
                    kl_standard_normal(*posterior),
                    posterior.mu,
                    posterior.logvar,
                ]
            )
    columns = (torch.cat(column).float().cpu().numpy() for column in zip(*parts, strict=True))
    return Evaluation(*columns)


def _discrete(
    model: VQVAE, x: torch.Tensor, nats: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    z = model.lookup(codes := model.quantise(model.encode(x)))
    found = nats(model.decode_logits(z), x)
    mu = z.flatten(2).mean(2)
    kl = math.log(model.n_codes) * codes[0].numel() / model.latents
    return [found, found, torch.full_like(mu, kl), mu, torch.zeros_like(mu)]
