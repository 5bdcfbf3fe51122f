"""LR/HR pairs as folders: `hr`, `lr` and a manifest that says how each pair was made."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from addsr.data.degradation import CASES, SCALE, DegradationSettings, fixed_case, two_order
from addsr.data.mild import MildSettings, mild
from addsr.data.photos import Photos
from addsr.errors import DataError
from addsr.image.uint8 import from_uint8, to_uint8
from addsr.runtime.complete_folder import complete_folder

RANGES = {"two-order": DegradationSettings, "mild": MildSettings}  # cases that draw from ranges
Ranges = DegradationSettings | MildSettings
LONGEST_NAME = 255  # bytes
_FOLDERS = ("hr", "lr")


def write_pairs(
    photos: Photos,
    out: Path,
    *,
    case: str,
    settings: Ranges | None,
    crop: int | None,
    count: int,
    seed: int,
) -> int:
    """Write PNG pairs of the same names; each depends on (seed, photo's position, copy) alone.

    Args:
        photos: sharp ones.
        out: gets `hr`, `lr` and `manifest.jsonl`, which must not be there yet, all at the end.
        case: `two-order`, `mild` or one of the paper's cases.
        settings: the ranges of the first two; None for the others.
        crop: side of a random crop; None for the whole photo, trimmed to a multiple of the scale.
        count: pairs a photo.
        seed: of everything random.

    Returns:
        The number of pairs; a photo that turns out to be damaged is left out, and named in `photos.unreadable`.

    Raises:
        TypeError: for settings of another case.
        DataError: for an unknown case or a crop that is no multiple of the scale, where there are pairs already, or where
            every photo is damaged.
    """
    if case not in (*RANGES, *CASES):
        raise DataError(f"unknown case {case!r}; there are {', '.join((*RANGES, *CASES))}")
    if crop is not None and crop % SCALE:
        raise DataError(f"crop is {crop}; it must be a multiple of {SCALE}")
    if not isinstance(settings, RANGES.get(case, type(None))):
        raise TypeError(f"settings of {case} are {type(settings).__name__}")
    if (out / "manifest.jsonl").exists() or any(list((out / name).glob("*")) for name in _FOLDERS):
        raise DataError(f"{out}: holds pairs already; take another folder")
    for name in _FOLDERS:
        if (out / name).is_dir():
            (out / name).rmdir()  # empty, as seen above
    # half of a set would train without a word
    with complete_folder(out / "hr") as hr_folder, complete_folder(out / "lr") as lr_folder:
        rows = []
        for index, photo_name in enumerate(photos.names):
            try:
                photo = photos[index]
            except DataError:
                photos.unreadable.append(photo_name)
                continue
            for copy in range(count):
                rng = np.random.default_rng([seed, index, copy])
                hr = from_uint8(_cropped(photo, crop, rng))
                lr = _degraded(hr, case, settings, rng)
                name = _file_name(f"{index:06d}_{copy}_", Path(photo_name).stem)
                for folder, picture in ((hr_folder, hr), (lr_folder, lr)):
                    Image.fromarray(to_uint8(picture)).save(folder / name)
                rows.append({"name": name, "photo": photo_name, "case": case, "seed": [seed, index, copy]})
        if not rows:
            raise DataError(f"no usable photo: {len(photos.unreadable)} unreadable or damaged")
        part = out / ".manifest.jsonl.part"
        numbers = None if settings is None else asdict(settings)
        head = {"case": case, "seed": seed, "crop": crop, "degradation": numbers}
        part.write_text("".join(json.dumps(row) + "\n" for row in [head, *rows]))
    part.replace(out / "manifest.jsonl")
    return len(rows)


def _degraded(hr: torch.Tensor, case: str, settings: Ranges | None, rng: np.random.Generator) -> torch.Tensor:
    if isinstance(settings, DegradationSettings):
        return two_order(hr, settings, rng)
    return fixed_case(hr, case, rng) if settings is None else mild(hr, settings, rng)


def _file_name(number: str, stem: str) -> str:
    """NUMBERstem.png, the stem cut to what a file system takes."""
    room = LONGEST_NAME - len(f"{number}.png")
    return f"{number}{os.fsencode(stem)[:room].decode(errors='ignore')}.png"


def _cropped(photo: np.ndarray, crop: int | None, rng: np.random.Generator) -> np.ndarray:
    if crop is None:
        height, width = (extent // SCALE * SCALE for extent in photo.shape[:2])
        return photo[:height, :width]
    side = crop // SCALE * SCALE
    top, left = (int(rng.integers(extent - side + 1)) for extent in photo.shape[:2])
    return photo[top : top + side, left : left + side]
