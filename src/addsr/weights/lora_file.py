"""D³SR's adapters as one small file, to be shared without the Stable Diffusion that they belong to.

The file holds `NAME.lora_A.weight` (rank, in[, k, k]), `NAME.lora_B.weight` (out, rank[, 1, 1]) and `NAME.alpha` for each
adapted module NAME of the U-Net; its metadata holds T_L as `one_step_timestep`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from addsr.errors import ModelError
from addsr.weights.building import first_line
from addsr.weights.reading import read_tensors

TIMESTEP_KEY = "one_step_timestep"


@dataclass(frozen=True)
class Adapter:
    """Of one module: its weight gains alpha / rank · B A.

    Attributes:
        down: A, (rank, in[, k, k]).
        up: B, (out, rank[, 1, 1]).
        alpha: see above.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    def delta(self) -> torch.Tensor:
        """What the weight gains, as a matrix (out, in·k·k), in float32."""
        scale = self.alpha / self.down.shape[0]
        return scale * self.up.float().flatten(1) @ self.down.float().flatten(1)


def write_adapters(adapters: Mapping[str, Adapter], path: Path, one_step_timestep: int | None = None) -> None:
    """Write the file.

    Args:
        adapters: by module.
        path: of the file.
        one_step_timestep: T_L that they were trained for.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, adapter in adapters.items():
        tensors[f"{name}.lora_A.weight"] = adapter.down.detach().contiguous().clone()
        tensors[f"{name}.lora_B.weight"] = adapter.up.detach().contiguous().clone()
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha)
    save_file(tensors, path, None if one_step_timestep is None else {TIMESTEP_KEY: str(one_step_timestep)})


def read_adapters(path: Path) -> dict[str, Adapter]:
    """The adapters of a file, by module. Without an `alpha`, alpha is the rank.

    Raises:
        ModelError: if the file is damaged, or holds anything but adapters.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: adapters are read from .safetensors files only")
    tensors = read_tensors(path)
    names = sorted({key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")})
    if not names:
        raise ModelError(f"{path}: holds no adapters")
    adapters, known = {}, set[str]()
    for name in names:
        down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        if up not in tensors:
            raise ModelError(f"{path}: {up} is missing")
        try:
            adapters[name] = _adapter(tensors[down], tensors[up], tensors.get(f"{name}.alpha"))
        except ValueError as error:
            raise ModelError(f"{path}: the adapter of {name} cannot be used: {error}") from error
        known |= {down, up, f"{name}.alpha"}
    if stray := sorted(set(tensors) - known):
        raise ModelError(f"{path}: holds {stray[0]}, which belongs to no adapter")
    return adapters


def _adapter(down: torch.Tensor, up: torch.Tensor, alpha: torch.Tensor | None) -> Adapter:
    """Raises ValueError unless the three go together."""
    if down.ndim not in (2, 4) or up.ndim not in (2, 4) or not len(down) or up.shape[1] != len(down):
        raise ValueError(f"its matrices are {list(down.shape)} and {list(up.shape)}")
    if not all(matrix.is_floating_point() and bool(matrix.isfinite().all()) for matrix in (down, up)):
        raise ValueError("its matrices hold values that are not finite numbers")
    if alpha is not None and (alpha.numel() != 1 or not math.isfinite(alpha.item())):
        raise ValueError("its alpha is not one finite number")
    return Adapter(down, up, float(len(down)) if alpha is None else float(alpha.item()))


def read_timestep(path: Path) -> int | None:
    """T_L that a file's adapters were trained for; None where it does not say.

    Raises:
        ModelError: if the file is damaged or says anything but a timestep.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(TIMESTEP_KEY)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged or truncated ({first_line(error)})") from error
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 3:
        raise ModelError(f"{path}: {TIMESTEP_KEY} is {text!r}; it must be 0 to 999")
    return int(text)


@torch.no_grad()
def merge_adapters(network: nn.Module, path: Path) -> None:
    """Add a file's adapters to a network's weights; peft is not needed.

    Raises:
        ModelError: if the file is damaged or of another network.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    for name, adapter in read_adapters(path).items():
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, nn.Parameter):
            raise ModelError(f"{path}: has an adapter for {name}, which {type(network).__name__} has not")
        try:
            delta = adapter.delta()
            if delta.shape != weight.flatten(1).shape:
                raise ValueError("of another shape than the weight")
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = f"{list(adapter.down.shape)} and {list(adapter.up.shape)} on {list(weight.shape)}"
            raise ModelError(f"{path}: the adapter of {name} does not fit: {shapes}") from error
        merged = (weight.float() + delta.view(weight.shape).to(weight.device)).to(weight.dtype)
        modules[name].weight = nn.Parameter(merged, requires_grad=False)  # the file's own stays as it is
