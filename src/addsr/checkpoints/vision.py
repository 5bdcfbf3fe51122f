"""Released DINO files (timm's and DINOv2's own names) -> transformers' models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from addsr.errors import ModelError
from addsr.weights.fit import put_weights
from addsr.weights.names import ATTENTION_NAMES, published_names, to_ours
from addsr.weights.reading import read_tensors

# What transformers (5, and 4 before it) calls the parts of a vision transformer -> the published names
_NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("layers.", "blocks."),
    *ATTENTION_NAMES,
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    ("layernorm.", "norm."),
)


def load_released_vit(path: Path) -> Any:
    """A frozen ViT (DINO) or DINOv2 model of transformers from a released weight file.

    Raises:
        ModelError: if the file is damaged, holds code, or is no vision transformer of these kinds.
    """
    return vit_from_published(read_tensors(path), path)


def vit_from_published(tensors: Mapping[str, torch.Tensor], source: object) -> Any:
    """The same from tensors; sizes follow from their shapes, with heads of 64 channels as in all published ones."""
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    tensors = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in tensors.items()}
    tensors = {name: value for name, value in tensors.items() if not name.startswith(("head.", "fc."))}
    try:
        patch, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
        sizes: dict[str, Any] = {
            "hidden_size": len(patch),
            "patch_size": patch.shape[-1],
            "image_size": round((positions.shape[1] - 1) ** 0.5) * patch.shape[-1],
            "num_attention_heads": len(patch) // 64,
            "num_hidden_layers": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
            "layer_norm_eps": 1e-6,
        }
        hidden = len(tensors["blocks.0.mlp.fc1.weight"])
    except (KeyError, IndexError) as error:
        raise ModelError(f"{source}: holds no DINO vision transformer ({error} is missing)") from error
    with torch.device("meta"):
        if "blocks.0.ls1.gamma" in tensors:
            vit: Any = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=hidden // sizes["hidden_size"]))
        else:
            vit = ViTModel(ViTConfig(**sizes, intermediate_size=hidden), add_pooling_layer=False)
    put_weights(vit, to_ours(tensors, published_names(vit.state_dict(), _NAMES)), source)
    return vit.eval().requires_grad_(False)
