"""Captions of training photos as prompts: the first that is too long is said, and no other, of thousands."""

import warnings
from collections.abc import Sequence

import torch

from addsr.prompts.text import PromptEncoder, PromptTooLongWarning


class CaptionEncoder:
    """Prompts -> embeddings (N, 77, D), by `encode_prompt`, which says of each prompt that it was cut."""

    def __init__(self, encode_prompt: PromptEncoder) -> None:
        self.encode_prompt, self._said = encode_prompt, False

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode.

        Warns:
            PromptTooLongWarning: for the first caption that is cut.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embeddings = self.encode_prompt(prompts)
        for warning in caught:
            if not issubclass(warning.category, PromptTooLongWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif not self._said:
                self._said = True
                text = f"{warning.message}; further captions that are too long are cut without a word"
                warnings.warn(text, PromptTooLongWarning, stacklevel=2)
        return embeddings
