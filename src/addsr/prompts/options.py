"""What a user may say of a restoration in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptOptions:
    """The words of a restoration.

    Attributes:
        prompt: the user's own.
        tags: recognise tags, where the model has a tagger, and put them first.
        added_prompt, negative_prompt: None for the papers' own.
    """

    prompt: str = ""
    tags: bool = True
    added_prompt: str | None = None
    negative_prompt: str | None = None
