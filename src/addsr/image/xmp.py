"""XMP that goes from a photo to its result: titles, captions, keywords, ratings and rights, as photographers note them."""

import re

from PIL import Image

MAX_XMP = 65_504  # bytes: what a JPEG can hold

# what is of the photo's pixels and not of the result's, and a second part that Pillow does not read
_OF_THE_PIXELS = (
    "tiff:Orientation", "tiff:ImageWidth", "tiff:ImageLength", "exif:PixelXDimension", "exif:PixelYDimension",
    "xmpNote:HasExtendedXMP",
)  # fmt: skip
_NAMES = "|".join(_OF_THE_PIXELS)
_ATTRIBUTE = re.compile(rf"""\s+(?:{_NAMES})\s*=\s*("[^"]*"|'[^']*')""")
_ELEMENT = re.compile(rf"<({_NAMES})>[^<]*</\1\s*>")


def kept_xmp(image: Image.Image) -> tuple[bytes | None, str]:
    """What a result keeps of a photo's XMP: all but its orientation and size. And what is lost, in words.

    None where there is none, or where it is no text, or too large.
    """
    data = image.info.get("xmp")
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes) or not data.strip(b"\0 \n"):
        return None, ""
    try:
        text = data.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError:
        return None, "its XMP is not UTF-8 and left out of the result"
    data = _ELEMENT.sub("", _ATTRIBUTE.sub("", text)).encode()
    if len(data) > MAX_XMP:
        return None, f"its XMP of {len(data)} bytes is left out of the result; the limit is {MAX_XMP}"
    return data, ""
