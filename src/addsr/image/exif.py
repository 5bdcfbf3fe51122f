"""EXIF that goes from a photo to its result: what of it is kept, and how it is written again unharmed."""

import json

from PIL import Image

MAX_EXIF = 60_000  # bytes of the photo's: a JPEG can hold 64 KB, with ours

ORIENTATION, EXIF_IFD, USER_COMMENT, MAKER_NOTE = 0x0112, 0x8769, 0x9286, 0x927C
_SIZES = (0xA002, 0xA003)  # of the photo, in pixels
# description, maker, model, date, artist, copyright
_ABOUT_THE_PHOTO = (0x010E, 0x010F, 0x0110, 0x0132, 0x013B, 0x8298)
_CHARACTER_SETS = {b"ASCII\0\0\0": "latin-1", b"UNICODE\0": "utf-16", b"\0" * 8: "utf-8"}


def parse_exif(data: bytes) -> Image.Exif:
    """EXIF from bytes, whose main directory can be written again as it was."""
    exif = Image.Exif()
    exif.load(data)
    keep_text(exif, exif)
    return exif


def keep_text(exif: Image.Exif, source: Image.Exif) -> None:
    """Let text that is not ASCII be written as `source` has it, in place.

    Pillow reads text as Latin-1, whatever it is, and writes question marks.
    """
    for tag, value in list(source.items()):
        if isinstance(value, str) and not value.isascii():
            exif[tag] = value.encode("latin-1" if max(value) <= "\xff" else "utf-8")


def kept_exif(image: Image.Image) -> tuple[bytes | None, str]:
    """What a result keeps of a photo's EXIF: all but its orientation and size. And what else is lost, in words.

    None where there is none, or where it is too large, or so odd that it cannot be written again.
    """
    lost = ""
    try:
        exif, source = Image.Exif(), image.getexif()
        if image.format == "TIFF":  # its "EXIF" is the container's own directory, offsets and all
            exif.update({tag: value for tag, value in source.items() if tag in _ABOUT_THE_PHOTO})
            keep_text(exif, exif)
        else:
            exif.load(source.tobytes())  # a copy: the caller's image stays as it is
            keep_text(exif, source)
        exif.pop(ORIENTATION, None)
        if EXIF_IFD in exif:
            for tag in _SIZES:
                exif.get_ifd(EXIF_IFD).pop(tag, None)
        data = exif.tobytes() if len(exif) else None
        if data is not None and len(data) > MAX_EXIF and EXIF_IFD in exif:
            lost = "the maker's note is left out of the result's EXIF, as it is too large"
            exif.get_ifd(EXIF_IFD).pop(MAKER_NOTE, None)
            data = exif.tobytes()
    except Exception:
        return None, "its EXIF is damaged and left out of the result"
    if data is not None and len(data) > MAX_EXIF:
        return None, f"its EXIF of {len(data)} bytes is left out of the result; the limit is {MAX_EXIF}"
    return data, lost


def decoded_text(raw: bytes) -> str:
    """Text whose character set nobody says: UTF-8 where it is that, else Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def user_comment(exif: Image.Exif) -> str:
    """What the photographer has noted in the photo; empty where that is nothing."""
    raw = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    if isinstance(raw, str):
        raw = raw.encode("latin-1", "replace")
    if not isinstance(raw, bytes):
        return ""
    return raw[8:].decode(_CHARACTER_SETS.get(raw[:8], "latin-1"), "replace").strip("\0 ")


def is_ours(text: str) -> bool:
    """Whether a comment is what we write about a result."""
    try:
        made_by = json.loads(text)
    except ValueError:
        return False
    return isinstance(made_by, dict) and "sha256" in made_by
