"""Training photos from folders and tar shards (the webdataset layout), addressed by position."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from addsr.errors import DataError

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


class Photos:
    """Photos of one or more sources in a fixed order (by name), decoded when asked for and kept in memory.

    Args:
        sources: folders (searched recursively) and tar files.

    Raises:
        DataError: where a source does not exist or no photo is found.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        found: dict[str, tuple[Path, int, int]] = {}  # name -> file, offset, bytes (offset -1: the whole file)
        for source in sources:
            if source.is_dir():
                found |= {str(p): (p, -1, 0) for p in source.rglob("*") if p.suffix.lower() in ENDINGS}
            elif source.is_file():
                with tarfile.open(source) as tar:
                    found |= {
                        m.name: (source, m.offset_data, m.size) for m in tar if Path(m.name).suffix.lower() in ENDINGS
                    }
            else:
                raise DataError(f"{source}: no such folder or tar file")
        if not found:
            raise DataError(f"no photo in {', '.join(map(str, sources))}")
        self.names = sorted(found)
        self._places = [found[name] for name in self.names]
        self._decoded: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        if index not in self._decoded:
            path, offset, size = self._places[index]
            with path.open("rb") as file:
                file.seek(max(offset, 0))
                data = file.read(size if offset >= 0 else -1)
            self._decoded[index] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return self._decoded[index]
