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

    def of(self, chosen: torch.Tensor) -> "Context":
        """Of the pictures that a mask (N,) chooses."""
        return Context(*(None if part is None else part[chosen] for part in (self.prompt_embeds, self.tokens)))


@torch.no_grad()
def context_of(
    restorer: Restorer,
    picture: torch.Tensor,
    prompts: Sequence[str],
    encode_text: TextEncoder | None,
) -> Context:
    """The context of pictures.

    Args:
        restorer: whose image encoder represents the picture.
        picture: (N, 3, H, W) in [0, 1], whose tokens they are.
        prompts: one a picture; the empty one is the null text.
        encode_text: None for a model without text attention.
    """
    tokens = None if restorer.image_encoder is None else restorer.encode_image(picture)
    if encode_text is None:
        return Context(None, tokens)
    return Context(encode_text(prompts), tokens)
