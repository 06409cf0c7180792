"""Planted circuits: VAEs whose weights are written rather than trained, so that the true circuit is known.

They are the ground truth for anything that claims to find circuits or effects. Do not use them to judge how a method
copes with trained networks: here every unit does one thing, and nothing is learned.

The images have one block of grey per factor. How a factor travels to its latent depends on the kind; the decoder
leads every latent back to its block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from cvi_widgets.data.grid_data import GridData
from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions.model import Model
from cvi_widgets.interventions.planted_data import block_data, block_owners
from cvi_widgets.interventions.planted_graph import per_class, true_graph
from cvi_widgets.interventions.planted_weights import Kind, Layer, Spec, written
from cvi_widgets.interventions.wrapping import wrap
from cvi_widgets.names import unknown

LOGVAR = -6.0
"""Log variance of every latent, constant: the posterior is narrow beside the data's unit variance."""


class PlantedVAE(nn.Module):
    """Fully connected encoder, two linear heads, fully connected decoder without an output non-linearity.

    Attributes
    ----------
    encoder, decoder : nn.Sequential of `fc0`, `act0`, `fc1`, ...; the decoder ends in `output`
    latent_mu, latent_logvar : nn.Linear
    image_shape : (channel, y, x)
    """

    def __init__(self, layers: Sequence[Layer], image_shape: tuple[int, int, int], linear: bool) -> None:
        super().__init__()
        self.image_shape = image_shape
        head = [layer.site for layer in layers].index("latent.mu")
        hidden = len(layers[head].weight[0])
        encoder: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        self.encoder = nn.Sequential(encoder | _stack(layers[:head], linear))
        self.latent_mu = _linear(layers[head].weight, layers[head].bias)
        latents = len(layers[head].bias)
        self.latent_logvar = _linear(np.zeros((latents, hidden)), np.full(latents, LOGVAR))
        decoder = _stack(layers[head + 1 : -1], linear)
        decoder["output"] = _linear(layers[-1].weight, layers[-1].bias)
        self.decoder = nn.Sequential(decoder | OrderedDict(unflatten=nn.Unflatten(1, image_shape)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar, shape (n, latent) each, of images (n, channel, y, x)."""
        h = self.encoder(x)
        return self.latent_mu(h), self.latent_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, channel, y, x) of codes (n, latent); brightness as in the data, not squashed."""
        image: Tensor = self.decoder(z)
        return image


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A VAE, its data, and the truth about it; made by `planted`.

    Attributes
    ----------
    spec : the settings
    module : the torch module, `noise` included
    data : a `FactorData` with factors `f0`, `f1`, ...
    graph : nx.DiGraph, read only
        From `("factor", "f0")` through `("encoder.fc0", 3)`, `("latent.mu", 1)` and `("decoder.fc0", 2)` to
        `("image", 0)`, the number of a block. An edge exists where a change of some factor passes along it on its way
        to the image; its attribute `factors` names these factors, and `weight` is the mean change of the unit per
        class step after a factor, else the network's planted weight (to the image: to each pixel of the block).
    regions : bool, shape (region, y, x), the blocks; block k shows factor k
    layers : the planted layers, without `noise`
    """

    spec: Spec
    module: PlantedVAE
    data: GridData
    graph: nx.DiGraph
    regions: NDArray[np.bool_]
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def kind(self) -> str:
        """How factors are carried."""
        return self.spec.kind

    @property
    def settings(self) -> dict[str, Any]:
        """What `planted(**settings)` needs to make the same again; plain JSON values."""
        return asdict(self.spec)

    @cached_property
    def model(self) -> Model:
        """The module wrapped."""
        return wrap(self.module)

    def edges_of(self, factor: str) -> nx.DiGraph:
        """The part of `graph` along which a change of `factor` passes on its way to the image.

        Where changes cancel, they do not pass: the sum and the difference of two factors both feed the latent of the
        second, but a change of the first does not move it.

        Raises
        ------
        ConfigError
            When there is no such factor.
        """
        if factor not in self.data.factor_names:
            raise ConfigError(unknown("factor", factor, self.data.factor_names))
        edges = [(u, v) for u, v, along in self.graph.edges(data="factors") if factor in along]
        return self.graph.edge_subgraph(edges).copy()

    def known_effects(self) -> xr.DataArray:
        """Total effect of each factor on each latent, dims (factor, latent): mean change of mu per class step.

        The mean is over all images; only gated factors have effects that differ between images. It follows from the
        planted weights and does not see `noise`.
        """
        mu = next(layer for layer in self.layers if layer.site == "latent.mu")
        return xr.DataArray(
            per_class(mu, self.spec.sizes),
            dims=("factor", "latent"),
            coords={"factor": list(self.data.factor_names), "latent": np.arange(len(mu.bias))},
            name="known_effect",
            attrs={"long_name": "mean change of mu per class step of the factor", "units": "mu / class"},
        )

    def explain(self) -> str:
        """What was planted, in a few sentences."""
        spec = self.spec
        layers = f"{spec.depth} hidden {'layer' if spec.depth == 1 else 'layers'} a side"
        says = [
            f"A {spec.kind} circuit of {spec.factors} factors, {layers}, {'linear' if spec.linear else 'rectified'}, "
            f"{spec.noise_units} noise units in each, weight noise {spec.noise:g}."
        ]
        gated = {f"f{k}" for group in spec.groups if group.kind == "gated" for k in group.factors}
        for group in spec.groups:
            factors = [f"f{k}" for k in group.factors]
            reached = {unit for f in factors for unit in self.graph.successors(("factor", f))}
            if group.kind != "gated":
                # The gate factor also reaches the units that it gates.
                reached -= {unit for f in gated for unit in self.graph.successors(("factor", f))}
            who, where = " and ".join(factors), " and ".join(str(unit) for _, unit in sorted(reached))
            says.append(
                {
                    "dedicated": f"{who} has unit {where} of encoder.fc0 to itself.",
                    "redundant": f"{who} is carried in equal parts by units {where} of encoder.fc0.",
                    "shared": f"{who} share units {where} of encoder.fc0, which hold their sum and difference.",
                    "gated": f"{who} passes unit {where} of encoder.fc0 only while f0 is on.",
                }[group.kind]
            )
        return " ".join(says)

    def __repr__(self) -> str:
        shape = self.data.image_shape
        return f"<Planted {self.kind!r}: {self.spec.factors} factors, images {shape}, {len(self.graph.edges)} edges>"


def planted(
    kind: Kind = "dedicated",
    *,
    factors: int = 4,
    depth: int = 1,
    linear: bool = False,
    noise: float = 0.0,
    noise_units: int = 0,
    seed: int = 0,
    values: int = 8,
) -> Planted:
    """Make a VAE whose circuit is known by construction.

    Parameters
    ----------
    kind
        `dedicated`: one unit per factor. `shared`: two units hold the sum and the difference of two factors, and the
        latents of both read both; an odd factor travels alone. `redundant`: two units hold a factor each, and the
        latent takes half from either. `gated`: a unit relu(a + M b - M) passes a factor a only while the binary factor
        b = f0 is on. `mixed`: in turn f0 redundant, one factor gated by it (dedicated if linear), two shared, one
        dedicated.
    factors
        How many, at least 2; each is one block of the image and one latent.
    depth
        Hidden layers in each half. Later layers of the encoder copy units or mix shared ones anew; the decoder mixes
        the latents of shared factors in all hidden layers but its last.
    linear
        Leave the rectifiers out.
    noise
        Standard deviation of Gaussian noise on every weight, relative to the root mean square of the layer's non-zero
        planted weights. Without noise, the image is reconstructed up to rounding by all kinds but those with a gate.
    noise_units
        Units in every hidden layer that read a random half of the pixels (or of the circuit's units in the layer
        before, or of the latents) and write nothing.
    seed
        Of signs and sizes of weights, the order of units and latents, and the noise. The circuit does not depend on
        `noise`, so that several amounts of it can be compared.
    values
        Classes of each factor, at least 2; the gate factor has 2.

    Returns
    -------
    Planted

    Raises
    ------
    ConfigError
        One sentence about a setting that is wrong.

    Examples
    --------
    >>> truth = planted("redundant", factors=2)
    >>> sorted(v for _, v in truth.graph.out_edges(("factor", "f0")))
    [('encoder.fc0', 2), ('encoder.fc0', 3)]
    """
    spec = Spec(kind, factors, depth, linear, noise, noise_units, seed, values)
    layers = written(spec)
    data = block_data(spec.sizes)
    owner = block_owners(factors)
    regions = owner == np.arange(factors)[:, None, None]
    return Planted(
        spec=spec,
        module=PlantedVAE(_noisy(layers, noise, seed), data.image_shape, linear),
        data=data,
        graph=true_graph(layers, spec.sizes, [int(np.flatnonzero(region)[0]) for region in regions]),
        regions=regions,
        layers=layers,
    )


def _noisy(layers: Sequence[Layer], noise: float, seed: int) -> list[Layer]:
    """The layers with Gaussian noise on every weight; for one seed, more noise is the same noise scaled."""
    rng = np.random.default_rng([0x401, seed])
    changed = []
    for layer in layers:
        size = np.sqrt(np.mean(np.square(layer.weight[layer.weight != 0])))
        drawn = rng.standard_normal(layer.weight.shape)
        changed.append(Layer(layer.site, layer.weight + noise * size * drawn, layer.bias, layer.signals))
    return changed


def _stack(layers: Sequence[Layer], linear: bool) -> OrderedDict[str, nn.Module]:
    stack: OrderedDict[str, nn.Module] = OrderedDict()
    for n, layer in enumerate(layers):
        stack[f"fc{n}"] = _linear(layer.weight, layer.bias)
        if not linear:
            stack[f"act{n}"] = nn.ReLU()
    return stack


def _linear(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> nn.Linear:
    # Made without memory, then given some: the usual random start would move torch's global generator.
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))
    return layer
