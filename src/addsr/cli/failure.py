"""How a command ends when something is wrong: one sentence on stderr, exit code 1."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from addsr.errors import AddSRError


@contextmanager
def failing_cleanly(debug: bool) -> Iterator[None]:
    """Turn our own errors and those of the file system into a sentence, unless the traceback is wanted, and warnings too."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_more: typer.echo(f"warning: {message}", err=True)
            yield
    except (AddSRError, OSError) as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
