"""Checkpoints of a run: folders `checkpoint-IMAGES`, complete or absent."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from addsr.errors import TrainingError
from addsr.training.ema import EMA

_PREFIX = "checkpoint-"


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
        networks, averages, optimizers: by name; the networks as safetensors, the averages as NAME_ema. Frozen parameters are
            left out: a run has them from where it started, and at Stable Diffusion's size they are gigabytes.
        state: JSON values of the loop itself.
        keep: older checkpoints beyond this number are deleted.
    """
    target = run / f"{_PREFIX}{images:09d}"
    part = run / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    weights = {name: (network, network) for name, network in networks.items()}
    weights |= {f"{name}_ema": (average.module, networks[name]) for name, average in averages.items()}
    for name, (network, trained) in weights.items():
        frozen = _frozen(trained)
        tensors = {key: value for key, value in network.state_dict().items() if key not in frozen}
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, part / f"{name}.safetensors")
    torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, part / "optimizers.pt")
    updates = {name: average.updates for name, average in averages.items()}
    (part / "state.json").write_text(json.dumps({"images": images, "ema_updates": updates, **state}))
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
            _load(network, path / f"{name}.safetensors", _frozen(network))
        for name, average in averages.items():
            _load(average.module, path / f"{name}_ema.safetensors", _frozen(networks[name]))
            average.updates = state["ema_updates"][name]
        saved = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(saved[name])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{path}: the checkpoint does not fit this run or is damaged ({first})") from error
    return state


def _frozen(network: nn.Module) -> set[str]:
    """Names of the parameters that do not train."""
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def _load(network: nn.Module, path: Path, frozen: set[str]) -> None:
    """Load a file that may lack the `frozen` parameters, and nothing else."""
    missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    if lacking := [*unexpected, *(name for name in missing if name not in frozen)]:
        raise RuntimeError(f"{path.name}: {lacking[0]} is missing or not expected")
