"""Writing the weights of a planted circuit, layer by layer, in float64.

Each half of the network moves *parts* from its inputs to its outputs. A dedicated factor is one part, a redundant one
is two equal parts, of which the output takes the mean; a shared pair is two parts. A hidden layer holds
`diag(gain) P parts + constant`, where P mixes the parts of a group and `gain` is a seeded sign and size per unit. The
next layer's weights undo one P and gain and apply its own, and the output undoes the last. Constants are chosen so
that no rectifier clips.

The exception is the gate: relu(g a + M b - M) with a in [0, 1], b in {0, 1} and M = g + 1 is g a b.

So every value in the network is affine in the *signals*: the factors' classes scaled to [0, 1], and their products with
the gate factor's. `Layer.signals` has the coefficients, from which effects are known without running anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from cvi_widgets.errors import ConfigError
from cvi_widgets.interventions.planted_data import MOST_VALUES, WHITE, block_owners, grey_levels
from cvi_widgets.names import unknown

Kind = Literal["dedicated", "shared", "redundant", "gated", "mixed"]
Floats = NDArray[np.float64]

REACH = 4.0
"""Latents in [-REACH, REACH] keep every decoder unit in its linear range; those of the data are within 1.8."""
LATENT_SPREAD = math.sqrt(12)
"""Range of a latent over the data, which gives a uniform factor about unit variance."""
MARGIN = 0.25
"""Least value of a unit over the data: what keeps rectifiers from clipping."""
MOST_IMAGES = 2**24

_PARTS = {"dedicated": 1, "redundant": 2, "shared": 2, "gated": 1}
_SUM_AND_DIFFERENCE = np.array([[0.5, 0.5], [0.5, -0.5]])
_REMIXED = np.array([[0.75, 0.25], [0.25, -0.75]])


@dataclass(frozen=True)
class Spec:
    """Settings of `planted`, checked.

    Raises
    ------
    ConfigError
        One sentence about the first setting that is wrong.
    """

    kind: Kind = "dedicated"
    factors: int = 4
    depth: int = 1
    linear: bool = False
    noise: float = 0.0
    noise_units: int = 0
    seed: int = 0
    values: int = 8

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(unknown("kind", self.kind, get_args(Kind)))
        for name, least in (("factors", 2), ("depth", 1), ("noise_units", 0), ("seed", 0), ("values", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ConfigError(f"{name} is {value!r}; a whole number of at least {least} is needed.")
            object.__setattr__(self, name, int(value))
        if self.values > MOST_VALUES:
            raise ConfigError(f"values is {self.values}; a block has {MOST_VALUES} grey levels, so at most as many.")
        if not isinstance(self.linear, bool):
            raise ConfigError(f"linear is {self.linear!r}; allowed are True and False.")
        noise: object = self.noise
        if isinstance(noise, bool) or not isinstance(noise, float | Integral) or not 0 <= float(noise) < math.inf:
            raise ConfigError(f"noise is {noise!r}; a number of at least 0 is needed.")
        object.__setattr__(self, "noise", float(noise))
        if self.kind == "gated" and self.linear:
            raise ConfigError("kind 'gated' cannot be linear=True, since the rectifier is the gate; take linear=False.")
        if math.prod(self.sizes) > MOST_IMAGES:
            raise ConfigError(
                f"factors is {self.factors} with values {self.values}, which makes {math.prod(self.sizes):,} images; "
                f"allowed are {MOST_IMAGES:,}, so take fewer of either."
            )

    @property
    def groups(self) -> tuple[Group, ...]:
        """How each factor is carried."""
        return _grouped(self.kind, self.factors, self.linear)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each factor; the gate factor f0 is binary."""
        gates = any(group.kind == "gated" for group in self.groups)
        return (2 if gates else self.values, *(self.values for _ in range(self.factors - 1)))


class Group(NamedTuple):
    """Factors that travel together: `dedicated`, `redundant`, `shared` (two factors) or `gated` (by factor 0)."""

    kind: str
    factors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """One affine layer.

    Attributes
    ----------
    site : of the values after the layer and its rectifier; `image` for the last
    weight, bias : shapes (unit, input) and (unit,)
    signals : change of each unit per signal, shape (unit, 2 * factor): the factors' classes scaled to [0, 1], then
        their products with factor 0's
    """

    site: str
    weight: Floats
    bias: Floats
    signals: Floats


class _Value(NamedTuple):
    """Values at a layer, `constant + swing @ swung`, and how many of its first units carry something.

    What swings is the signals in the encoder, and the latents in the decoder.
    """

    constant: Floats
    swing: Floats
    carriers: int


def written(spec: Spec) -> tuple[Layer, ...]:
    """All layers from the image to the image, units and latents in a seeded order."""
    k = spec.factors
    owner = block_owners(k).ravel()
    painted = (owner == np.arange(k)[:, None]).astype(np.float64)
    levels = [grey_levels(size) / WHITE for size in spec.sizes]
    low, span = np.array([v[0] for v in levels]), np.array([v[-1] - v[0] for v in levels])
    rng = np.random.default_rng([0x9A47, spec.seed])
    spread = LATENT_SPREAD * rng.choice([-1.0, 1.0], k)

    image = _Value(low[owner], np.hstack([painted.T * span, np.zeros((owner.size, k))]), owner.size)
    of_image = painted / (painted.sum(1, keepdims=True) * span[:, None])
    encoder, latents = _half(spec, "encoder", image, of_image, np.diag(spread), -spread / 2, rng)
    code = _Value(np.zeros(k), np.eye(k), k)
    decoder, _ = _half(spec, "decoder", code, np.diag(1 / spread), painted.T * span, (low + span / 2)[owner], rng)
    decoder = [replace(layer, signals=_clean(layer.signals @ latents.swing)) for layer in decoder]

    layers = (*encoder, *decoder)
    pixels = np.arange(owner.size)
    orders = [pixels, *(rng.permutation(len(layer.bias)) for layer in layers[:-1]), pixels]
    return tuple(
        Layer(layer.site, layer.weight[after][:, before], layer.bias[after], layer.signals[after])
        for layer, before, after in zip(layers, orders[:-1], orders[1:], strict=True)
    )


def _half(
    spec: Spec, side: str, value: _Value, reader: Floats, writer: Floats, rest: Floats, rng: np.random.Generator
) -> tuple[list[Layer], _Value]:
    """Hidden layers and output of one half, units in planted order, noise units last; and the values that come out.

    Parameters
    ----------
    value : at the input
    reader : weights that read each factor off the input, shape (factor, input)
    writer : weights that write each factor to the output, shape (output, factor)
    rest : the output's constant
    """
    parts = [f for group in spec.groups for f in group.factors * (2 if group.kind == "redundant" else 1)]
    part_of = np.eye(spec.factors)[parts]
    gates = _gates(spec) if side == "encoder" else np.zeros(len(parts), dtype=bool)
    # Noise units draw from a stream of their own, so that asking for some leaves the circuit as it is.
    stray = np.random.default_rng([0x57A4, spec.seed, int(side == "decoder")])
    layers = []
    undo = np.eye(len(parts))
    for number, mix in enumerate(_mixes(spec, side)):
        gain = rng.uniform(0.75, 1.5, len(parts)) * rng.choice([-1.0, 1.0], len(parts))
        gain = np.where(gates, np.abs(gain), gain)
        carry = gain[:, None] * mix @ undo
        undo = np.linalg.inv(mix) / gain
        rows = np.vstack([carry @ part_of @ reader if number == 0 else carry, _strays(spec.noise_units, value, stray)])
        weight = _padded(_clean(rows), len(value.constant))
        swing = weight @ value.swing
        constant = MARGIN - (np.minimum(swing, 0).sum(1) if side == "encoder" else -REACH * np.abs(swing).sum(1))
        bias = constant - weight @ value.constant
        for unit in np.flatnonzero(gates) if number == 0 else ():
            close = gain[unit] + 1
            weight[unit] += close * reader[0]
            bias[unit] = -close - weight[unit] @ value.constant
            constant[unit] = 0.0
            # What was the factor's own signal is now its product with the gate factor's.
            swing[unit] = np.roll(swing[unit], spec.factors)
        layers.append(Layer(f"{side}.fc{number}", weight, bias, _clean(swing)))
        value = _Value(constant, swing, len(parts))
    weight = _padded(_clean(writer @ (part_of / part_of.sum(0)).T @ undo), len(value.constant))
    swing = weight @ value.swing
    site = "latent.mu" if side == "encoder" else "image"
    layers.append(Layer(site, weight, rest - weight @ value.constant, _clean(swing)))
    return layers, _Value(rest, swing, len(rest))


def _grouped(kind: str, factors: int, linear: bool) -> tuple[Group, ...]:
    """Factors dealt out to groups in order; what is left over of a pair travels alone."""
    cycle = {
        "gated": ["dedicated", *["gated"] * (factors - 1)],
        "mixed": ["redundant", "dedicated" if linear else "gated", "shared", "dedicated"],
    }.get(kind, [kind])
    groups: list[Group] = []
    dealt = 0
    while dealt < factors:
        wanted = cycle[len(groups) % len(cycle)]
        size = 2 if wanted == "shared" else 1
        fits = dealt + size <= factors
        groups.append(Group(wanted if fits else "dedicated", tuple(range(dealt, min(dealt + size, factors)))))
        dealt += size
    return tuple(groups)


def _gates(spec: Spec) -> NDArray[np.bool_]:
    """Which parts pass through a gate."""
    return np.array([group.kind == "gated" for group in spec.groups for _ in range(_PARTS[group.kind])])


def _mixes(spec: Spec, side: str) -> list[Floats]:
    """How each hidden layer mixes the parts; the decoder's last layer does not, so that a unit writes one block."""
    alternating = [(_SUM_AND_DIFFERENCE, _REMIXED)[number % 2] for number in range(spec.depth)]
    if side == "decoder":
        alternating[-1] = np.eye(2)
    return [
        block_diag(*(mix if group.kind == "shared" else np.eye(_PARTS[group.kind]) for group in spec.groups))
        for mix in alternating
    ]


def _strays(count: int, value: _Value, rng: np.random.Generator) -> Floats:
    """Rows that read a random half of what carries something, scaled to a range of 1, shape (count, carriers)."""
    rows = np.zeros((count, value.carriers))
    for row in rows:
        read = rng.choice(value.carriers, -(-value.carriers // 2), replace=False)
        row[read] = rng.standard_normal(len(read))
        row /= np.abs(row @ value.swing[: value.carriers]).sum()
    return rows


def _padded(weight: Floats, inputs: int) -> Floats:
    """Weights that read nothing from the inputs after those they have."""
    return np.pad(weight, ((0, 0), (0, inputs - weight.shape[1])))


def _clean(array: Floats) -> Floats:
    """What cancels up to rounding is no connection."""
    return np.where(np.abs(array) < 1e-12, 0.0, array)
