"""Captions of training photos: text files beside them (webdataset's `name.jpg`, `name.txt`)."""

from pathlib import Path

from addsr.errors import DataError


def write_caption(photo: Path, caption: str) -> Path:
    """Write a photo's caption beside it; the file.

    Raises:
        DataError: if it has another already, which may be somebody's work, or the folder cannot be written to.
    """
    path = photo.with_suffix(".txt")
    try:
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace").strip() != caption:
            raise DataError(f"{path}: there is another caption; delete it first")
        path.write_text(caption + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: the caption cannot be written ({error.strerror})") from error
    return path
