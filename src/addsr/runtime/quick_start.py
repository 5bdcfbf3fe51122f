"""Start the command line sooner: leave out what importing diffusers brings along and a restoration never uses."""

import sys


def import_diffusers_without_dynamo() -> None:
    """Import diffusers' basics while `torch._dynamo` is hidden, which takes 3 of 8 seconds on a slow machine.

    diffusers imports it only to mark classes for torch.compile, and falls back by itself where a torch build lacks it.
    For the command line only: a library must not decide that for its user. torch.compile still works afterwards.
    """
    if "torch._dynamo" in sys.modules or "diffusers" in sys.modules:
        return
    sys.modules["torch._dynamo"] = None  # pyright: ignore[reportArgumentType] (Python's own way to say "not there")
    try:
        import diffusers.utils  # noqa: F401
    finally:
        del sys.modules["torch._dynamo"]
