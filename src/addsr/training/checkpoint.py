"""Checkpoints of a run: folders `checkpoint-IMAGES`, complete or absent, and beside them `frozen`, which never changes."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from addsr.errors import TrainingError
from addsr.runtime.complete_folder import complete_folder, settle_files
from addsr.training.ema import EMA
from addsr.weights.building import first_line

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
    for left in run.glob(f".{_PREFIX}*.part"):  # by a run that was killed as it wrote
        shutil.rmtree(left, ignore_errors=True)
    try:
        with complete_folder(target, replace=True) as part:
            frozen = {name: _frozen(network) for name, network in networks.items()}
            _save_frozen(run, networks, frozen)
            weights = {name: (network.state_dict(), frozen[name]) for name, network in networks.items()}
            for name, average in averages.items():
                weights[f"{name}_ema"] = (average.module.state_dict(), frozen[name])
            for name, (tensors, left_out) in weights.items():
                kept = {key: value for key, value in tensors.items() if key not in left_out}
                _save(kept, part / f"{name}.safetensors")
            torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, part / "optimizers.pt")
            updates = {name: average.updates for name, average in averages.items()}
            known = {"images": images, "ema_updates": updates, "trained": _trained(networks)}
            (part / "state.json").write_text(json.dumps(known | dict(state)))
            settle_files(part)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's own is a RuntimeError
        last = latest_checkpoint(run)
        before = "there is none before it" if last is None else f"the last one is {last.name}"
        raise TrainingError(f"{target}: the checkpoint cannot be written ({first_line(error)}); {before}") from error
    prune_checkpoints(run, keep)
    return target


def prune_checkpoints(run: Path, keep: int) -> None:
    """Delete all but the newest."""
    for old in sorted(_checkpoints(run), key=_images)[:-keep]:
        remove_checkpoint(old)


def remove_checkpoint(checkpoint: Path) -> None:
    """Take its name at once, so that a half of it is never found; what cannot be removed goes with the next ones."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.part")
    with suppress(OSError):
        checkpoint.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def load_checkpoint(
    path: Path, networks: Mapping[str, nn.Module], averages: Mapping[str, EMA], optimizers: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a checkpoint's state into the given objects and return the JSON values.

    Raises:
        TrainingError: if it is damaged, or other networks or parameters were trained.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        now = set(_trained(networks))
        # of networks that are still there: an adversary may be switched off
        before = {name for name in state.get("trained", now) if name.split(".")[0] in networks}
        if odd := before ^ now:
            has, had = ("trained", "trains not") if min(odd) in before else ("did not train", "trains")
            raise TrainingError(f"{path}: the checkpoint does not fit this run: {min(odd)} {has} in it and {had} now")
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


def _trained(networks: Mapping[str, nn.Module]) -> list[str]:
    """Names of the parameters that train; an optimiser knows them by number alone."""
    return [
        f"{name}.{key}"
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
        if parameter.requires_grad
    ]


def _frozen(network: nn.Module) -> set[str]:
    """Names of the parameters that do not train."""
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def _save_frozen(run: Path, networks: Mapping[str, nn.Module], frozen: Mapping[str, set[str]]) -> None:
    """Write what is frozen, once a run; what one that never had a checkpoint left behind is replaced."""
    if latest_checkpoint(run) is None:
        shutil.rmtree(run / _FROZEN, ignore_errors=True)
    if (run / _FROZEN).is_dir() or not any(frozen.values()):
        return
    with complete_folder(run / _FROZEN) as part:
        for name, names in frozen.items():
            weights = {key: value for key, value in networks[name].state_dict().items() if key in names}
            if weights:
                _save(weights, part / f"{name}.safetensors")
        settle_files(part)


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, path)
