"""Published weight names and those of the libraries that run them, matched both ways."""

from collections.abc import Iterable, Mapping, Sequence

import torch

# (a part of our name, what the release has there), applied in order
Table = Sequence[tuple[str, str]]

# A transformer layer's projections in transformers 5, and 4 before it -> timm's. Query, key and value in this order, as
# `published_names` fuses them.
ATTENTION_NAMES: Table = (
    *((f".attention.{part}_proj.", ".attn.qkv.") for part in "qkv"),
    *((f".attention.self.{part}.", ".attn.qkv.") for part in ("query", "key", "value")),
    *((f".attention.attention.{part}.", ".attn.qkv.") for part in ("query", "key", "value")),
    (".attention.o_proj.", ".attn.proj."),
    (".attention.output.dense.", ".attn.proj."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


def published_names(keys: Iterable[str], table: Table) -> dict[str, list[str]]:
    """Published name -> our keys, in order; several where the release fuses what we keep apart."""
    names: dict[str, list[str]] = {}
    for key in keys:
        published = key
        for ours, theirs in table:
            published = published.replace(ours, theirs)
        names.setdefault(published, []).append(key)
    return names


def to_ours(tensors: Mapping[str, torch.Tensor], names: Mapping[str, Sequence[str]]) -> dict[str, torch.Tensor]:
    """Published tensors under our keys, cut evenly where we keep parts apart; others keep their names."""
    renamed = dict(tensors)
    for published, keys in names.items():
        if published in renamed:
            tensor = renamed.pop(published)
            even = len(keys) == 1 or len(tensor) % len(keys) == 0
            renamed |= zip(keys, tensor.chunk(len(keys)) if even else [tensor] * len(keys), strict=True)
    return renamed


def to_published(tensors: Mapping[str, torch.Tensor], names: Mapping[str, Sequence[str]]) -> dict[str, torch.Tensor]:
    """The inverse of `to_ours`."""
    return {
        published: torch.cat([tensors[key] for key in keys]) if len(keys) > 1 else tensors[keys[0]]
        for published, keys in names.items()
    }
