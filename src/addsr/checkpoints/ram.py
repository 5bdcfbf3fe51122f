"""RAM's and DAPE's released files -> a Tagger."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from addsr.errors import ModelError
from addsr.models.lora import merge_lora
from addsr.models.tagger import COMPUTED, Tagger
from addsr.weights.building import building
from addsr.weights.reading import read_tensors

ADAPTED = re.compile(
    r"visual_encoder\.layers\.\d+\.blocks\.\d+\.attn\.qkv\.weight"
    r"|tagging_head\.encoder\.layer\.\d+\.crossattention\.self\.(query|key)\.weight"
)
LORA_ALPHA = 1.0  # of DAPE; its rank is 8
REPOSITORY_LISTS = Path("ram", "data")  # where RAM's own repository has its tag lists
UNUSED = ("tag_encoder.", "text_decoder.")  # RAM's captioner: built by the official code, never run by AddSR


def load_released_tagger(
    ram: Path, dape: Path | None, dtype: torch.dtype | None = None, lists: Sequence[Path] = ()
) -> Tagger:
    """The tagger of `ram_swin_large_14m.pth`, adapted by `DAPE.pth`.

    Args:
        ram, dape: the files; without DAPE it is plain RAM.
        dtype: of the weights; None keeps the file's.
        lists: folders that may have the tag lists, if they do not lie beside the files.

    Warns:
        UserWarning: for weights in RAM's file that no part of RAM takes. The official code passes over them too.

    Raises:
        ModelError: if a file is damaged, holds code, lacks weights, or does not fit.
    """
    plain = released_weights(read_tensors(ram), {}, ram)
    with building(ram, "tagger"), torch.device("meta"):
        tagger = Tagger(**tagger_sizes(plain, ram))
    known = tagger.published_keys()
    if unused := [name for name in plain if name not in known]:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        warnings.warn(f"{ram}: {unused[0]}{more} belongs to no part of RAM and is left out", stacklevel=2)
        plain = {name: tensor for name, tensor in plain.items() if name in known}
    weights = plain
    if dape is not None:
        tagger.put_published(plain, ram)  # what is wrong with RAM's file is not DAPE's fault
        adapters = read_tensors(dape)
        weights = released_weights(plain, adapters, dape)
        _check_complete(adapters, plain, dape)
    weights = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in weights.items()}
    tagger.put_published(weights, ram)
    beside = (ram.parent, ram.parent / REPOSITORY_LISTS, *(() if dape is None else (dape.parent,)))
    for folder in (*beside, *lists):
        if not tagger.tag_names:
            tagger.read_tags(folder)
    return tagger.eval()


def _check_complete(adapters: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor], source: object) -> None:
    """Whether DAPE adapts all that it adapts in the release.

    Raises:
        ModelError: if adapters are missing; its details name all of them.
    """
    adapted = [name.removesuffix("weight") for name in plain if ADAPTED.fullmatch(name)]
    missing = [f"{name}lora_{half}" for name in adapted for half in "AB" if f"{name}lora_{half}" not in adapters]
    if missing:
        error = ModelError(f"{source}: {len(missing)} adapters are missing, the first of them {missing[0]}")
        error.details = tuple(f"missing: {name}" for name in missing)
        raise error


def released_weights(
    ram: Mapping[str, torch.Tensor], dape: Mapping[str, torch.Tensor], source: object
) -> dict[str, torch.Tensor]:
    """What a Tagger takes of RAM's weights, under their published names, with DAPE's adapters merged.

    RAM's tag encoder shares weights with the tagging head, and the official code merges the adapters of both into them;
    those of the encoder are zero in the real file, and not merged here in any.
    """
    weights = {name.replace("vision_multi", "tagging_head"): tensor for name, tensor in ram.items()}
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(UNUSED)}
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(COMPUTED)}
    if stray := [name for name in dape if ".lora_" not in name]:
        raise ModelError(f"{source}: {stray[0]} is no adapter; DAPE's file holds adapters only")
    adapters = {name: tensor for name, tensor in dape.items() if not name.startswith(UNUSED)}
    try:
        return merge_lora(weights, adapters, LORA_ALPHA)
    except ValueError as error:
        raise ModelError(f"{source}: {error}") from error


def tagger_sizes(weights: Mapping[str, torch.Tensor], source: object) -> dict[str, Any]:
    """A Tagger's config from the shapes of its weights; the numbers that shapes do not tell are the published ones."""
    try:
        stages: dict[int, set[int]] = {}
        for name in weights:
            words = name.split(".")
            if name.startswith("visual_encoder.layers.") and words[3] == "blocks":
                stages.setdefault(int(words[2]), set()).add(int(words[4]))
        tables = [
            weights[f"visual_encoder.layers.{stage}.blocks.0.attn.relative_position_bias_table"]
            for stage in sorted(stages)
        ]
        patch = weights["visual_encoder.patch_embed.proj.weight"]
        hidden = weights["tagging_head.encoder.layer.0.intermediate.dense.weight"]
        layers = {name.split(".")[3] for name in weights if name.startswith("tagging_head.encoder.layer.")}
        return {
            "patch_size": patch.shape[-1],
            "embed_dim": len(patch),
            "depths": [len(stages[stage]) for stage in sorted(stages)],
            "num_heads": [table.shape[1] for table in tables],
            "window_size": (round(len(tables[0]) ** 0.5) + 1) // 2,
            "token_dim": len(weights["image_proj.weight"]),
            "tagging_width": hidden.shape[1],
            "tagging_hidden": len(hidden),
            "tagging_layers": len(layers),
            "num_tags": len(weights["label_embed"]),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"{source}: holds no RAM with a Swin transformer ({error} is missing)") from error
