"""Colour profiles: pixels that leave the space which their profile describes."""

import io

from PIL import Image, ImageCms


def cmyk_to_srgb(image: Image.Image) -> Image.Image:
    """CMYK -> RGB, through the embedded profile where there is a good one."""
    profile = image.info.get("icc_profile")
    return (_to_srgb(image, profile) if profile else None) or image.convert("RGB")


def gray_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """L or LA -> RGB or RGBA of the same looks; without the profile's help where that is damaged."""
    converted = _to_srgb(image.getchannel("L"), profile)
    if converted is None:
        return image
    if image.mode == "LA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """None where the profile is damaged, which is no reason to refuse a picture."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
