"""Whether weights fit a network: every key and shape, said readably where they differ."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from addsr.errors import ModelError

SHOWN = 6  # keys of each kind that a message names


def differences(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], names: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """What does not fit, by kind (`missing`, `unexpected`, `of another shape`); empty where all does.

    Args:
        network, tensors: as of `put_weights`.
        names: what the file calls keys of the network's that have another name there.
    """
    expected, names = network.state_dict(), names or {}
    shapes = [
        f"{names.get(key, key)} is {list(tensors[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    kinds = {
        "missing": list(dict.fromkeys(names.get(key, key) for key in expected if key not in tensors)),
        "unexpected": [key for key in tensors if key not in expected],
        "of another shape": shapes,
        "not of a floating-point type": [
            f"{names.get(key, key)} ({str(tensors[key].dtype).removeprefix('torch.')})"
            for key, value in expected.items()
            if key in tensors and value.is_floating_point() and not tensors[key].is_floating_point()
        ],
    }
    return {kind: keys for kind, keys in kinds.items() if keys}


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def put_weights(
    network: Any, tensors: Mapping[str, torch.Tensor], source: object, names: Mapping[str, str] | None = None
) -> None:
    """Give a network (built on the meta device, perhaps) its weights, without copying them.

    Args:
        network: any module.
        tensors: by the network's own keys.
        source: what a message calls them.
        names: see `differences`.

    Raises:
        ModelError: unless every key and shape fits; the message lists what does not.
    """
    if kinds := differences(network, tensors, names):
        summary = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds.items())
        error = ModelError(f"{source}: the weights do not fit {type(network).__name__}; {summary}")
        error.details = tuple(f"{kind}: {key}" for kind, keys in kinds.items() for key in keys)
        raise error
    network.load_state_dict(dict(tensors), assign=True)
    for name, buffer in network.named_buffers():
        if buffer.is_meta:
            raise ModelError(f"{source}: {type(network).__name__} needs {name}, which no file brings")
