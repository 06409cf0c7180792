"""Tiny models whose behaviour is known, and a tiny factor data set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvi_widgets.data.protocol import Pairs, Split


class ConvVAE(nn.Module):
    """Convolutional, every activation its own module, dropout and batch norm included so that the mode matters."""

    image_shape = (1, 8, 8)

    def __init__(self, *, functional: bool = False, norm: bool = False) -> None:
        super().__init__()
        stack: OrderedDict[str, nn.Module] = OrderedDict(conv0=nn.Conv2d(1, 4, 4, 2, 1))
        if norm:
            stack["norm0"] = nn.BatchNorm2d(4)
        stack |= OrderedDict(act0=nn.ReLU(), conv1=nn.Conv2d(4, 6, 4, 2, 1), act1=nn.Tanh(), flatten=nn.Flatten())
        stack |= OrderedDict(fc0=nn.Linear(24, 5), act2=nn.ReLU())
        if norm:
            stack["drop"] = nn.Dropout(0.5)
        self.encoder = nn.Sequential(stack)
        self.latent_mu = nn.Linear(5, 3)
        self.latent_logvar = nn.Linear(5, 3)
        self.decoder = nn.Sequential(OrderedDict(fc0=nn.Linear(3, 16), act0=nn.ReLU(), fc1=nn.Linear(16, 64)))
        self.functional = functional

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        if self.functional:
            h = torch.relu(h) * 1.5
        return self.latent_mu(h), self.latent_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z)).view(-1, *self.image_shape)


class LinearVAE(nn.Module):
    """mu = A x and D(z) = W z, with no non-linearity anywhere; x has one pixel per factor."""

    def __init__(self, code: Tensor, picture: Tensor) -> None:
        super().__init__()
        self.image_shape = (1, 1, code.shape[1])
        self.encoder = nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc0=nn.Linear(code.shape[1], code.shape[1])))
        self.latent_mu = nn.Linear(code.shape[1], code.shape[0])
        self.picture = nn.Linear(code.shape[0], picture.shape[0])
        with torch.no_grad():
            for layer, weight in (
                (self.encoder.fc0, torch.eye(code.shape[1])),
                (self.latent_mu, code),
                (self.picture, picture),
            ):
                layer.weight.copy_(weight)
                layer.bias.zero_()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu = self.latent_mu(self.encoder(x))
        return mu, torch.zeros_like(mu)

    def decode(self, z: Tensor) -> Tensor:
        return self.picture(z).view(-1, *self.image_shape)


class PixelFactors:
    """Images with one pixel per factor, the pixel's value being the factor's class / 10."""

    name = "pixels"
    factor_names = ("a", "b", "c")
    factor_sizes = (10, 10, 10)
    licence = "none"
    provenance = "made in a test"
    image_shape = (1, 1, 3)

    def __init__(self) -> None:
        self.factor_values = {f: np.arange(10) / 10 for f in self.factor_names}

    def __len__(self) -> int:
        return 1000

    def factors(self, index):
        return np.stack([index // 100, index // 10 % 10, index % 10], axis=1)

    def index(self, factors):
        return factors @ np.array([100, 10, 1])

    def images(self, index, dtype="uint8"):
        classes = self.factors(np.asarray(index)).astype(np.float32) / 10
        return classes.reshape(-1, *self.image_shape)

    def sample(self, n, rng):
        return rng.integers(0, 1000, n)

    def pairs(self, factor, n, rng):
        base = self.sample(n, rng)
        classes = self.factors(base)
        column = self.factor_names.index(factor)
        classes[:, column] = (classes[:, column] + rng.integers(1, 10, n)) % 10
        return Pairs(base, self.index(classes))

    def split(self, test, seed):
        order = np.random.default_rng(seed).permutation(1000)
        return Split(order[test:], order[:test])


@pytest.fixture
def conv_vae() -> Callable[..., ConvVAE]:
    """Build a `ConvVAE` with seeded weights and, with norm, running statistics that are not trivial."""

    def build(*, functional: bool = False, norm: bool = False) -> ConvVAE:
        torch.manual_seed(0)
        module = ConvVAE(functional=functional, norm=norm)
        if norm:
            module.encoder.norm0.running_mean.uniform_(-1, 1)
            module.encoder.norm0.running_var.uniform_(0.5, 2)
        return module

    return build


@pytest.fixture
def linear_vae() -> Callable[[Tensor, Tensor], LinearVAE]:
    return LinearVAE


@pytest.fixture
def pixel_factors() -> PixelFactors:
    return PixelFactors()


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Random images of the tiny models, (n, 1, 8, 8)."""

    def make(n: int, seed: int = 0) -> Tensor:
        return torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))

    return make
