"""A variational autoencoder with a diagonal Gaussian posterior, whatever its networks.

The networks come from one file per family (`paper`, `dlib`). Every activation is a module of its own, with a name, so
that a hook can read and write the value on either side of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ImageShape = tuple[int, int, int]
"""(channel, y, x)"""


class Posterior(NamedTuple):
    """q(z | x) = N(mu, diag exp(logvar)); both of shape (n, latent)."""

    mu: Tensor
    logvar: Tensor


class Output(NamedTuple):
    """One forward pass: decoder logits (n, channel, y, x), the posterior, and the z that was decoded (n, latent)."""

    logits: Tensor
    posterior: Posterior
    z: Tensor


class Networks(NamedTuple):
    """The two halves of a family: the encoder ends in `features` numbers, the decoder starts from the latents."""

    encoder: nn.Sequential
    features: int
    decoder: nn.Sequential


class GaussianVAE(nn.Module):
    """Encoder, two linear heads, decoder (Kingma & Welling 2014, appendix C).

    Attributes
    ----------
    encoder, decoder : nn.Sequential
        Named children: `conv0`, `act0`, ..., `flatten`; `fc0`, `act0`, `unflatten`, `deconv0`, ... The last decoder
        layer has no activation: its values are the logits of pixel probabilities (or of Gaussian means).
    latent_mu, latent_logvar : nn.Linear
        Heads from the encoder's features to the posterior.
    """

    def __init__(self, networks: Networks, latents: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.encoder = networks.encoder
        self.latent_mu = nn.Linear(networks.features, latents)
        self.latent_logvar = nn.Linear(networks.features, latents)
        self.decoder = networks.decoder
        self.latents = latents
        self.image_shape = image_shape

    def encode(self, x: Tensor) -> Posterior:
        """Posterior of images `x`, shape (n, channel, y, x), values in [0, 1]."""
        features = self.encoder(x)
        # Under autocast the features are bfloat16; 8 bits of mantissa are too few for a mean that is swept and patched.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.latent_mu.weight.dtype)
            return Posterior(self.latent_mu(features), self.latent_logvar(features))

    def sample(self, posterior: Posterior, noise: Tensor) -> Tensor:
        """z = mu + exp(logvar / 2) * noise; `noise` is standard normal, shape (n, latent)."""
        return posterior.mu + torch.exp(0.5 * posterior.logvar) * noise

    def decode_logits(self, z: Tensor) -> Tensor:
        """Logits of the image, shape (n, channel, y, x)."""
        logits: Tensor = self.decoder(z)
        return logits

    def decode(self, z: Tensor) -> Tensor:
        """The image in [0, 1]: pixel probabilities (Bernoulli) or means (Gaussian), shape (n, channel, y, x)."""
        return torch.sigmoid(self.decode_logits(z))

    def forward(self, x: Tensor, noise: Tensor) -> Output:
        """Encode, sample with the given `noise`, decode."""
        posterior = self.encode(x)
        z = self.sample(posterior, noise)
        return Output(self.decode_logits(z), posterior, z)
