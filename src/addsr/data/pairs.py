"""HR/LR training pairs, each a function of (seed, count) alone, whichever were made before."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from addsr.data.degradation import CASES, SCALE, DegradationSettings, fixed_case, from_uint8, two_order
from addsr.data.photos import Photos
from addsr.errors import DataError
from addsr.image.resize import resize

MOST_DAMAGED = 100  # damaged photos passed over in a row before a run gives up


@dataclass(frozen=True)
class PairSettings:
    """What the pairs are made of.

    Attributes:
        crop: side of the HR crop in pixels.
        min_contrast: crops of a smaller standard deviation (in [0, 1]) are drawn anew, up to `redraws` times.
        holdout: every n-th photo is kept from training, for choosing checkpoints.
        fixed_cases: share of the pairs degraded by the paper's four cases instead of the two-order process.
        real: share of the pairs taken from real LR/HR pairs, where there are some.
        degradation: the two-order process.
    """

    crop: int = 160
    min_contrast: float = 0.04
    redraws: int = 3
    holdout: int = 36
    fixed_cases: float = 0.25
    real: float = 0.5
    degradation: DegradationSettings = field(default_factory=DegradationSettings)

    def __post_init__(self) -> None:
        if self.crop < 32 or self.crop % 32:
            raise DataError(f"pairs.crop is {self.crop}; it must be a multiple of 32")
        if self.holdout < 2:
            raise DataError(f"pairs.holdout is {self.holdout}; it must be at least 2")
        for name in ("fixed_cases", "real"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"pairs.{name} is {getattr(self, name)}; it must be 0 to 1")


class RealPairs:
    """Real LR/HR pairs: folders `lr` and `hr` with pictures of the same names, HR four times the size of LR.

    Args:
        folder: holds the two folders, as `addsr degrade` writes them.
        smallest: shortest side of HR.

    Raises:
        DataError: where a folder is missing, a picture has no partner, or the sizes do not fit.
    """

    def __init__(self, folder: Path, smallest: int = SCALE) -> None:
        self.hr, self.lr = Photos([folder / "hr"], smallest), Photos([folder / "lr"], smallest // SCALE)
        partners = {Path(name).stem: index for index, name in enumerate(self.lr.names)}
        stems = [Path(name).stem for name in self.hr.names]
        if missing := [stem for stem in stems if stem not in partners]:
            raise DataError(f"{folder}: {missing[0]} is in hr but not (readable and large enough) in lr")
        self.partners = [partners[stem] for stem in stems]

    def crop(self, side: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """HR (3, side, side) and LR (3, side/4, side/4) in [0, 1] of the same place and orientation."""
        index = int(rng.integers(len(self.hr)))
        hr, lr = self.hr[index], self.lr[self.partners[index]]
        if hr.shape[:2] != tuple(SCALE * extent for extent in lr.shape[:2]):
            sizes = f"{hr.shape[1]}×{hr.shape[0]} and {lr.shape[1]}×{lr.shape[0]}"
            raise DataError(f"{self.hr.names[index]}: HR and LR are {sizes}; HR must be {SCALE} times LR")
        small = side // SCALE
        top, left = (int(rng.integers(extent - small + 1)) for extent in lr.shape[:2])
        turns, flip = int(rng.integers(4)), rng.random() < 0.5
        lr_crop = lr[top : top + small, left : left + small]
        hr_crop = hr[SCALE * top : SCALE * top + side, SCALE * left : SCALE * left + side]
        return from_uint8(orient(hr_crop, turns, flip)), from_uint8(orient(lr_crop, turns, flip))


class Pairs(Dataset[dict[str, Any]]):
    """Item n is the n-th pair of an endless stream; `length` only bounds a DataLoader.

    Items hold `hr` and `lr`, both (3, crop, crop) float32 in [0, 1], where `lr` is the degraded quarter, enlarged to HR
    size; `place`, their own n; and `prompt`, the photo's caption.
    """

    def __init__(
        self,
        photos: Photos,
        settings: PairSettings,
        seed: int,
        length: int,
        *,
        held_out: bool = False,
        real: RealPairs | None = None,
    ) -> None:
        self.photos, self.settings, self.seed, self.length, self.real = photos, settings, seed, length, real
        # a single photo has to serve for both
        self.chosen = [i for i in range(len(photos)) if (i % settings.holdout == 0) == held_out] or [0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, count: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, count])
        if self.real is not None and rng.random() < self.settings.real:
            hr, lr = self.real.crop(self.settings.crop, rng)
            return {"hr": hr, "lr": self._enlarged(lr), "place": count, "prompt": ""}
        hr, index = self._crop(rng)
        if rng.random() < self.settings.fixed_cases:
            lr = fixed_case(hr, CASES[rng.integers(len(CASES))], rng)
        else:
            lr = two_order(hr, self.settings.degradation, rng)
        return {"hr": hr, "lr": self._enlarged(lr), "place": count, "prompt": self.photos.caption(index)}

    def _enlarged(self, lr: torch.Tensor) -> torch.Tensor:
        return resize(lr, (self.settings.crop, self.settings.crop)).clamp(0, 1)

    def _crop(self, rng: np.random.Generator) -> tuple[torch.Tensor, int]:
        """A random crop in one of the eight orientations, and the photo that it is from.

        Flat sky teaches little, so it is drawn less often; a photo that turns out to be damaged is passed over.
        """
        side = self.settings.crop
        redraws, damaged = self.settings.redraws, 0
        while True:
            index = self.chosen[rng.integers(len(self.chosen))]
            try:
                photo = self.photos[index]
            except DataError:
                damaged += 1
                if damaged > MOST_DAMAGED:
                    raise
                continue
            top, left = (int(rng.integers(extent - side + 1)) for extent in photo.shape[:2])
            crop = photo[top : top + side, left : left + side]
            if redraws == 0 or crop.std() >= 255 * self.settings.min_contrast:
                return from_uint8(orient(crop, int(rng.integers(4)), rng.random() < 0.5)), index
            redraws -= 1


def orient(crop: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    """One of the eight orientations of a picture (H, W, 3): quarter turns, then mirrored or not."""
    turned = np.rot90(crop, turns)
    return turned[:, ::-1] if flip else turned
