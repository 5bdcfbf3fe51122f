"""Networks from other people's files: whatever goes wrong becomes one sentence that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from addsr.errors import AddSRError, ModelError

LONGEST = 200  # characters of other people's messages that are shown


@contextmanager
def building(source: object, what: str) -> Iterator[None]:
    """Turn any error into a ModelError: libraries raise many kinds for configs of wrong types and sizes."""
    try:
        yield
    except AddSRError:
        raise
    except Exception as error:
        raise ModelError(f"{source}: describes no {what} ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """Of an error's message, or its kind where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines[0]) <= LONGEST else f"{lines[0][:LONGEST]} …"
