"""How a command ends when something is wrong: one sentence on stderr, exit code 1."""

import os
import select
import sys
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
        if reader_is_gone(error):
            raise typer.Exit(1) from None
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def reader_is_gone(error: BaseException) -> bool:
    """Whether the error is that whoever read our output (head) has seen enough; nothing more is written then."""
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):  # Windows has neither
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):  # another pipe, such as one to a process of our own
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
    return True
