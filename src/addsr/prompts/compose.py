"""The text of a prompt: recognised tags, the user's words, and what the papers add."""

from collections.abc import Sequence

# AddSR, section 4.4, and SeeSR: words that the released inference adds for each model
ADDED_PROMPTS = {
    "addsr": "clean, high-resolution, 8k, extremely detailed, best quality, sharp",
    "ancestral": "clean, high-resolution, 8k",
}
NEGATIVE_PROMPT = "dotted, noise, blur, lowres, smooth"


def compose_prompt(tags: Sequence[str] | None, prompt: str, added_prompt: str) -> str:
    """`tag, tag, prompt,added`: comma for comma what the released inference gives the text encoder.

    Where tags are not asked for (None), the prompt stands alone before what is added.
    """
    if tags is None:
        return f"{prompt},{added_prompt}" if prompt else added_prompt
    return f"{', '.join(tags)}, {prompt},{added_prompt}"
