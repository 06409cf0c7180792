"""FactorVAE's discriminator: fully connected, told codes of images from codes with shuffled columns.

Six layers of 1000 units with leaky ReLU of slope 0.2 and two logits (Kim & Mnih 2018, appendix A, table 3).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

SLOPE = 0.2


def discriminator(latents: int, layers: int = 6, width: int = 1000) -> nn.Sequential:
    """Codes (n, latent) to logits (n, 2): that they come from q(z), and from the product of its marginals."""
    stack: OrderedDict[str, nn.Module] = OrderedDict()
    before = latents
    for i in range(layers):
        stack[f"fc{i}"] = nn.Linear(before, width)
        stack[f"act{i}"] = nn.LeakyReLU(SLOPE)
        before = width
    stack[f"fc{layers}"] = nn.Linear(before, 2)
    return nn.Sequential(stack)
