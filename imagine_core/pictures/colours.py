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
"""Classes of profiles that say what the colours of a picture are: ICC.1:2022, 7.2.5."""

ROUNDING = 1


def srgb_transform(image: Image.Image) -> ImageCmsTransform | None:
    """What turns the colours of `image`, in the mode that it was stored in, into sRGB.

    Colours are relative to white (relative colorimetric), which all profiles can do, and black
    stays black, as ink's would not. None where nothing is to be done: without a profile, with one
    that is sRGB's own, and with one that is broken or speaks of other channels than the picture
    has. Those are ignored, as browsers do: the picture is whole all the same.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    try:
        transform = _transform(profile, image.mode)
        return None if transform is None or _is_identity(transform) else transform
    except Exception:  # as for pictures themselves; or Pillow was built without LittleCMS
        return None


def convert(image: Image.Image, transform: ImageCmsTransform) -> Image.Image:
    """`image`, 8 bits a channel, in sRGB: as RGB, or as RGBA if it has that mode."""
    channels = image.getchannel(0) if transform.input_mode == "L" else image
    converted = transform.apply(channels.convert(transform.input_mode))
    if image.mode == "RGBA":  # LittleCMS would lose what it has no colours for
        converted.putalpha(image.getchannel("A"))
    return converted


def without_profile(data: bytes) -> bytes | None:
    """The PNG in `data` without its profile; None where there is no such thing."""
    position = len(SIGNATURE)
    while data.startswith(SIGNATURE) and position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] == b"iCCP":
            return data[:position] + data[end:]
        position = end
    return None


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
    if space == "RGB" and mode not in {"CMYK", "LAB"}:
        return "RGB"
    return None


def _is_identity(transform: ImageCmsTransform) -> bool:
    """Whether it changes no colour by more than rounding does, as most pictures' does not."""
    from PIL import Image, ImageChops

    if transform.input_mode != "RGB":
        return False
    colours = bytes(value for colour in product(range(0, 256, 51), repeat=3) for value in colour)
    probe = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    difference = ImageChops.difference(probe, transform.apply(probe))
    return all(high <= ROUNDING for _, high in difference.getextrema())  # type: ignore[misc]
