"""From a restored picture to a file: encoder, metadata, and an atomic move into place."""

import contextlib
import errno
import io
import json
import os
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from addsr.errors import OutputError
from addsr.image.exif import EXIF_IFD, USER_COMMENT, decoded_text, is_ours, parse_exif, user_comment
from addsr.image.profile import gray_to_srgb

# ending -> Pillow's format, the longest side that it (JPEG: libjpeg) can hold, whether it holds transparency
FORMATS = {
    ".png": ("PNG", 2**31 - 1, True),
    ".jpg": ("JPEG", 65_500, False),
    ".jpeg": ("JPEG", 65_500, False),
    ".webp": ("WEBP", 16_383, True),
    ".tif": ("TIFF", 2**31 - 1, True),
    ".tiff": ("TIFF", 2**31 - 1, True),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
}
MAX_JPEG_EXIF = 65_533  # bytes
_DESCRIPTION, _SOFTWARE, _XMP = 0x010E, 0x0131, 700
# what a TIFF keeps of the photo's EXIF: maker, model, date, artist, copyright; libtiff takes no nested directories
_TIFF_KEEPS = (0x010F, 0x0110, 0x0132, 0x013B, 0x8298)


def check_target(path: Path, size: tuple[int, int], transparent: bool) -> None:
    """Whether a picture of `size` (height, width) fits the format of `path`'s ending: to be asked before computing it.

    Raises:
        OutputError: if it does not.
    """
    name, longest, holds_alpha = FORMATS[path.suffix.lower()]
    if max(size) > longest:
        raise OutputError(f"{path}: {size[1]}×{size[0]} is too large for {name}, whose limit is {longest} a side")
    if transparent and not holds_alpha:
        raise OutputError(f"{path}: the picture has transparency, which {name} cannot hold; use png, webp or tif")


def write_picture(image: Image.Image, path: Path, made_by: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Encode `image` into `path`, with what made it in the metadata. Either the whole file appears or none.

    Args:
        image: with `icc_profile`, `exif`, `xmp` and `dpi` in its `info`, as Picture.to_pil gives it.
        path: its ending names the format.
        made_by: what goes into EXIF (Software and UserComment; ImageDescription of a TIFF) and the text chunk `addsr`
            of a PNG, as JSON; a note that the photo had there is its `photo_comment`.
        overwrite: replace an existing file.

    Raises:
        OutputError: if the file exists, the folder cannot be written to, or the disk is full.
    """
    name = FORMATS[path.suffix.lower()][0]
    profile = image.info.get("icc_profile")
    metadata = _metadata(image.info.get("exif", b""), name, made_by)
    if name == "JPEG" and len(metadata["exif"]) > MAX_JPEG_EXIF:
        warnings.warn(
            f"{path}: the photo's EXIF and what made the result do not both fit; the latter is kept", stacklevel=2
        )
        metadata = _metadata(b"", name, made_by)
        if len(metadata["exif"]) > MAX_JPEG_EXIF:
            raise OutputError(f"{path}: so long a prompt does not fit a JPEG's {MAX_JPEG_EXIF} bytes of EXIF; use png")
    if name == "JPEG" and image.mode == "RGBA":
        image = image.convert("RGB")  # opaque: check_target refuses others
    if name == "JPEG" and image.mode == "LA":
        image = image.convert("L")
    if name == "WEBP" and profile and profile[16:20] == b"GRAY":  # WebP has no grey pictures for it to describe
        image, profile = gray_to_srgb(image, profile), None
    dpi = image.info.get("dpi")
    resolution = {"dpi": dpi} if dpi and name != "WEBP" else {}
    if xmp := image.info.get("xmp"):
        _add_xmp(metadata, name, xmp)
    part = path.with_name(f".addsr-{secrets.token_hex(8)}.part")
    try:
        encoded = io.BytesIO()  # first in memory: encoders do not all report a full disk as such
        image.save(encoded, name, **_OPTIONS[name], icc_profile=profile, **resolution, **metadata)
        with part.open("xb") as file:
            file.write(encoded.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        _move(part, path, overwrite)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(f"{path}: the disk is full") from error
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _move(part: Path, path: Path, overwrite: bool) -> None:
    """Into place, atomically; without `overwrite` not over a file that has appeared meanwhile."""
    if overwrite:
        part.replace(path)
        return
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise OutputError(f"{path}: exists already; use --overwrite to replace it") from error
    except OSError:  # a file system without hard links
        if path.exists():
            raise OutputError(f"{path}: exists already; use --overwrite to replace it") from None
        part.replace(path)


def _metadata(photo: bytes, name: str, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's options that carry the photo's EXIF and what made the result; a note that gives way is kept in that."""
    exif = parse_exif(photo)
    software = f"addsr {made_by.get('version', '')}".strip()
    if name == "TIFF":
        caption = exif.get(_DESCRIPTION)
        comment = _comment(made_by, decoded_text(caption) if isinstance(caption, bytes) else str(caption or ""))
        kept = {tag: exif[tag] for tag in _TIFF_KEEPS if tag in exif}
        return {"tiffinfo": {**kept, _SOFTWARE: software, _DESCRIPTION: comment}}
    comment = _comment(made_by, user_comment(exif))
    exif[_SOFTWARE] = software
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"ASCII\0\0\0" + comment.encode("ascii")
    options: dict[str, Any] = {"exif": exif.tobytes()}
    if name == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("addsr", comment)
    return options


def _add_xmp(metadata: dict[str, Any], name: str, xmp: bytes) -> None:
    """The photo's XMP to the encoder's options, in place."""
    if name in ("JPEG", "WEBP"):
        metadata["xmp"] = xmp
    elif name == "PNG":
        metadata["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    else:
        metadata["tiffinfo"][_XMP] = xmp


def _comment(made_by: Mapping[str, Any], note: str) -> str:
    kept = {"photo_comment": note} if note and not is_ours(note) else {}
    return json.dumps({**made_by, **kept}, ensure_ascii=True)
