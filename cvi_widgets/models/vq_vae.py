"""A variational autoencoder with a discrete code: a map of entries of one codebook (van den Oord et al. 2017).

The networks are the families' own, without their fully connected layers: the code keeps the place of what it says. At
64x64 it is 8 x 8 cells for `paper` and `slim`, 4 x 4 for `dlib`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cvi_widgets.models.vae import ImageShape, Networks


class VQOutput(NamedTuple):
    """One forward pass: decoder logits (n, channel, y, x), what enters the quantiser and what leaves it, both
    (n, latent, cell y, cell x), and integer codes (n, 1, cell y, cell x).

    The gradient of the logits goes straight to `mu`.
    """

    logits: Tensor
    mu: Tensor
    z: Tensor
    codes: Tensor


class VQVAE(nn.Module):
    """Convolutional encoder, nearest entry of a codebook, decoder (van den Oord et al. 2017, section 3).

    Attributes
    ----------
    encoder, latent_mu, decoder : nn.Sequential, nn.Conv2d, nn.Sequential
        Convolutions; their 1x1 head to `latents` channels; a 1x1 convolution back and the transposed ones.
    codebook : Tensor
        (code, latent). A parameter when the loss moves it, a buffer when moving averages do.
    usage, total : Tensor
        Moving averages of how many vectors each code was given (code,) and of their sum (code, latent).
    """

    codebook: Tensor
    usage: Tensor
    total: Tensor

    def __init__(self, networks: Networks, latents: int, n_codes: int, image_shape: ImageShape, trained: bool) -> None:
        super().__init__()
        self.encoder = _until_flatten(networks.encoder)
        decoder = list(_after_unflatten(networks.decoder))
        width = next(m.in_channels for _, m in decoder if isinstance(m, nn.ConvTranspose2d))
        features = [m.out_channels for m in self.encoder if isinstance(m, nn.Conv2d)][-1]
        self.latent_mu = nn.Conv2d(features, latents, 1)
        head: list[tuple[str, nn.Module]] = [("conv0", nn.Conv2d(latents, width, 1)), ("act0", nn.ReLU())]
        self.decoder = nn.Sequential(OrderedDict([*head, *decoder]))
        first = torch.empty(n_codes, latents).uniform_(-1 / n_codes, 1 / n_codes)
        if trained:
            self.codebook = nn.Parameter(first)
        else:
            self.register_buffer("codebook", first)
        self.register_buffer("usage", torch.ones(n_codes))
        self.register_buffer("total", first.clone())
        self.latents, self.n_codes, self.image_shape = latents, n_codes, image_shape

    def encode(self, x: Tensor) -> Tensor:
        """What enters the quantiser, (n, latent, cell y, cell x), of images (n, channel, y, x) in [0, 1]."""
        features = self.encoder(x)
        # As in the Gaussian model: distances to codes need more digits than autocast leaves.
        with torch.autocast(features.device.type, enabled=False):
            mu: Tensor = self.latent_mu(features.to(self.latent_mu.weight.dtype))
            return mu

    def quantise(self, mu: Tensor) -> Tensor:
        """Nearest entries of the codebook, int64 (n, 1, cell y, cell x), of `mu` (n, latent, cell y, cell x)."""
        rows = mu.movedim(1, -1)
        book = self.codebook
        # |mu|^2 is the same for all codes and is left out.
        return (book.square().sum(1) - 2 * rows @ book.T).argmin(-1)[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        """Entries of the codebook, (n, latent, cell y, cell x), of codes (n, 1, cell y, cell x)."""
        return self.codebook[codes[:, 0]].movedim(-1, 1)

    def decode_logits(self, z: Tensor) -> Tensor:
        """Logits of the image, shape (n, channel, y, x)."""
        logits: Tensor = self.decoder(z)
        return logits

    def decode(self, z: Tensor) -> Tensor:
        """The image in [0, 1], shape (n, channel, y, x), of what leaves the quantiser."""
        return torch.sigmoid(self.decode_logits(z))

    def forward(self, x: Tensor) -> VQOutput:
        """Encode, quantise, decode."""
        mu = self.encode(x)
        codes = self.quantise(mu.detach())
        z = self.lookup(codes)
        return VQOutput(self.decode_logits(mu + (z - mu).detach()), mu, z, codes)


def _until_flatten(encoder: nn.Sequential) -> nn.Sequential:
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in encoder.named_children():
        if isinstance(module, nn.Flatten):
            break
        kept[name] = module
    return nn.Sequential(kept)


def _after_unflatten(decoder: nn.Sequential) -> Iterable[tuple[str, nn.Module]]:
    found = False
    for name, module in decoder.named_children():
        if found:
            yield name, module
        found = found or isinstance(module, nn.Unflatten)
