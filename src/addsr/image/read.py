"""From a file or PIL image to a Picture. Every defence against bad input lives here."""

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from addsr.errors import InputImageError
from addsr.image.exif import ORIENTATION, kept_exif
from addsr.image.picture import Picture, from_array
from addsr.image.profile import cmyk_to_srgb
from addsr.image.xmp import kept_xmp

# Decoders that are safe to meet with strangers' files: no PostScript, no vector formats, nothing that starts a program.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
ENDINGS = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif",
}  # fmt: skip
# pictures to people, but not to these decoders
OTHER_ENDINGS = {
    ".heic", ".heif", ".jxl", ".jp2", ".psd", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".svg", ".pdf",
}  # fmt: skip
MAX_BYTES = 512 * 2**20
MAX_PIXELS = 128_000_000
MAX_DPI = 65_535  # what a JPEG can say

_PHOTOMETRIC = 262

# what Pillow raises as it decodes damaged pictures; the last is AVIF's
DAMAGED = (OSError, ValueError, SyntaxError, IndexError, TypeError, EOFError, RuntimeError)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: Path) -> Picture:
    """Decode a file.

    Raises:
        InputImageError: if it does not exist, is not a file, is too large, is no picture, or is damaged.
    """
    try:
        if not path.exists():
            raise InputImageError(f"{path}: no such file")
        if not path.is_file():
            raise InputImageError(f"{path}: not a regular file")
        size = path.stat().st_size
        if size == 0:
            raise InputImageError(f"{path}: the file is empty")
        if size > MAX_BYTES:
            raise InputImageError(f"{path}: {size / 2**20:.0f} MB is more than the limit of {MAX_BYTES // 2**20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise InputImageError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        image = opened(data)
    except UnidentifiedImageError as error:
        raise InputImageError(f"{path}: not a picture of a known format (PNG, JPEG, WebP, TIFF, BMP, …)") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputImageError(f"{path}: cannot be opened ({error})") from error
    return read_pil(image, str(path))


def opened(data: bytes) -> Image.Image:
    """A file's bytes as a PIL image that is not decoded yet, by the safe decoders alone.

    Raises:
        UnidentifiedImageError (an OSError), OSError, ValueError, SyntaxError, Image.DecompressionBombError: as Pillow does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit stands in `read_pil`
        Image.init()  # registers the decoders; which ones there are depends on how Pillow was built
        return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the turn that its EXIF or XMP asks for, from the header alone; a TIFF has made its own."""
    width, height = image.size
    if image.format == "TIFF" and ORIENTATION in getattr(image, "tag_v2", {}):
        return width, height
    try:  # not a PNG's own way, which decodes it to look for more
        turned = Image.Image.getexif(image).get(ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # odd EXIF is no reason to leave a photo out
        turned = False
    return (height, width) if turned else (width, height)


def upright(image: Image.Image) -> Image.Image:
    """The image, decoded, after the turn that its EXIF or XMP asks for.

    Pillow's `exif_transpose` writes the EXIF again besides, which fails where a tag of it is odd.

    Raises:
        OSError, ValueError, SyntaxError, IndexError, TypeError, EOFError: as Pillow does for damaged pictures.
    """
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as in `upright_size`
        turn = None
    return image if turn is None else image.transpose(turn)


def read_pil(image: Image.Image, name: str = "the picture") -> Picture:
    """Normalise a PIL image: the first frame, upright, any mode.

    Raises:
        InputImageError: if it is too large, or damaged.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise InputImageError(f"{name}: {width}×{height} has no pixels")
    if width * height > MAX_PIXELS:
        raise InputImageError(
            f"{name}: {width}×{height} is {width * height / 1e6:.0f} megapixels, the limit is {MAX_PIXELS / 1e6:.0f}"
        )
    try:
        layout = tiles[0].args if (tiles := getattr(image, "tile", None)) else None  # gone when it is decoded
        negative = _white_is_zero(image)
        frames = _frames(image)
        image.load()
        exif, lost_exif = kept_exif(image)
        xmp, lost_xmp = kept_xmp(image)
        turned = upright(image)
        array = _to_array(turned, _color_key(image, layout))
        picture = from_array(_inverted(array) if negative else array)
    except InputImageError as error:
        raise InputImageError(f"{name}: {error}") from error
    except DAMAGED as error:
        raise InputImageError(f"{name}: the file is damaged or cut off ({error})") from error
    if frames > 1:
        warnings.warn(f"{name}: holds {frames} pictures; the first is taken", stacklevel=2)
    for lost in filter(None, (lost_exif, lost_xmp)):
        warnings.warn(f"{name}: {lost}", stacklevel=2)
    profile = image.info.get("icc_profile") if image.mode not in ("CMYK", "LAB") else None
    if profile and (profile[16:20] == b"GRAY") != picture.mode.startswith("L"):
        profile = None  # it describes another kind of picture than the result is
    dpi = _dpi(image, on_its_side=turned.size != image.size)
    return replace(picture, icc_profile=profile or None, exif=exif, xmp=xmp, dpi=dpi)


def _frames(image: Image.Image) -> int:
    """Pages or frames, where they are pictures of their own (and not a camera's preview, as in an MPO)."""
    if image.format not in ("TIFF", "GIF", "WEBP", "PNG", "AVIF"):
        return 1
    try:
        return getattr(image, "n_frames", 1)
    except DAMAGED:
        return 1


def _white_is_zero(image: Image.Image) -> bool:
    """A TIFF whose zero is white, of a kind that Pillow leaves as it is: it inverts 8-bit ones itself."""
    if image.format != "TIFF" or not image.mode.startswith(("I;16", "F")):
        return False
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _inverted(array: np.ndarray) -> np.ndarray:
    return (1 - array) if array.dtype.kind == "f" else np.iinfo(array.dtype).max - array


def _dpi(image: Image.Image, *, on_its_side: bool) -> tuple[float, float] | None:
    """Pixels an inch of the upright picture, where the file says so and it can be written again."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if on_its_side:
        across, down = down, across
    return (across, down) if 2 <= across <= MAX_DPI and 2 <= down <= MAX_DPI else None


def _color_key(image: Image.Image, layout: Any) -> int | tuple[int, ...] | None:
    """The value of pixels that are clear (PNG's tRNS), as the decoded pixels have it; None without.

    Pillow leaves it as the file has it, but stretches grey of two and four bits to eight, and cuts 16-bit RGB down to eight.
    """
    key = image.info.get("transparency")
    if isinstance(key, tuple):
        return tuple(value >> 8 for value in key) if layout == "RGB;16B" else key
    if isinstance(key, int):
        return key * {"L;2": 85, "L;4": 17}.get(layout, 1)
    return None


def _keyed(values: np.ndarray, key: int | tuple[int, ...]) -> np.ndarray:
    """Grey (H, W) or RGB (H, W, 3) with the alpha channel that the key says."""
    planes = np.atleast_3d(values)
    opaque = np.iinfo(values.dtype).max
    alpha = np.where((planes == np.asarray(key)).all(-1, keepdims=True), 0, opaque)
    return np.concatenate([planes, alpha.astype(values.dtype)], -1)


def _to_array(image: Image.Image, key: int | tuple[int, ...] | None) -> np.ndarray:
    """The pixels of any mode as an array that `from_array` takes."""
    mode = image.mode
    if mode == "1":
        image, mode = image.convert("L"), "L"
    if mode in ("L", "RGB"):
        values = np.asarray(image)
        return values if key is None else _keyed(values, key)
    if mode in ("RGBA", "LA"):
        return np.asarray(image)
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        return values if key is None else _keyed(values, key)
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputImageError("32-bit grey values beyond 0..65535 are not supported")
        return values.astype(np.uint16)
    if mode == "F":
        return np.asarray(image)
    if mode == "CMYK":
        return np.asarray(cmyk_to_srgb(image))
    if mode == "La":
        return np.asarray(image.convert("LA"))
    if mode in ("PA", "RGBa") or (mode == "P" and "transparency" in image.info):
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))
