"""The files that a run reads beside its config."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sources:
    """What a run reads.

    Attributes:
        data: folders and tar shards of sharp photos.
        pairs: folder of real pairs, or None.
        lpips: LPIPS-Squeeze weights, or None.
        dino: folder of DINO v1 (transformers), for the discriminator of that name.
        dinov2: folder of DINOv2 (transformers), whose class token of LR conditions that discriminator, or None.
        dists: DISTS weights, or None.
    """

    data: tuple[Path, ...]
    pairs: Path | None = None
    lpips: Path | None = None
    dino: Path | None = None
    dinov2: Path | None = None
    dists: Path | None = None

    @classmethod
    def from_texts(cls, texts: Mapping[str, Any]) -> "Sources":
        """From paths as texts, `data` a list of them."""
        single = {name: Path(text) for name, text in texts.items() if name != "data"}
        return cls(tuple(Path(text) for text in texts.get("data", ())), **single)
