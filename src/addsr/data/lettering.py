"""Letters, and thin lines, drawn onto a photo before it is degraded.

What people read in a picture, and see at once when it is broken; photos of landscapes and animals have next to none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from addsr.data.ranges import Range, WholeRange, check_probability, check_range
from addsr.errors import DataError

CAPITALS, SMALL, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789.:/-"
FINE = 2  # drawn so many times as large: Pillow's lines have no soft edges
LEAST_CONTRAST = 0.25  # of luminance, between letters and what is below them
DRAWS = 8  # colours tried until there is that


@dataclass(frozen=True)
class LetteringSettings:
    """Blocks of random letters, upright or nearly, on the photo itself or on a sign; then lines.

    Attributes:
        fonts: TrueType or OpenType files, or folders of them; none for the face that comes with Pillow.
        blocks: how many blocks of letters.
        size: of the letters, in HR pixels a line; all octaves are alike frequent.
        rows, columns: how many lines a block has, and letters a line.
        slope: standard deviation of the lines' angle to the horizontal, in degrees.
        sign_probability: how often a block stands on a surface of one colour.
        lines_probability: how often there are lines, too.
        lines: how many.
        width: of a line, in HR pixels.
        softness: standard deviation of the blur of the edges, in HR pixels.
    """

    fonts: Sequence[str] = ()
    blocks: WholeRange = (1, 4)
    size: Range = (12.0, 64.0)
    rows: WholeRange = (1, 4)
    columns: WholeRange = (3, 14)
    slope: float = 8.0
    sign_probability: float = 0.4
    lines_probability: float = 0.5
    lines: WholeRange = (1, 5)
    width: Range = (1.0, 6.0)
    softness: Range = (0.0, 0.9)

    def __post_init__(self) -> None:
        for name in ("sign_probability", "lines_probability"):
            check_probability(name, getattr(self, name))
        for name, lowest, highest in (
            ("blocks", 0, 100),
            ("size", 4, 1000),
            ("rows", 1, 100),
            ("columns", 1, 100),
            ("lines", 1, 100),
            ("width", 0.5, 100),
            ("softness", 0, 10),
            ("slope", 0, 90),
        ):
            values = getattr(self, name)
            check_range(name, (values, values) if name == "slope" else values, lowest, highest)


def faces(fonts: Sequence[str]) -> list[Path | None]:
    """The font files that are named, or in the folders that are; [None], Pillow's own face, where none is.

    Raises:
        DataError: for a path without fonts, and for a file that is not one.
    """
    found: list[Path | None] = []
    for name in fonts:
        path = Path(name).expanduser()
        files = sorted(x for x in path.rglob("*") if x.suffix.lower() in (".ttf", ".otf")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: no fonts (.ttf, .otf) in this folder")
        for file in files:
            _face(file, 16)
        found += files
    if not found:
        _face(None, 16)
    return found or [None]


def lettered(
    hr: torch.Tensor, settings: LetteringSettings, fonts: Sequence[Path | None], rng: np.random.Generator
) -> torch.Tensor:
    """The photo (3, H, W) in [0, 1] with letters and lines on it.

    Args:
        fonts: as `faces` gives them.
    """
    for _ in range(rng.integers(*settings.blocks, endpoint=True)):
        letters = _letters(settings, fonts[int(rng.integers(len(fonts)))], rng)
        place = _placed(letters.size, hr, settings, rng)
        below = None
        if rng.random() < settings.sign_probability:
            hr, below = _painted(hr, _laid(Image.new("L", letters.size, 255), place, hr, settings, rng), None, rng)
        mask = _laid(letters, place, hr, settings, rng)
        if below is None:
            below = (hr * mask).sum((1, 2)) / mask.sum().clamp_min(1)
        hr, _ = _painted(hr, mask, below, rng)
    if rng.random() < settings.lines_probability:
        hr, _ = _painted(hr, _lines(hr, settings, rng), hr.mean((1, 2)), rng)
    return hr


def _face(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    try:
        face = ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)
    except (OSError, ImportError) as error:
        raise DataError(f"{path or 'the face of Pillow'}: cannot be used as a font ({error})") from error
    if not isinstance(face, ImageFont.FreeTypeFont):
        raise DataError("pairs.letters needs a Pillow with FreeType, as its wheels have")
    return face


def _letters(settings: LetteringSettings, path: Path | None, rng: np.random.Generator) -> Image.Image:
    """A mask of a block of text, with a margin."""
    low, high = np.log(settings.size)
    size = round(float(np.exp(rng.uniform(low, high))) * FINE)
    face = _face(path, size)
    alphabet = (CAPITALS, SMALL, SMALL + CAPITALS, DIGITS)[rng.choice(4, p=(0.4, 0.3, 0.15, 0.15))]
    rows = [_row(alphabet, settings.columns, rng) for _ in range(rng.integers(*settings.rows, endpoint=True))]
    text, spacing = "\n".join(rows), size * rng.uniform(0, 0.4)
    heavy = round(size * 0.05 * rng.uniform(0, 1)) if rng.random() < 0.5 else 0  # bold, of a face that is not
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, face, spacing=spacing, stroke_width=heavy
    )
    margin = size * rng.uniform(0.1, 0.6)
    extent = (round(right - left + 2 * margin) + 1, round(bottom - top + 2 * margin) + 1)
    mask = Image.new("L", extent)
    align = ("left", "center", "right")[rng.integers(3)]
    at = (margin - left, margin - top)
    ImageDraw.Draw(mask).multiline_text(at, text, 255, face, spacing=spacing, align=align, stroke_width=heavy)
    return mask


def _row(alphabet: str, columns: WholeRange, rng: np.random.Generator) -> str:
    count = rng.integers(*columns, endpoint=True)
    row = [
        alphabet[i] if space > 0.15 else " "
        for i, space in zip(rng.integers(len(alphabet), size=count), rng.random(count), strict=True)
    ]
    return "".join(row).strip() or alphabet[0]


def _placed(
    extent: tuple[int, int], hr: torch.Tensor, settings: LetteringSettings, rng: np.random.Generator
) -> tuple[float, ...]:
    """The affine map, as Pillow takes it, from places of the picture (times FINE) to those of a block: somewhere in the
    picture, narrowed, slanted and turned a little.
    """
    angle = np.deg2rad(rng.normal(0, settings.slope))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[rng.uniform(0.65, 1.15), rng.uniform(-0.25, 0.25)], [0, 1]])
    there = np.linalg.inv(turn @ shape)
    height, width = hr.shape[1:]
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)]) * FINE
    offset = np.array(extent) / 2 - there @ centre
    return (*there[0], offset[0], *there[1], offset[1])


def _laid(
    mask: Image.Image,
    place: tuple[float, ...],
    hr: torch.Tensor,
    settings: LetteringSettings,
    rng: np.random.Generator,
) -> torch.Tensor:
    """(H, W) in [0, 1]: the mask at its place of the picture."""
    height, width = hr.shape[1:]
    drawn = mask.transform((width * FINE, height * FINE), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
    return _soft(drawn, settings, rng)


def _soft(drawn: Image.Image, settings: LetteringSettings, rng: np.random.Generator) -> torch.Tensor:
    soft = drawn.filter(ImageFilter.GaussianBlur(FINE * rng.uniform(*settings.softness)))
    return torch.from_numpy(np.asarray(soft.reduce(FINE), np.float32) / 255)


def _lines(hr: torch.Tensor, settings: LetteringSettings, rng: np.random.Generator) -> torch.Tensor:
    """(H, W) in [0, 1]: straight lines, arcs, or rules beside one another."""
    height, width = hr.shape[1] * FINE, hr.shape[2] * FINE
    drawn = Image.new("L", (width, height))
    draw = ImageDraw.Draw(drawn)
    for _ in range(rng.integers(*settings.lines, endpoint=True)):
        thick = round(rng.uniform(*settings.width) * FINE)
        kind, (x0, x1), (y0, y1) = (
            rng.integers(3),
            rng.uniform(-0.2, 1.2, 2) * width,
            rng.uniform(-0.2, 1.2, 2) * height,
        )
        if kind == 0:
            draw.line((x0, y0, x1, y1), 255, thick)
        elif kind == 1:
            box = (min(x0, x1), min(y0, y1), max(x0, x1) + thick, max(y0, y1) + thick)
            draw.arc(box, *rng.uniform(0, 360, 2), fill=255, width=thick)
        else:
            away = np.array([y1 - y0, x0 - x1])
            away = away / max(float(np.hypot(*away)), 1) * thick * rng.uniform(1.5, 5)
            for count in range(rng.integers(2, 9)):
                dx, dy = away * count
                draw.line((x0 + dx, y0 + dy, x1 + dx, y1 + dy), 255, thick)
    return _soft(drawn, settings, rng)


def _painted(
    hr: torch.Tensor, mask: torch.Tensor, below: torch.Tensor | None, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture in one colour where the mask is, one that is seen on the colour `below` (3,); and the colour."""
    opacity = rng.uniform(0.7, 1)
    colour = torch.zeros(3)
    for _ in range(DRAWS):
        grey, tint = rng.beta(0.5, 0.5), rng.uniform(-0.5, 0.5, 3) * rng.random()
        colour = torch.from_numpy(np.clip(grey + tint, 0, 1)).float()
        if below is None or (colour - below).mean().abs() >= LEAST_CONTRAST:
            break
    return hr + opacity * mask * (colour[:, None, None] - hr), colour
