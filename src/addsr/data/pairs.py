"""HR/LR training pairs, each a function of (seed, count) alone, whichever were made before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from addsr.data.degradation import CASES, SCALE, DegradationSettings, fixed_case, two_order
from addsr.data.lettering import LetteringSettings, faces, lettered
from addsr.data.mild import MildSettings, mild
from addsr.data.photos import DamagedPhotoError, Photos
from addsr.errors import DataError
from addsr.image.resize import resize
from addsr.image.uint8 import from_uint8

MOST_DAMAGED = 100  # damaged photos passed over in a row before a run gives up


@dataclass(frozen=True)
class PairSettings:
    """What the pairs are made of.

    Attributes:
        crop: side of the HR crop in pixels.
        min_contrast, redraws: crops of a smaller standard deviation (in [0, 1]) are drawn anew, up to so many times.
        turns: crops are turned by quarters and mirrored; else mirrored alone, for a model that knows what is up.
        holdout: every n-th photo is kept from training, for choosing checkpoints.
        fixed_cases, mild: shares of the pairs degraded by the paper's four cases, and mildly, as a good camera's photos are;
            the others go through the two-order process.
        cases: which of the paper's four; each name as often as any other, so one that stands twice comes twice as often.
        real: share of the pairs taken from real LR/HR pairs, where there are some; all of them where there is nothing else.
        letters: share of the photos' crops with letters and thin lines drawn onto them before they are degraded.
        memory: megabytes of decoded photos that each worker process keeps, shared out among photos and real pairs.
        degradation: the two-order process.
        mild_degradation: see `addsr.data.mild`.
        lettering: see `addsr.data.lettering`.
    """

    crop: int = 160
    min_contrast: float = 0.04
    redraws: int = 3
    turns: bool = True
    holdout: int = 36
    fixed_cases: float = 0.25
    mild: float = 0.0
    cases: tuple[str, ...] = CASES
    real: float = 0.5
    letters: float = 0.0
    memory: int = 2000
    degradation: DegradationSettings = field(default_factory=DegradationSettings)
    mild_degradation: MildSettings = field(default_factory=MildSettings)
    lettering: LetteringSettings = field(default_factory=LetteringSettings)

    def __post_init__(self) -> None:
        if self.crop < 32 or self.crop % 32:
            raise DataError(f"pairs.crop is {self.crop}; it must be a multiple of 32")
        for name, least in (("holdout", 2), ("redraws", 0), ("memory", 0)):
            if getattr(self, name) < least:
                raise DataError(f"pairs.{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("fixed_cases", "mild", "real", "letters"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"pairs.{name} is {getattr(self, name)}; it must be 0 to 1")
        if self.fixed_cases + self.mild > 1:
            shares = f"{self.fixed_cases} and pairs.mild {self.mild}"
            raise DataError(f"pairs.fixed_cases is {shares}; together they must be at most 1")
        if not self.cases or not set(self.cases) <= set(CASES):
            raise DataError(f"pairs.cases is {list(self.cases)}; it must be names among {', '.join(CASES)}")


def chosen(count: int, holdout: int, held_out: bool) -> list[int]:
    """Which of `count` photos are trained on, or, held out, measured on: every n-th. A single one has to serve for both."""
    return [i for i in range(count) if (i % holdout == 0) == held_out] or [0]


class RealPairs:
    """Real LR/HR pairs: folders `lr` and `hr` with pictures of the same names, in subfolders too; HR is four times as large.

    A pair of which either picture is unreadable or too small is left out.

    Args:
        folder: holds the two folders, as `addsr degrade` writes them.
        smallest: shortest side of HR.
        memory: megabytes of decoded pictures that are kept.

    Attributes:
        hr, lr: the pictures.
        couples: positions in `hr` and in `lr` of each pair.

    Raises:
        DataError: where a folder is missing, HR has no partner (LR without one is passed over), or the sizes do not fit.
    """

    def __init__(self, folder: Path, smallest: int = SCALE, memory: int = 2000) -> None:
        share = memory // (SCALE**2 + 1)  # LR has so many pixels less
        self.hr = Photos([folder / "hr"], smallest, memory - share)
        self.lr = Photos([folder / "lr"], smallest // SCALE, share)
        partners = _by_place(self.lr.names, folder / "lr")
        left_out = _by_place((*self.lr.unreadable, *self.lr.too_small), folder / "lr")
        ours = _by_place(self.hr.names, folder / "hr")
        if missing := [place for place in ours if place not in partners and place not in left_out]:
            raise DataError(f"{folder}: {missing[0]} is in hr but not in lr")
        self.couples = [(index, partners[place]) for place, index in ours.items() if place in partners]
        for hr, lr in self.couples:
            _check_sizes(self.hr.names[hr], self.hr.sizes[hr], self.lr.sizes[lr])
        if not self.couples:
            raise DataError(f"{folder}: no pair of which both pictures are usable")

    def __len__(self) -> int:
        return len(self.couples)

    def crop(
        self, index: int, side: int, rng: np.random.Generator, *, turned: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """HR (3, side, side) and LR (3, side/4, side/4) in [0, 1] of the same place and orientation of a pair."""
        ours, theirs = self.couples[index]
        hr, lr = self.hr[ours], self.lr[theirs]
        small = side // SCALE
        top, left = (int(rng.integers(extent - small + 1)) for extent in lr.shape[:2])
        lr_crop = lr[top : top + small, left : left + small]
        hr_crop = hr[SCALE * top : SCALE * top + side, SCALE * left : SCALE * left + side]
        turns, flip = orientation(rng, turned=turned)
        return from_uint8(orient(hr_crop, turns, flip)), from_uint8(orient(lr_crop, turns, flip))

    def shortest_side(self, index: int) -> int:
        """Of a pair's HR, in pixels."""
        return min(self.hr.sizes[self.couples[index][0]])


def _by_place(names: Sequence[str], root: Path) -> dict[str, int]:
    """Positions by path below `root`, without the ending: video sets number their frames anew in each subfolder."""
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        place = Path(name).relative_to(root).with_suffix("").as_posix()
        if place in places:
            raise DataError(f"{root}: two pictures are called {place}, with other endings")
        places[place] = index
    return places


def _check_sizes(name: str, hr: tuple[int, int], lr: tuple[int, int]) -> None:
    if hr != (SCALE * lr[0], SCALE * lr[1]):
        sizes = f"{hr[0]}×{hr[1]} and {lr[0]}×{lr[1]}"
        raise DataError(f"{name}: HR and LR are {sizes}; HR must be {SCALE} times LR")


class Pairs(Dataset[dict[str, Any]]):
    """Item n is the n-th pair of an endless stream; `length` only bounds a DataLoader.

    Items hold `hr` and `lr`, both (3, crop, crop) float32 in [0, 1], where `lr` is the degraded quarter, enlarged to HR
    size; `place`, their own n; `prompt`, the photo's caption; and `damaged`, the names, a line each, of photos that could
    not be decoded and were passed over.

    Args:
        photos: sharp ones, to be degraded; None where there are real pairs alone.
        settings: see there.
        seed: of everything random.
        length: see above.
        held_out: give the photos and pairs that are kept from training.
        real: real pairs, or None.
    """

    def __init__(
        self,
        photos: Photos | None,
        settings: PairSettings,
        seed: int,
        length: int,
        *,
        held_out: bool = False,
        real: RealPairs | None = None,
    ) -> None:
        if photos is None and real is None:
            raise DataError("neither photos nor real pairs to train on")
        self.photos, self.settings, self.seed, self.length, self.real = photos, settings, seed, length, real
        self.chosen = [] if photos is None else chosen(len(photos), settings.holdout, held_out)
        self.chosen_real = [] if real is None else chosen(len(real), settings.holdout, held_out)
        self.fonts = faces(settings.lettering.fonts) if settings.letters else []
        self.real_share = 1.0 if photos is None else settings.real if real is not None else 0.0

    @property
    def shortest_side(self) -> int:
        """Of the photos and pairs that crops are taken from, in pixels."""
        sides = [] if self.photos is None else [min(self.photos.sizes[index]) for index in self.chosen]
        return min(
            sides + ([] if self.real is None else [self.real.shortest_side(index) for index in self.chosen_real])
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, count: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, count])
        if self.real is not None and (self.photos is None or rng.random() < self.real_share):
            (hr, lr), damaged = self._real_crop(self.real, rng)
            prompt = ""
        else:
            hr, index, damaged = self._crop(rng)
            if self.settings.letters and rng.random() < self.settings.letters:
                hr = lettered(hr, self.settings.lettering, self.fonts, rng)
            lr = self._degraded(hr, rng)
            assert self.photos is not None
            prompt = self.photos.caption(index)
        crop = self.settings.crop
        lr = resize(lr, (crop, crop)).clamp(0, 1)
        return {"hr": hr, "lr": lr, "place": count, "prompt": prompt, "damaged": "\n".join(damaged)}

    def _degraded(self, hr: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        settings, draw = self.settings, rng.random()
        if draw < settings.fixed_cases:
            return fixed_case(hr, settings.cases[rng.integers(len(settings.cases))], rng)
        if draw < settings.fixed_cases + settings.mild:
            return mild(hr, settings.mild_degradation, rng)
        return two_order(hr, settings.degradation, rng)

    def _real_crop(
        self, real: RealPairs, rng: np.random.Generator
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], list[str]]:
        """HR and LR of a real pair, and the names of damaged ones that were passed over."""
        damaged: list[str] = []
        side = self.settings.crop
        while True:
            index = _drawn(self.chosen_real, len(real), lambda i: real.shortest_side(i) >= side, damaged, rng)
            try:
                return real.crop(index, side, rng, turned=self.settings.turns), damaged
            except DamagedPhotoError as error:
                damaged.append(error.name)
                if len(damaged) > MOST_DAMAGED:
                    raise

    def _crop(self, rng: np.random.Generator) -> tuple[torch.Tensor, int, list[str]]:
        """A random crop in a random orientation, the photo that it is from, and damaged ones passed over.

        Flat sky teaches little, so it is drawn less often.
        """
        assert self.photos is not None
        photos, side, redraws = self.photos, self.settings.crop, self.settings.redraws
        damaged: list[str] = []
        while True:
            index = _drawn(self.chosen, len(photos), lambda i: min(photos.sizes[i]) >= side, damaged, rng)
            try:
                photo = photos[index]
            except DamagedPhotoError as error:
                damaged.append(error.name)
                if len(damaged) > MOST_DAMAGED:
                    raise
                continue
            top, left = (int(rng.integers(extent - side + 1)) for extent in photo.shape[:2])
            crop = photo[top : top + side, left : left + side]
            if redraws == 0 or crop.std() >= 255 * self.settings.min_contrast:
                return from_uint8(orient(crop, *orientation(rng, turned=self.settings.turns))), index, damaged
            redraws -= 1


def _drawn(
    chosen: list[int], count: int, fits: Callable[[int], bool], damaged: list[str], rng: np.random.Generator
) -> int:
    """One of the chosen photos; where those prove to be damaged, as the only one that is held out may be, one of all that
    are large enough.
    """
    if len(damaged) >= MOST_DAMAGED // 2:
        chosen = [index for index in range(count) if fits(index)]
    return chosen[rng.integers(len(chosen))]


def orientation(rng: np.random.Generator, *, turned: bool) -> tuple[int, bool]:
    """Random quarter turns, 0 unless `turned`, and whether to mirror; the draws are the same in number either way."""
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    return turns if turned else 0, bool(flip)


def orient(crop: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    """One of the eight orientations of a picture (H, W, 3): quarter turns, then mirrored or not."""
    turned = np.rot90(crop, turns)
    return turned[:, ::-1] if flip else turned
