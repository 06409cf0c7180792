"""FactorVAE's second player: the discriminator, its optimiser, and the wall between the two gradients.

The autoencoder's loss sees the discriminator with detached weights; the discriminator's loss sees detached codes. So
neither backward pass can leave a gradient with the other player, whatever the order of their steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from cvi_widgets.config import FactorVAEConfig
from cvi_widgets.models.discriminator import discriminator
from cvi_widgets.objectives import discriminator_loss, permute_dims


class Adversary:
    """A discriminator that learns to tell codes from permuted codes.

    Parameters
    ----------
    config
        Its size, learning rate and Adam's decay rates.
    seed
        Decides its first weights; the global random state is left as it was.
    device
        Where it computes.
    """

    def __init__(self, config: FactorVAEConfig, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = discriminator(config.latents, config.discriminator_layers, config.discriminator_width)
        self.network = network.to(device)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=config.discriminator_learning_rate,
            betas=(config.discriminator_beta1, config.discriminator_beta2),
            fused=True,
        )

    def judge(self, z: Tensor) -> Tensor:
        """Logits (n, 2) of codes (n, latent), through which gradients reach `z` and not the discriminator."""
        weights = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        judged: Tensor = functional_call(self.network, weights, (z.float(),))
        return judged

    def learn(self, z: Tensor, other: Tensor, order: Tensor) -> Tensor:
        """One step on codes `z` against the codes `other` of a second batch, columns shuffled by `order`.

        All of shape (n, latent). Returns the loss before the step, in nats.
        """
        permuted = permute_dims(other.detach().float(), order)
        loss = discriminator_loss(self.network(z.detach().float()), self.network(permuted))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()
