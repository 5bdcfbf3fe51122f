"""Which weights made a picture: SHA-256 over a model's files, remembered while they do not change."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from addsr.checkpoints.published import ModelFiles

HASHES = "SHA256SUMS"  # what `addsr convert` writes beside the weights
WEIGHTS = (".safetensors", ".bin", ".pth")


def weights_sha256(files: ModelFiles) -> str:
    """SHA-256 over the names and contents of all weight files of a model; of a converted one, that of its `SHA256SUMS`,
    computed anew, as weights may have been changed since.

    A Stable-Diffusion-2-size model has nine gigabytes, so the hash of each large file is kept in the user's cache folder
    (`$XDG_CACHE_HOME/addsr`) together with its size and time.
    """
    lora = files.parts.get("lora")
    added = b"" if lora is None else file_sha256(lora).encode()  # whatever the file is called and wherever it lies
    memory = _Memory()
    paths = set[Path]()
    places = [place for part, place in files.parts.items() if part != "lora"]
    for place in (*places, *([] if files.overlay is None else [files.overlay])):
        found = [place] if place.is_file() else place.rglob("*")
        paths |= {path for path in found if path.suffix in WEIGHTS and path.is_file()}
    ours = all(path.suffix == ".safetensors" and path.is_relative_to(files.folder) for path in paths)
    if ours and (files.folder / HASHES).is_file():  # else somebody else's list, of some parts
        data = hash_list(files.folder, memory.sha256).encode() + added
    else:
        lines = sorted(f"{'/'.join(path.parts[-2:])} {memory.sha256(path)}\n" for path in paths)
        data = added + "".join(lines).encode()
    memory.save()
    return hashlib.sha256(data).hexdigest()


def hash_list(folder: Path, sha256: Callable[[Path], str]) -> str:
    """The text of a converted model's file of hashes."""
    weights = sorted(folder.rglob("*.safetensors"))
    return "".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in weights)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Memory:
    """Hashes of large files. Whatever is wrong with it, hashes are computed."""

    LARGE = 1 << 28

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (Path raises without a home)
        self._path = Path(home) / "addsr" / "sha256.json"
        self._known: dict[str, str] = {}
        self._changed = False
        with suppress(OSError, ValueError, TypeError):
            self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))

    def sha256(self, path: Path) -> str:
        status = path.stat()
        if status.st_size < self.LARGE:
            return file_sha256(path)
        key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
        if key not in self._known:
            self._known[key] = file_sha256(path)
            self._changed = True
        return self._known[key]

    def save(self) -> None:
        if not self._changed:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(self._known), encoding="utf-8")
            part.replace(self._path)
