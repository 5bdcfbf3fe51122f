"""What conditions the networks beside the picture: text embeddings and representation tokens, of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from addsr.diffusion.restorer import Restorer

TextEncoder = Callable[[Sequence[str]], torch.Tensor]  # prompts -> embeddings (N, L, D)


@dataclass(frozen=True)
class Context:
    """Prompt embeddings (N, L, D) and representation tokens (N, L', D'); None where the model has no such attention."""

    prompt_embeds: torch.Tensor | None = None
    tokens: torch.Tensor | None = None


@torch.no_grad()
def context_of(
    restorer: Restorer,
    picture: torch.Tensor,
    prompts: Sequence[str],
    null: torch.Tensor,
    encode_text: TextEncoder | None,
) -> Context:
    """The context for condition pictures.

    Args:
        restorer: whose image encoder represents the picture.
        picture: (N, 3, H, W) in [0, 1].
        prompts: one a picture.
        null: (N,) bool: where the prompt is replaced by the empty one.
        encode_text: None for a model without text attention.
    """
    tokens = None if restorer.image_encoder is None else restorer.encode_image(picture)
    if encode_text is None:
        return Context(None, tokens)
    kept = ["" if without else prompt for prompt, without in zip(prompts, null.tolist(), strict=True)]
    return Context(encode_text(kept), tokens)
