"""Training photos from folders and tar shards (the webdataset layout), addressed by position."""

import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from addsr.errors import DataError, InputImageError
from addsr.image.read import DAMAGED, ENDINGS, OTHER_ENDINGS, opened, read_pil, upright, upright_size
from addsr.image.transparency import fill_clear
from addsr.image.uint8 import to_uint8

HEADER = 1 << 16  # bytes
# what Pillow and `read_pil` raise on damaged files
_UNREADABLE = (*DAMAGED, KeyError, Image.DecompressionBombError, InputImageError)


@dataclass(frozen=True)
class Place:
    """Bytes of a file: all of it where `size` is -1."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self, most: int = -1) -> bytes:
        """All bytes, or at most the first `most`."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size if most < 0 else min(most, self.size) if self.size >= 0 else most)


class DamagedPhotoError(DataError):
    """A photo that cannot be decoded though its header can; `name` is its own."""

    name = ""


class Photos:
    """Photos of one or more sources in a fixed order (by name), decoded when asked for; the last ones stay in memory.

    A text file of the same stem beside a photo is its caption (webdataset's `name.jpg`, `name.txt`).

    Args:
        sources: folders (searched recursively, linked ones and the tar files in them too) and tar files.
        smallest: photos with a shorter side are left out.
        memory: megabytes of decoded photos that are kept.
        without: folders whose files are no photos to train on: the run's own, LR of real pairs. Hidden files and folders
            are passed over too, and sample sheets of runs and `lr` of `addsr degrade` below a source.

    Attributes:
        names: of the photos.
        captioned: how many have a caption.
        sizes: (width, height) of them in pixels, upright.
        unreadable, too_small: names of what was left out, and why.

    Raises:
        DataError: where a source does not exist or no usable photo is found.
    """

    def __init__(
        self, sources: Sequence[Path], smallest: int = 1, memory: int = 2000, *, without: Sequence[Path] = ()
    ) -> None:
        self.unreadable: list[str] = []
        found, captions = _find(sources, without, self.unreadable)
        self.too_small: list[str] = []
        self.names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        for name in sorted(found):
            size = _size(found[name])
            if size is None:
                self.unreadable.append(name)
            elif min(size) < smallest:
                self.too_small.append(name)
            else:
                self.names.append(name)
                self.sizes.append(size)
        where = ", ".join(map(str, sources))
        if not found and not self.unreadable:
            raise DataError(f"no photo in {where}")
        if not self.names:
            left_out = f"{len(self.unreadable)} unreadable, {len(self.too_small)} smaller than {smallest} pixels"
            raise DataError(f"no usable photo in {where}: {left_out}")
        self._places = [found[name] for name in self.names]
        self._captions = [captions.get(str(Path(name).with_suffix(""))) for name in self.names]
        self.captioned = len(self.names) - self._captions.count(None)
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._room = memory * 1_000_000

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded photos: each worker process decodes its own, within the same room."""
        kept = sum(pixels.nbytes for pixels in self._decoded.values())
        return {**self.__dict__, "_decoded": OrderedDict(), "_room": self._room + kept}

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            DamagedPhotoError: if the photo cannot be decoded after all.
        """
        if index in self._decoded:
            self._decoded.move_to_end(index)
            return self._decoded[index]
        try:
            pixels = _decoded(opened(self._places[index].read()), self.names[index])
        except _UNREADABLE as error:
            name = self.names[index]
            damaged = DamagedPhotoError(f"{name}: damaged ({str(error).removeprefix(f'{name}: ')})")
            damaged.name = name
            raise damaged from error
        self._decoded[index] = pixels
        self._room -= pixels.nbytes
        while self._room < 0 and len(self._decoded) > 1:
            self._room += self._decoded.popitem(last=False)[1].nbytes
        return pixels

    def caption(self, index: int) -> str:
        """Of the photo, or the empty string."""
        place = self._captions[index]
        return "" if place is None else place.read().decode("utf-8", "replace").strip()


def _decoded(image: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) uint8, upright."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:  # most photos: no detour through floats
        return np.asarray(upright(image).convert("RGB"))
    picture = read_pil(image, name)  # as a picture that is restored: no hidden colours of what is transparent
    return to_uint8(picture.pixels if picture.alpha is None else fill_clear(picture.pixels, picture.alpha))


def _size(place: Place) -> tuple[int, int] | None:
    """From the header alone, which a large data set makes worth while; None if unreadable."""
    for most in (HEADER, -1):  # in some formats it is at the end
        try:
            with opened(place.read(most)) as image:
                return upright_size(image)
        except _UNREADABLE:
            continue
    return None


def _hidden(path: Path) -> bool:
    """What a program keeps for itself: macOS' ._NAME, a folder that is not complete."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)


def _files(source: Path, without: set[str]) -> Iterator[Path]:
    """All files below a folder, in linked folders too, but each folder once. What is hidden, what our own commands wrote
    there beside photos, the folders `without` (real paths) and links to folders above are passed over.
    """
    seen: set[str] = set()
    root = os.path.realpath(source)
    for folder, names, files in os.walk(source, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in seen | without or (real != root and Path(root).is_relative_to(real)):
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not _hidden(Path(name)) and not _is_written_by_us(here / name))
        yield from (here / name for name in files if not _hidden(Path(name)) and (here / name).is_file())


def _is_written_by_us(folder: Path) -> bool:
    """Sample sheets of a run, or LR of `addsr degrade`."""
    beside = {"samples": "stats.jsonl", "lr": "manifest.jsonl"}.get(folder.name)
    return beside is not None and (folder.parent / beside).is_file()


def _find(
    sources: Sequence[Path], without: Sequence[Path], unreadable: list[str]
) -> tuple[dict[str, Place], dict[str, Place]]:
    """Photos by name, captions by name without ending; pictures that no decoder here reads, and what is found in a folder
    and is no tar file after all, are added to `unreadable`.
    """
    places: dict[str, Place] = {}
    for source in sources:
        if source.is_dir():
            for path in _files(source, {os.path.realpath(folder) for folder in without}):
                try:
                    places |= _in_shard(path) if path.suffix.lower() == ".tar" else {str(path): Place(path)}
                except DataError:
                    unreadable.append(str(path))
        elif source.is_file():
            places |= _in_shard(source)
        else:
            raise DataError(f"{source}: no such folder or tar file")
    photos = {name: place for name, place in places.items() if Path(name).suffix.lower() in ENDINGS}
    unreadable += sorted(name for name in places if Path(name).suffix.lower() in OTHER_ENDINGS)
    captions = {str(Path(name).with_suffix("")): place for name, place in places.items() if name.endswith(".txt")}
    return photos, captions


def _in_shard(shard: Path) -> dict[str, Place]:
    """Files of a tar file by name."""
    try:
        with tarfile.open(shard, "r:") as tar:  # not compressed: photos are read by their place
            members = [member for member in tar if member.isfile() and not _hidden(Path(member.name))]
    except tarfile.TarError as error:
        raise DataError(f"{shard}: neither a folder nor an uncompressed tar file ({error})") from error
    return {f"{shard}/{member.name}": Place(shard, member.offset_data, member.size) for member in members}


def left_out_line(why: str, names: Sequence[str]) -> str:
    """Names the first of the photos and counts the others."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"left out, {why}: {names[0]}{more}"
