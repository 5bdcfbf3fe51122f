"""LoRA on a network by peft: added for training, merged for inference, shared as one small file."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from addsr.errors import MissingExtraError, ModelError
from addsr.weights.lora_file import Adapter, write_adapters

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
