"""HR/LR training pairs, each a function of (seed, count) alone, whichever were made before."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from addsr.data.degradation import CASES, DegradationSettings, fixed_case, from_uint8, two_order
from addsr.data.photos import Photos
from addsr.errors import DataError
from addsr.image.resize import resize


@dataclass(frozen=True)
class PairSettings:
    """What the pairs are made of.

    Attributes:
        crop: side of the HR crop in pixels.
        min_contrast: crops of a smaller standard deviation (in [0, 1]) are drawn anew, up to `redraws` times.
        holdout: every n-th photo is kept from training, for choosing checkpoints.
        fixed_cases: share of the pairs degraded by the paper's four cases instead of the two-order process.
        degradation: the two-order process.
    """

    crop: int = 160
    min_contrast: float = 0.04
    redraws: int = 3
    holdout: int = 36
    fixed_cases: float = 0.25
    degradation: DegradationSettings = field(default_factory=DegradationSettings)


class Pairs(Dataset[dict[str, torch.Tensor]]):
    """Item n is the n-th pair of an endless stream; `length` only bounds a DataLoader.

    Items hold `hr` and `lr`, both (3, crop, crop) float32 in [0, 1]; `lr` is the degraded quarter, enlarged to HR size.
    """

    def __init__(
        self, photos: Photos, settings: PairSettings, seed: int, length: int, *, held_out: bool = False
    ) -> None:
        self.photos, self.settings, self.seed, self.length = photos, settings, seed, length
        self.chosen = [i for i in range(len(photos)) if (i % settings.holdout == 0) == held_out]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, count: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, count])
        hr = self._crop(rng)
        if rng.random() < self.settings.fixed_cases:
            lr = fixed_case(hr, CASES[rng.integers(len(CASES))], rng)
        else:
            lr = two_order(hr, self.settings.degradation, rng)
        return {"hr": hr, "lr": resize(lr, (self.settings.crop, self.settings.crop)).clamp(0, 1)}

    def _crop(self, rng: np.random.Generator) -> torch.Tensor:
        """A random crop in one of the eight orientations; flat sky teaches little, so it is drawn less often."""
        side = self.settings.crop
        redraws = self.settings.redraws
        while True:
            index = self.chosen[rng.integers(len(self.chosen))]
            photo = self.photos[index]
            if min(photo.shape[:2]) < side:
                height, width = photo.shape[:2]
                raise DataError(f"{self.photos.names[index]}: {width}×{height} is smaller than the crop of {side}")
            top, left = (int(rng.integers(extent - side + 1)) for extent in photo.shape[:2])
            crop = np.rot90(photo[top : top + side, left : left + side], int(rng.integers(4)))
            if redraws == 0 or crop.std() >= 255 * self.settings.min_contrast:
                break
            redraws -= 1
        return from_uint8(crop[:, ::-1] if rng.random() < 0.5 else crop)
