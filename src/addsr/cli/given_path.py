"""Paths as the command line gives them."""

from pathlib import Path

import typer


def given_path(text: str) -> Path:
    """A path that was given; an empty one, as an unset variable of a script leaves it, is not the current folder."""
    return Path(given_name(text))


def given_name(text: str) -> str:
    """A path or a model's name, likewise."""
    if not text:
        raise typer.BadParameter("an empty path (of an unset variable?)")
    return text
