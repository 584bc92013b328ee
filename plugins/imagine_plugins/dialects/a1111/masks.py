"""What `img2img` repaints: masks as A1111 has them, and pictures that keep their proportions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from imagine_core.fields import DEFAULTS
from imagine_core.pictures.fitting import fitted
from imagine_core.pictures.images import load_alpha, load_mask, load_rgb
from imagine_core.pictures.metadata import png_bytes
from imagine_plugins.dialects.a1111.fields import CROP, FILL, LATENT

if TYPE_CHECKING:
    from PIL import Image

CONTENTS = ("average", "original", "noise", "blank")
"""What the repainted part starts from, in the order of A1111's `inpainting_fill`."""

FIELDS = ("mask", "mask_blur", "mask_fill", "mask_invert", "mask_padding")


def start_fields(values: dict[str, Any], warnings: list[str], *, most: int) -> dict[str, Any]:
    """The picture to start from and its mask, in the core's words; `most` pixels are drawn."""
    picture, mask = values["init_images"], values["mask"]
    fields = {name: DEFAULTS[name] for name in FIELDS}
    if mask is not None:
        fields = _mask_fields(values, warnings)
    mode, size = values["resize_mode"], (values["width"], values["height"])
    if mode == LATENT:
        warnings.append("resize_mode 3 works on latents: the picture is resized instead")
    if fields["mask_padding"] is None and size[0] * size[1] <= most:
        picture = picture and refitted(picture, size, mode)
        fields["mask"] = mask and refitted(fields["mask"], size, mode, load=load_mask)
    return {**fields, "init_image": picture}


def refitted(
    data: bytes,
    size: tuple[int, int],
    mode: int,
    *,
    load: Callable[[bytes], Image.Image] = load_rgb,
) -> bytes:
    """A picture at `size`, cut or filled up as `mode` says; as it came where nothing is to do.

    What cannot be read stays, too: the engine says what is wrong with it.
    """
    if mode not in (CROP, FILL):
        return data
    with suppress(ValueError):
        image = load(data)
        if image.width * size[1] != image.height * size[0]:
            return png_bytes(fitted(image, size, crop=mode == CROP), None)
    return data


def _mask_fields(values: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    blur, across, down = (values[f"mask_blur{axis}"] for axis in ("", "_x", "_y"))
    if blur is None:
        blur = max(across, down)
        if across != down:
            warnings.append(f"mask_blur_x and mask_blur_y are the same here: both are {blur:g}")
    alone = values["inpaint_full_res"]
    return {
        "mask": _grey(values["mask"]),
        "mask_blur": float(blur),
        "mask_fill": CONTENTS[values["inpainting_fill"]],
        "mask_invert": values["inpainting_mask_invert"],
        "mask_padding": values["inpaint_full_res_padding"] if alone else None,
    }


def _grey(mask: bytes) -> bytes:
    """The mask in white on black: in A1111's transparent masks the opaque parts repaint."""
    with suppress(ValueError):
        alpha = load_alpha(mask)
        return mask if alpha is None else png_bytes(alpha, None)
    return mask
