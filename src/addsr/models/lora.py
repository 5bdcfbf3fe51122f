"""Low-rank adaptation, merged into the weights that it adapts (Hu et al. 2021; the layout is loralib's)."""

from collections.abc import Mapping

import torch


def merge_lora(
    weights: Mapping[str, torch.Tensor], lora: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """Weights with every adapter added: weight + alpha / rank · B A.

    An adapter of a fused query, key and value projection (3C, C) has its A blocks (rank each) stacked for query and value
    and a B of 2C rows; the key is not adapted.

    Args:
        weights: `….weight` (out, in) by name; those without an adapter are returned as they are.
        lora: `….lora_A` (rank, in) and `….lora_B` (out, rank).
        alpha: scale of the adapters.

    Raises:
        ValueError: for an adapter without its other half, without a weight, or of shapes that do not go together.
    """
    merged = dict(weights)
    for name in lora:
        if not name.endswith(".lora_A"):
            if name.removesuffix("lora_B") + "lora_A" not in lora:
                raise ValueError(f"{name} has no lora_A beside it")
            continue
        target = name.removesuffix("lora_A") + "weight"
        down, up = lora[name].float(), lora.get(name.removesuffix("lora_A") + "lora_B")
        if up is None or target not in weights:
            raise ValueError(f"{name} has no {'lora_B' if up is None else 'weight'} beside it")
        weight, up = weights[target], up.float()
        try:
            rank = up.shape[1]
            if len(down) == rank:
                delta = up @ down
            else:
                (query_down, value_down), (query_up, value_up) = down.split(rank), up.chunk(2)
                query = query_up @ query_down
                delta = torch.cat([query, torch.zeros_like(query), value_up @ value_down])
            if delta.shape != weight.shape:
                raise ValueError("of another shape than the weight")
            merged[target] = (weight.float() + delta * (alpha / rank)).to(weight.dtype)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = f"{list(down.shape)} and {list(up.shape)} on {list(weight.shape)}"
            raise ValueError(f"the adapter of {target} does not go together: {shapes}") from error
    return merged
