"""Turns the colours of a picture into sRGB's, by the ICC profile that came with it."""

from __future__ import annotations

from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING

from imagine_core.pictures.pngtext import SIGNATURE

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageCms import ImageCmsTransform

KINDS = frozenset({"scnr", "mntr", "prtr", "spac"})
"""Classes of profiles that describe the colours of pictures (ICC.1:2022, 7.2.5)."""

ROUNDING = 1


def srgb_transform(image: Image.Image) -> ImageCmsTransform | None:
    """The transform to sRGB of a picture in the mode that it was stored in; None without need.

    The intent is relative colorimetric, the only one that all profiles have, with black point
    compensation, without which black ink would be grey. There is no need without a profile, with
    sRGB's own, and with one that is broken or describes other channels than the picture has: like
    browsers, this ignores a profile that it cannot use.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    try:
        transform = _transform(profile, image.mode)
        return None if transform is None or _is_identity(transform) else transform
    except Exception:  # broken bytes raise anything; Pillow without LittleCMS, ImportError
        return None


def convert(image: Image.Image, transform: ImageCmsTransform) -> Image.Image:
    """`image`, 8 bits a channel, in sRGB: as RGB, or as RGBA if it has that mode."""
    channels = image.getchannel(0) if transform.input_mode == "L" else image
    converted = transform.apply(channels.convert(transform.input_mode))
    if image.mode == "RGBA":  # LittleCMS writes no alpha of its own
        converted.putalpha(image.getchannel("A"))
    return converted


def without_profile(data: bytes) -> bytes | None:
    """The PNG in `data` without its profiles; None where there is no such thing."""
    kept = [SIGNATURE]
    position = len(SIGNATURE)
    while data.startswith(SIGNATURE) and position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] != b"iCCP":
            kept.append(data[position:end])
        position = end
    bare = b"".join(kept)
    return bare if len(bare) < len(data) and data.startswith(SIGNATURE) else None


def _transform(data: bytes, mode: str) -> ImageCmsTransform | None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(BytesIO(data))
    read = _read_as(profile.profile.xcolor_space.strip(), mode)
    if read is None or profile.profile.device_class not in KINDS:
        return None
    return ImageCms.ImageCmsTransform(
        profile,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        read,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _read_as(space: str, mode: str) -> str | None:
    """The mode in which a profile's colour space reads a picture; None where it cannot."""
    grey = mode.startswith(("1", "L", "I")) and mode != "LAB"
    if space == "GRAY" and grey:
        return "L"
    if space == "CMYK" and mode == "CMYK":
        return "CMYK"
    if space == "RGB" and not grey and mode not in {"CMYK", "LAB"}:
        return "RGB"
    return None


def _is_identity(transform: ImageCmsTransform) -> bool:
    """Whether it changes no colour by more than rounding does; most profiles are sRGB's."""
    from PIL import Image, ImageChops

    if transform.input_mode != "RGB":
        return False
    colours = bytes(value for colour in product(range(0, 256, 51), repeat=3) for value in colour)
    probe = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    difference = ImageChops.difference(probe, transform.apply(probe))
    return all(high <= ROUNDING for _, high in difference.getextrema())  # type: ignore[misc]
