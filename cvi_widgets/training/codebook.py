"""The step of a codebook that no gradient takes: moving averages, and codes that start anew."""

from __future__ import annotations

import torch
from torch import Tensor

from cvi_widgets.config import VQVAEConfig
from cvi_widgets.models import VQVAE, VQOutput
from cvi_widgets.objectives.vq_vae import Codebook, follow, restart


def learn(model: VQVAE, out: VQOutput, config: VQVAEConfig, noise: torch.Generator) -> None:
    """Move the codebook of `model` after a batch; all that it keeps is in the model's buffers."""
    with torch.no_grad():
        mu, codes = _rows(out.mu), out.codes.flatten()
        book = Codebook(model.codebook, model.usage, model.total)
        moved = follow(book, mu, codes, config.ema_decay, keep=config.codebook == "loss")
        if config.restart_below > 0:
            drawn = torch.randint(len(mu), (model.n_codes,), generator=noise).to(mu.device)
            moved = restart(moved, mu, drawn, config.restart_below)
        model.codebook.copy_(moved.entries)
        model.usage.copy_(moved.usage)
        model.total.copy_(moved.total)


def _rows(mu: Tensor) -> Tensor:
    return mu.detach().movedim(1, -1).flatten(0, -2).float()
