"""LoRA on a network by peft: added for training, merged for inference, shared as one small file."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from addsr.errors import MissingExtraError, ModelError
from addsr.weights.lora_file import Adapter, read_adapters, write_adapters

RANK, ALPHA = 16, 16  # D³SR's, of generator and discriminator
# Every projection and convolution but the U-Net's ends and its time embedding. The paper does not list them; these make
# 16.9 M at Stable Diffusion 2.1's size, 966.5 M with its networks, where the paper counts 966.3 M.
TARGETS = (
    *("*.to_q", "*.to_k", "*.to_v", "*.to_out.0", "*.ff.net.0.proj", "*.ff.net.2", "*.proj_in", "*.proj_out"),
    *("*.conv1", "*.conv2", "*.conv_shortcut", "*.time_emb_proj", "*.conv"),
)


def add_lora(
    network: nn.Module, rank: int = RANK, alpha: int = ALPHA, targets: Sequence[str] = TARGETS
) -> list[nn.Parameter]:
    """Put adapters beside the modules whose names fit the patterns; they start as no change.

    Returns:
        The adapters' parameters; everything else is frozen.

    Raises:
        MissingExtraError: without peft.
        ModelError: if no module fits.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("LoRA needs peft: pip install 'addsr[train]'") from None
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(fnmatchcase(name, pattern) for pattern in targets)
    ]
    if not names:
        raise ModelError(f"no module of {type(network).__name__} fits {', '.join(targets)}")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=names), network)
    adapters = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            adapters.append(parameter)
    return adapters


def has_lora(network: nn.Module) -> bool:
    """Whether a network has adapters beside its layers."""
    return any(".lora_A." in name for name, _ in network.named_parameters())


def _layers(network: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer)]


def merge_lora_layers(network: nn.Module) -> None:
    """Add every adapter to the weight beside it and take it away: the network has its own layers again."""
    for name, layer in _layers(network):
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())


def save_lora(network: nn.Module, path: Path, one_step_timestep: int | None = None) -> None:
    """Write the adapters alone, see `addsr.weights.lora_file`."""
    adapters = {}
    for name, layer in _layers(network):
        down, up = (getattr(layer, side)["default"].weight for side in ("lora_A", "lora_B"))
        adapters[name] = Adapter(down, up, float(layer.lora_alpha["default"]))
    if not adapters:
        raise ModelError(f"{type(network).__name__} has no adapters to save")
    write_adapters(adapters, path, one_step_timestep)


def load_lora(network: nn.Module, path: Path) -> None:
    """Put the adapters of a file beside the network's layers, to be trained on or merged.

    Raises:
        MissingExtraError: without peft.
        ModelError: if the file is damaged or of another network.
    """
    adapters = read_adapters(path)
    modules = dict(network.named_modules())
    if stray := [name for name in adapters if name not in modules]:
        raise ModelError(f"{path}: has an adapter for {stray[0]}, which {type(network).__name__} has not")
    first = next(iter(adapters.values()))
    add_lora(network, len(first.down), int(first.alpha), list(adapters))
    try:
        with torch.no_grad():
            for name, layer in _layers(network):
                layer.lora_A["default"].weight.copy_(adapters[name].down)
                layer.lora_B["default"].weight.copy_(adapters[name].up)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: the adapters do not fit {type(network).__name__} ({error})") from error
