"""Weights as safetensors: files that hold numbers and cannot run code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from cvi_widgets.errors import StoreError


def save_weights(model: nn.Module, path: Path | str) -> None:
    """Write the model's parameters and buffers to `path`, aside first and then renamed."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_whole(Path(path), safetensors.torch.save(tensors))


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Read the parameters and buffers of `model` from `path`.

    Raises
    ------
    StoreError
        When the file is missing, no safetensors file, or of another architecture; the model is then unchanged.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise StoreError(f"weights {str(path)!r} cannot be read ({error}).") from error
    fill(model, tensors, f"weights {str(path)!r}")


def fill(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy `tensors` into the model; one sentence about the first name or shape that does not fit."""
    own = model.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        problem = "lacks" if name in own else "has an extra"
        raise StoreError(f"{what} {problem} tensor {name!r}: another architecture.")
    for name in own:
        if own[name].shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
            raise StoreError(f"{what} has tensor {name!r} of shape {shapes}: another architecture.")
    model.load_state_dict(dict(tensors))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is at every instant, even after a power cut, absent, the old one or the whole new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
