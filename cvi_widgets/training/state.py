"""Everything that training changes, and its checkpoints.

A checkpoint is one safetensors file: tensors (weights, optimiser moments, random state, running means, history) and, in
its header, JSON (what it belongs to, how far it got, a checksum). It is written aside and renamed, and the one before
it is kept, so that a kill at any instant leaves a good one.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cvi_widgets.errors import StoreError
from cvi_widgets.models import VQVAE, GaussianVAE
from cvi_widgets.training.adversary import Adversary
from cvi_widgets.training.history import Recorder
from cvi_widgets.training.weights import fill, write_whole

FORMAT = 1
KEPT = 2
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """A training in progress; `steps`, `images` and `seconds` count over all sittings."""

    model: GaussianVAE | VQVAE
    optimiser: torch.optim.Adam
    noise: torch.Generator
    recorder: Recorder
    adversary: Adversary | None = None
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    stopped: str = ""


def save(state: State, folder: Path, identity: Mapping[str, object]) -> Path:
    """Write a checkpoint into `folder` and drop all but the last two; returns its path."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in _tensors(state).items()}
    progress = {"steps": state.steps, "images": state.images, "seconds": state.seconds, "stopped": state.stopped}
    header = {"format": FORMAT, "identity": dict(identity), "checksum": _checksum(tensors), **progress}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"images-{state.images:012d}.safetensors"
    write_whole(path, safetensors.torch.save(tensors, {"cvi": json.dumps(header)}))
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def restore(state: State, folder: Path, identity: Mapping[str, object]) -> Path | None:
    """Continue from the newest good checkpoint in `folder`; None when there is none.

    A torn file is passed over with a warning, since the one before it is good.

    Raises
    ------
    StoreError
        When the checkpoint belongs to other settings, other data, another model or another version.
    """
    for partial in folder.glob(".*.partial"):  # what a kill in the middle of `save` leaves
        partial.unlink(missing_ok=True)
    for path in _newest_first(folder):
        try:
            header, tensors = _read(path)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            warnings.warn(f"checkpoint {str(path)!r} is torn ({error}) and is passed over.", stacklevel=2)
            continue
        _check_identity(path, header, identity)
        _fill_state(state, header, tensors, path)
        return path
    return None


def newest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, if any."""
    return next(iter(_newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("images-*.safetensors"), reverse=True)


def _tensors(state: State) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for prefix, (module, optimiser) in _players(state).items():
        tensors |= {f"{prefix}model.{name}": t for name, t in module.state_dict().items()}
        for name, parameter in module.named_parameters():
            moments = optimiser.state.get(parameter, {})
            tensors |= {f"{prefix}adam.{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
    tensors |= {f"history.{name}": t for name, t in state.recorder.tensors().items()}
    return {**tensors, "noise": state.noise.get_state()}


def _fill_state(state: State, header: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> None:
    for prefix, (module, optimiser) in _players(state).items():
        fill(module, _under(f"{prefix}model.", tensors), f"checkpoint {str(path)!r}")
        for name, parameter in module.named_parameters():
            if f"{prefix}adam.step.{name}" not in tensors:
                continue
            saved = {key: tensors[f"{prefix}adam.{key}.{name}"] for key in _MOMENTS}
            # Moments take the memory layout of their parameter: the fused kernel walks both by address.
            moments = {key: torch.zeros_like(parameter).copy_(saved[key]) for key in _MOMENTS[1:]}
            optimiser.state[parameter] = {"step": saved["step"].to(parameter.device), **moments}
    state.recorder.load(_under("history.", tensors))
    state.noise.set_state(tensors["noise"])
    state.steps, state.images = int(header["steps"]), int(header["images"])
    state.seconds, state.stopped = float(header["seconds"]), str(header["stopped"])


def _players(state: State) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    players: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"": (state.model, state.optimiser)}
    if state.adversary is not None:
        players["discriminator."] = (state.adversary.network, state.adversary.optimiser)
    return players


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["cvi"])
    if header["checksum"] != _checksum(tensors):
        raise ValueError("its checksum does not fit")
    return header, tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), total))
    return total


def _check_identity(path: Path, header: Mapping[str, Any], identity: Mapping[str, object]) -> None:
    if header.get("format") != FORMAT:
        raise StoreError(f"checkpoint {str(path)!r} has format {header.get('format')!r}; this version reads {FORMAT}.")
    for key, value in identity.items():
        if header["identity"].get(key) != value:
            raise StoreError(
                f"checkpoint {str(path)!r} belongs to another training ({key} is {header['identity'].get(key)!r}, "
                f"not {value!r}); remove its folder or choose another one."
            )
