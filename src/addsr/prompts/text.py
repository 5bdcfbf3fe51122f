"""CLIP's text encoder as Stable Diffusion uses it, with a memory of what it has encoded."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

SHOWN = 200  # characters of what was cut


class PromptTooLongWarning(UserWarning):
    """A prompt has more tokens than the text encoder takes; the message says what was cut."""


class PromptEncoder:
    """Prompts -> embeddings; each prompt is computed once.

    Args:
        text_encoder: transformers' CLIPTextModel.
        tokenizer: its tokenizer.
        remembered: so many prompts are kept.
    """

    def __init__(self, text_encoder: Any, tokenizer: Any, remembered: int = 64) -> None:
        self.text_encoder, self.tokenizer, self._remembered = text_encoder, tokenizer, remembered
        self._known: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """The last hidden states (N, 77, D) after the final norm, padded with the tokenizer's pad token, no mask.

        Warns:
            PromptTooLongWarning: for a prompt that is cut.
        """
        weight = next(self.text_encoder.parameters())
        keys = [(prompt, weight.device, weight.dtype) for prompt in prompts]
        for key in dict.fromkeys(keys):
            if key not in self._known:
                if len(self._known) >= self._remembered:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = self._encode(key[0], weight.device)
        return torch.cat([self._known[key] for key in keys])

    def _encode(self, prompt: str, device: torch.device) -> torch.Tensor:
        length = self.tokenizer.model_max_length
        ids = self.tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
        if len(ids) > length:
            lost = self.tokenizer.decode(ids[length - 1 : -1], skip_special_tokens=True).strip()
            lost = lost if len(lost) <= SHOWN else lost[:SHOWN] + " …"
            message = f"the prompt has {len(ids)} tokens and the text encoder takes {length}; cut off: {lost!r}"
            warnings.warn(message, PromptTooLongWarning, stacklevel=4)
        tokens = self.tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(device))[0]
