"""CLIP's text encoder as Stable Diffusion uses it, with a memory of what it has encoded."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

BEGINNING = 40  # characters that tell prompts, negative ones too, from one another
SHOWN = 200  # characters of what was cut


class PromptTooLongWarning(UserWarning):
    """A prompt has more tokens than the text encoder takes; the message says what was cut."""


class PromptEncoder:
    """Prompts -> embeddings; each prompt is computed once.

    Args:
        text_encoder: transformers' CLIPTextModel, or what opens one. That is let go again after use: on a CPU, where its
            weights are mapped from their file, opening takes a moment and keeping 1.4 GB.
        tokenizer: its tokenizer.
        remembered: so many prompts are kept.
        device: where the text encoder computes; None: where its weights are (which accelerate's hooks may move).
    """

    def __init__(
        self, text_encoder: Any, tokenizer: Any, remembered: int = 64, device: torch.device | None = None
    ) -> None:
        self.text_encoder, self.tokenizer, self._remembered = text_encoder, tokenizer, remembered
        self.device = device
        self._known: dict[str, torch.Tensor] = {}
        self._cut: dict[str, str] = {}  # what to say of a prompt that is cut, each time

    def open(self) -> nn.Module:
        """The text encoder."""
        return self.text_encoder if isinstance(self.text_encoder, nn.Module) else self.text_encoder()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """The last hidden states (N, 77, D) after the final norm, padded with the tokenizer's pad token, no mask.

        Warns:
            PromptTooLongWarning: for a prompt that is cut.
        """
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        encoded: dict[str, torch.Tensor] = {prompt: self._known[prompt] for prompt in prompts if prompt not in unknown}
        if unknown:
            text_encoder = self.open()
            encoded |= {prompt: self._encode(prompt, text_encoder) for prompt in unknown}
        self._known |= encoded
        for prompt in dict.fromkeys(prompts):
            if prompt in self._cut:
                warnings.warn(self._cut[prompt], PromptTooLongWarning, stacklevel=3)
        for forgotten in list(self._known)[: -self._remembered]:
            del self._known[forgotten]
            self._cut.pop(forgotten, None)
        return torch.cat([encoded[prompt] for prompt in prompts])

    def _encode(self, prompt: str, text_encoder: Any) -> torch.Tensor:
        length = text_encoder.config.max_position_embeddings
        ids = self.tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
        if len(ids) > length:
            lost = self.tokenizer.decode(ids[length - 1 : -1], skip_special_tokens=True).strip()
            self._cut[prompt] = (
                f"the prompt {_shown(prompt, BEGINNING)!r} has {len(ids)} tokens and the text encoder takes {length}; "
                f"cut off: {_shown(lost, SHOWN)!r}"
            )
        tokens = self.tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        device = self.device or next(text_encoder.parameters()).device
        with torch.autocast(device.type, enabled=False):  # the same whoever asks first, in training and out of it
            return text_encoder(tokens.input_ids.to(device))[0]


def _shown(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + " …"
