"""What a Stable-Diffusion-size model is told of a photo, computed once for the whole of it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from addsr.diffusion.guidance import is_guided
from addsr.diffusion.restorer import Restorer
from addsr.prompts.compose import ADDED_PROMPTS, NEGATIVE_PROMPT, compose_prompt
from addsr.prompts.options import PromptOptions
from addsr.prompts.tagging import encoder_pixels
from addsr.prompts.text import PromptEncoder


@dataclass(frozen=True)
class Description:
    """Text embeddings (1, 77, D) and representation tokens (1, L, D'); None where the model has no such attention."""

    prompt: str = ""
    tags: list[str] = field(default_factory=list)
    prompt_embeds: torch.Tensor | None = None
    negative_prompt_embeds: torch.Tensor | None = None
    image_encoder_hidden_states: torch.Tensor | None = None


class Describer:
    """Tags, prompts and tokens of photos for one model.

    Args:
        restorer: whose image encoder represents the photo (and, if it is a Tagger, names what it shows).
        encode_prompt: None for a model without text attention.
    """

    def __init__(self, restorer: Restorer, encode_prompt: PromptEncoder | None = None) -> None:
        self.restorer, self.encode_prompt = restorer, encode_prompt

    @torch.no_grad()
    def __call__(
        self, lr: torch.Tensor, options: PromptOptions, guidance_scale: float, *, antialias: bool = True
    ) -> Description:
        """Describe a photo.

        Args:
            lr: (3, h, w) in [0, 1], not enlarged.
            options: the words.
            guidance_scale: the negative prompt is encoded only where it has an effect.
            antialias: filter a photo larger than the encoder's square before squeezing it; the released code does not.
        """
        tokens = None
        tagger: Any = self.restorer.image_encoder
        if tagger is not None:
            tokens = self.restorer.represent(encoder_pixels(lr, antialias))
        if self.encode_prompt is None:
            return Description(image_encoder_hidden_states=tokens)
        tags = None
        if options.tags and tagger is not None and hasattr(tagger, "tags"):
            tags = tagger.tags(tokens)[0]
        added = ADDED_PROMPTS[self.restorer.sampler.name] if options.added_prompt is None else options.added_prompt
        prompt = compose_prompt(tags, options.prompt, added)
        self.restorer.offload.use("text_encoder")
        negative = None
        if is_guided(guidance_scale):
            negative = NEGATIVE_PROMPT if options.negative_prompt is None else options.negative_prompt
        return Description(
            prompt,
            tags or [],
            self.encode_prompt([prompt]),
            None if negative is None else self.encode_prompt([negative]),
            tokens,
        )
