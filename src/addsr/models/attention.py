"""Attention by matrix products, for CPUs whose fused kernel computes bfloat16 no faster than float32.

PyTorch's fused attention multiplies bfloat16 by oneDNN only where the CPU has AMX; with AVX-512's bfloat16 alone, plain
products of a few rows of scores at a time are two to four times as fast (docs/efficiency.md).
"""

from typing import Any

import torch
from torch import nn

AT_ONCE = 2**22  # scores of a picture, all heads, up to which they are one product
BLOCK = 2**20  # scores of a block else: they stay in the cache
FEWEST_ROWS = 128  # of a block: thinner products are slower than the cache is worth


def rowwise_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention, with scores rounded to the inputs' dtype (as the queries and keys themselves are).

    The scores are of the keys' differences from their mean, as the softmax does not see it: what all keys share would take
    the digits that tell them apart.

    Args:
        query: (N, H, L, D).
        key, value: (N, H, S, D).

    Returns:
        (N, H, L, D).
    """
    batch, heads, length, width = query.shape
    query, key = query * width**-0.5, key - key.mean(2, keepdim=True)
    if heads * length * key.shape[2] <= AT_ONCE:
        return torch.softmax(query @ key.transpose(-1, -2), -1) @ value
    rows = max(FEWEST_ROWS, BLOCK // key.shape[2])
    mixed = torch.empty_like(query)
    for one in range(batch):
        for head in range(heads):
            transposed = key[one, head].T
            for start in range(0, length, rows):
                scores = query[one, head, start : start + rows] @ transposed
                mixed[one, head, start : start + rows] = torch.softmax(scores, -1) @ value[one, head]
    return mixed


class RowwiseAttnProcessor:
    """Diffusers' AttnProcessor2_0 with `rowwise_attention`, as far as Stable Diffusion's networks use it."""

    attend = staticmethod(rowwise_attention)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, L, C), or (N, C, H, W), and a context (N, S, C') if any -> the shape of the first.

        Raises:
            ValueError: for an attention mask, which none of these networks has.
        """
        if attention_mask is not None:
            raise ValueError("rowwise attention takes no attention mask")
        positions = hidden_states if hidden_states.ndim == 3 else hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            positions = attn.group_norm(positions.transpose(1, 2)).transpose(1, 2)
        context = positions if encoder_hidden_states is None else encoder_hidden_states

        def split(projected: torch.Tensor) -> torch.Tensor:
            return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        mixed = self.attend(split(attn.to_q(positions)), split(attn.to_k(context)), split(attn.to_v(context)))
        mixed = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        if hidden_states.ndim == 4:
            mixed = mixed.transpose(1, 2).unflatten(2, hidden_states.shape[2:])
        if attn.residual_connection:
            mixed = mixed + hidden_states
        return mixed / attn.rescale_output_factor


def use_rowwise_attention(module: nn.Module) -> None:
    """Give every plain attention of diffusers inside `module` that processor, in place."""
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0  # takes seconds to import

    for child in module.modules():
        if isinstance(child, Attention) and type(child.processor) is AttnProcessor2_0:
            child.set_processor(RowwiseAttnProcessor())  # pyright: ignore[reportArgumentType]
