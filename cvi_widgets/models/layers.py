"""Stacks of named layers from which the network families are made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import nn


class Conv(NamedTuple):
    """A stride-2 convolution that halves the image: kernel 4 with padding 1, or kernel 2 with none."""

    channels: int
    kernel: int = 4


def encoder(in_channels: int, size: int, convs: Sequence[Conv], widths: Sequence[int]) -> tuple[nn.Sequential, int]:
    """Convolutions, flatten, then fully connected layers; returns the stack and its number of features."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for i, conv in enumerate(convs):
        layers[f"conv{i}"] = nn.Conv2d(channels, conv.channels, conv.kernel, 2, (conv.kernel - 2) // 2)
        layers[f"act{i}"] = nn.ReLU()
        channels = conv.channels
    layers["flatten"] = nn.Flatten()
    features = channels * (size // 2 ** len(convs)) ** 2
    for i, width in enumerate(widths):
        layers[f"fc{i}"] = nn.Linear(features, width)
        layers[f"act{len(convs) + i}"] = nn.ReLU()
        features = width
    return nn.Sequential(layers), features


def decoder(latents: int, size: int, widths: Sequence[int], channels: Sequence[int]) -> nn.Sequential:
    """Fully connected layers, unflatten, transposed convolutions (k4 s2 p1) to `channels[-1]`; the last is linear.

    The last fully connected layer has as many outputs as the first feature map (`channels[0]`, y, x) needs.
    """
    side = size // 2 ** (len(channels) - 1)
    dense = [latents, *widths, channels[0] * side**2]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (before, after) in enumerate(pairwise(dense)):
        layers[f"fc{i}"] = nn.Linear(before, after)
        layers[f"act{i}"] = nn.ReLU()
    layers["unflatten"] = nn.Unflatten(1, (channels[0], side, side))
    last = len(channels) - 2
    for i, (before, after) in enumerate(pairwise(channels)):
        layers[f"deconv{i}"] = nn.ConvTranspose2d(before, after, 4, 2, 1)
        if i < last:
            layers[f"act{len(dense) - 1 + i}"] = nn.ReLU()
    return nn.Sequential(layers)
