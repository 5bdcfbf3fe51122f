"""Checkpoints of a run: folders `checkpoint-IMAGES`, complete or absent, and beside them `frozen`, which never changes."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from addsr.checkpoints.building import first_line
from addsr.checkpoints.permissions import as_new_files
from addsr.errors import TrainingError
from addsr.training.ema import EMA

_PREFIX = "checkpoint-"
_FROZEN = "frozen"  # parameters that do not train, once a run: at Stable Diffusion's size they are gigabytes


def latest_checkpoint(run: Path) -> Path | None:
    """The checkpoint of `run` that has seen most images."""
    return max(_checkpoints(run), key=_images, default=None)


def _checkpoints(run: Path) -> list[Path]:
    return [path for path in run.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]


def _images(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_PREFIX))


def save_checkpoint(
    run: Path,
    images: int,
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, EMA],
    optimizers: Mapping[str, Any],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write everything that a run needs to go on; it appears under its name only when it is complete.

    Args:
        run: folder of the run.
        images: seen so far.
        networks, averages, optimizers: by name; the networks as safetensors, the averages as NAME_ema. Parameters that do
            not train are written once, to `run`/frozen.
        state: JSON values of the loop itself.
        keep: older checkpoints beyond this number are deleted.

    Raises:
        TrainingError: if it cannot be written; those that are there stay.
    """
    target = run / f"{_PREFIX}{images:09d}"
    part = run / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        frozen = {name: _frozen(network) for name, network in networks.items()}
        _save_frozen(run, networks, frozen)
        weights = {name: (network.state_dict(), frozen[name]) for name, network in networks.items()}
        weights |= {f"{name}_ema": (average.module.state_dict(), frozen[name]) for name, average in averages.items()}
        for name, (tensors, left_out) in weights.items():
            _save({key: value for key, value in tensors.items() if key not in left_out}, part / f"{name}.safetensors")
        torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, part / "optimizers.pt")
        updates = {name: average.updates for name, average in averages.items()}
        (part / "state.json").write_text(json.dumps({"images": images, "ema_updates": updates, **state}))
        as_new_files(part)
        for file in part.iterdir():
            _on_disk(file)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's own is a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        last = latest_checkpoint(run)
        kept = "there is none before it" if last is None else f"the last one is {last.name}"
        raise TrainingError(f"{target}: the checkpoint cannot be written ({first_line(error)}); {kept}") from error
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in sorted(_checkpoints(run), key=_images)[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(
    path: Path, networks: Mapping[str, nn.Module], averages: Mapping[str, EMA], optimizers: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a checkpoint's state into the given objects and return the JSON values.

    Raises:
        TrainingError: if it is damaged or of other networks.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        for name, network in networks.items():
            network.load_state_dict(read_weights(path, name))
        for name, average in averages.items():
            average.module.load_state_dict(read_weights(path, name, averaged=True))
            average.updates = state["ema_updates"][name]
        saved = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(saved[name])
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        why = first_line(error)
        raise TrainingError(f"{path}: the checkpoint does not fit this run or is damaged ({why})") from error
    return state


def read_weights(checkpoint: Path, name: str, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """All weights of a network: the checkpoint's, or their averages, and what is frozen.

    Raises:
        OSError, SafetensorError: if a file is missing or damaged.
    """
    frozen = checkpoint.parent / _FROZEN / f"{name}.safetensors"
    kept = load_file(frozen) if frozen.is_file() else {}
    return kept | load_file(checkpoint / f"{name}{'_ema' * averaged}.safetensors")


def _frozen(network: nn.Module) -> set[str]:
    """Names of the parameters that do not train."""
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def _save_frozen(run: Path, networks: Mapping[str, nn.Module], frozen: Mapping[str, set[str]]) -> None:
    """Write what is frozen, once a run; what one that never had a checkpoint left behind is replaced."""
    begun = latest_checkpoint(run) is not None
    for name, names in frozen.items():
        target = run / _FROZEN / f"{name}.safetensors"
        if not begun:
            target.unlink(missing_ok=True)
        if not names or target.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        _save({key: value for key, value in networks[name].state_dict().items() if key in names}, part)
        as_new_files(target.parent)
        _on_disk(part)
        part.rename(target)


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)


def _on_disk(path: Path) -> None:
    """Wait until a file is written, or its name may outlive a power cut without its contents."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
