"""XMP that goes from a photo to its result: titles, captions, keywords, ratings and rights, as photographers note them."""

import re

from PIL import Image

MAX_XMP = 65_504  # bytes: what a JPEG can hold

# What is said of the photo's pixels and file, and not true of the result's: size and resolution, a panorama's geometry, a
# video or brightness map behind the picture, a second part of the XMP.
_OF_THE_FILE = (
    r"(?:tiff:(?:ImageWidth|ImageLength|XResolution|YResolution|ResolutionUnit)|exif:Pixel[XY]Dimension"
    r"|(?:GPano|GCamera|hdrgm):\w+|Container:Directory|xmpNote:HasExtendedXMP)"
)
_ATTRIBUTE = re.compile(rf"""\s{_OF_THE_FILE}\s*=\s*("[^"]*"|'[^']*')""")
_ELEMENT = re.compile(rf"<({_OF_THE_FILE})(?:\s[^>]*)?>.*?</\1\s*>", re.DOTALL)
_TURN = re.compile(r"""(tiff:Orientation(?:\s*=\s*["']|>))[0-9]""")


def kept_xmp(image: Image.Image) -> tuple[bytes | None, str]:
    """What a result keeps of a photo's XMP: all but what is of the photo's pixels and file. And what else is lost, in words.

    None where there is none, or where it is not UTF-8, or too large.
    """
    data = image.info.get("xmp")
    if not isinstance(data, bytes) or not data.strip(b"\0 \t\r\n"):
        return None, ""
    if len(data) > MAX_XMP:
        return None, f"its XMP of {len(data)} bytes is left out of the result; the limit is {MAX_XMP}"
    try:
        text = data.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError:
        return None, "its XMP is not UTF-8 and left out of the result"
    lost = "the second part of its XMP is left out of the result" if "HasExtendedXMP" in text else ""
    return _TURN.sub(r"\g<1>1", _ELEMENT.sub("", _ATTRIBUTE.sub("", text))).encode(), lost
