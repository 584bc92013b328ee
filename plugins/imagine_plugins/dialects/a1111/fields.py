"""The fields of A1111's `txt2img` and `img2img`, and what of them has no effect here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagine_core import strict_json
from imagine_core.kinds import (
    Absent,
    Decimal,
    FirstPicture,
    Flag,
    Json,
    Kind,
    Object,
    Picture,
    Seed,
    Side,
    Text,
    Whole,
)
from imagine_core.rows import Row

if TYPE_CHECKING:
    from imagine_core.settings import Limits

EXTRAS = ("enhance", "on_disconnect")
MODEL, CLIP, VAE = "sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae"
BLUR = 4
LONGEST = 1_000_000
"""Pixels of a side that no picture exceeds."""


@dataclass(frozen=True, slots=True)
class Listed(Kind):
    """One of a few words, by its number from 0 or by itself, in any case; read as the number.

    Attributes:
        words: The words.
        others: Further words, and the number of each.
    """

    words: tuple[str, ...]
    others: Mapping[str, int] = field(default_factory=dict)

    def read(self, value: object) -> int:
        """The number; -1 of other words."""
        if isinstance(value, str):
            known = {word.casefold(): number for number, word in enumerate(self.words)}
            known |= {word.casefold(): number for word, number in self.others.items()}
            return known.get(value.strip().casefold(), -1)
        return strict_json.integer(value)

    def problem(self, value: int, limits: Limits) -> str | None:
        """What there is to choose from."""
        del limits
        listed = ", ".join(f"{number} ({word})" for number, word in enumerate(self.words))
        return None if 0 <= value < len(self.words) else f"must be one of {listed}"

    def schema(self, limits: Limits) -> Json:
        """The numbers and the words."""
        del limits
        number = {"type": "integer", "minimum": 0, "maximum": len(self.words) - 1}
        return {"anyOf": [number, {"enum": [*self.words, *self.others]}]}


class Pixels(Whole):
    """A side of a picture; 0, where it may be, says nothing."""

    def problem(self, value: int | None, limits: Limits) -> str | None:
        """The bounds of any picture."""
        del limits
        fine = value is None or self.least <= value <= LONGEST
        return None if fine else f"must be from {self.least} to {LONGEST:,}"

    def schema(self, limits: Limits) -> Json:
        """A whole number with these bounds."""
        return {**Whole.schema(self, limits), "maximum": LONGEST}


FILLS = Listed(("fill", "original", "latent noise", "latent nothing"))
FITS = Listed(
    ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"),
    {
        "Inner Fit (Scale to Fit)": 1,
        "Scale to Fit (Inner Fit)": 1,
        "Outer Fit (Shrink to Fit)": 2,
        "Envelope (Outer Fit)": 2,
    },
)
CROP, FILL, LATENT = 1, 2, 3
"""The numbers of `FITS` that do not stretch, and that which resizes a latent."""

# fmt: off
ROWS = (
    Row("prompt",              Text(),             "",    "prompt"),
    Row("negative_prompt",     Text(),             "",    "negative_prompt"),
    Row("seed",                Seed(),             None,  "seed"),
    Row("subseed",             Seed(),             None,  "subseed"),
    Row("subseed_strength",    Decimal(0.0, 1.0),  0.0,   "subseed_strength"),
    Row("steps",               Whole(1, "steps"),  50,    "steps"),
    Row("cfg_scale",           Decimal(0, 1000),   7.0,   "guidance_scale"),
    Row("width",               Side(),             512,   "width"),
    Row("height",              Side(),             512,   "height"),
    Row("tiling",              Flag(),             default=False, core="tiling"),
    Row("batch_size",          Whole(1, "images"), 1,     "images"),
    Row("n_iter",              Whole(1, "images"), 1),
    Row("sampler_name",        Text(),             None,  "sampler"),
    Row("sampler_index",       Text(),             "Euler"),
    Row("scheduler",           Text(),             None,  "noise_schedule"),
    Row("clip_skip",           Whole(1, lowest="the last layer"), 1, "clip_skip"),
    Row("denoising_strength",  Decimal(0, 1),      0.75,  "strength"),
    Row("enable_hr",           Flag(),             default=False),
    Row("hr_scale",            Decimal(0, 1000),   2.0,   "hires_scale"),
    Row("hr_resize_x",         Pixels(0),         0),
    Row("hr_resize_y",         Pixels(0),         0),
    Row("hr_upscaler",         Text(),             None,  "hires_upscaler"),
    Row("hr_second_pass_steps", Whole(0, "steps"), 0,     "hires_steps"),
    Row("hr_sampler_name",     Text(),             None,  "hires_sampler"),
    Row("hr_scheduler",        Text(),             None),
    Row("resize_mode",         FITS,               0),
    Row("mask",                Picture(),          None,  "mask"),
    Row("mask_blur",           Decimal(0.0, 256.0), None, "mask_blur"),
    Row("mask_blur_x",         Decimal(0.0, 256.0), BLUR),
    Row("mask_blur_y",         Decimal(0.0, 256.0), BLUR),
    Row("inpainting_fill",     FILLS,              0,     "mask_fill"),
    Row("inpaint_full_res",    Flag(),             default=True),
    Row("inpaint_full_res_padding", Pixels(0),     0,     "mask_padding"),
    Row("inpainting_mask_invert", Flag(),          default=False, core="mask_invert"),
    Row("include_init_images", Flag(),             default=False),
    Row("send_images",         Flag(),             default=True),
    Row("force_task_id",       Text(),             None),
    Row("init_images",         FirstPicture(),     None,  "init_image"),
    Row("alwayson_scripts",    Object(),           {}),
    Row("script_name",         Absent("Script {!r:.100} not found")),
    Row("override_settings",   Object(),           {}),
    Row("override_settings_restore_afterwards", Flag(), default=True),
)
NAMES = {row.core: row.key for row in ROWS if row.core} | {
    "images": "batch_size x n_iter", "vae": VAE, "controls": "alwayson_scripts",
    "hires_strength": "denoising_strength",
}

IGNORED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("styles", "restore_faces"), ()),
    **dict.fromkeys(("seed_resize_from_w", "seed_resize_from_h", "refiner_checkpoint"), ()),
    **dict.fromkeys(("s_churn", "s_tmin", "s_tmax", "s_min_uncond"), ()),
    **dict.fromkeys(("firstphase_width", "firstphase_height"), ()),
    "override_settings": (),
    **dict.fromkeys(("s_noise", "initial_noise_multiplier", "eta"), (1,)),  # eta: webuiapi's own
}
IGNORED_HIRES = {
    "hr_checkpoint_name": ("Use same checkpoint",),
    **dict.fromkeys(("hr_prompt", "hr_negative_prompt"), ()),
}
OBEYED = (MODEL, CLIP, VAE)  # of override_settings
NOTHING: tuple[object, ...] = (None, "", 0, -1, [], {}, "Automatic")
# fmt: on
"""Fields that are not obeyed, and the values that ask for nothing, beside those of `NOTHING`."""


def ignored(given: Mapping[str, Any], *, hires: bool) -> Iterator[str]:
    """A warning of each field that asks for what is not done here."""
    for key, nothing in (IGNORED | IGNORED_HIRES if hires else IGNORED).items():
        value = given.get(key)
        asked = value if isinstance(value, dict) else {"": value}
        quiet = (*NOTHING, *nothing)
        names = [n[:100] for n, v in asked.items() if v not in quiet and n not in OBEYED]
        if names:
            yield f"{' '.join([key, *filter(None, names[:20])])} has no effect here"
    if isinstance(pictures := given["init_images"], list) and len(pictures) > 1:
        yield "of several init_images the first one is taken"
