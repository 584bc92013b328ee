"""The fields of a request: one row each for the wire, the flag, the metadata and the schema."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from imagine_core.control_field import Controls
from imagine_core.errors import FieldError, RequestError
from imagine_core.kinds import (
    Axes,
    Borders,
    Choice,
    Decimal,
    Every,
    Flag,
    Json,
    Kind,
    Name,
    Picture,
    Seed,
    Side,
    Text,
    Whole,
)
from imagine_core.lora_field import Loras
from imagine_core.settings import Limits
from imagine_core.strict_json import Refused
from imagine_core.types import USUAL, GenerationRequest

Request = TypeVar("Request", bound=GenerationRequest)

__all__ = [
    "DEFAULTS",
    "FIELDS",
    "PLACEHOLDER",
    "WIRE_NAMES",
    "Field",
    "from_json",
    "idle",
    "in_core",
    "lacks",
    "on_wire",
    "renamed",
    "to_json",
    "with_pictures",
    "without_pictures",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of `GenerationRequest`.

    Attributes:
        name: Its name in `GenerationRequest`.
        wire: Its name in the native JSON and in a picture's metadata.
        kind: How it is read, written and bounded.
        optional: Whether null stands for the default.
        noted: When a picture's metadata has it: always, if it is not the default, or never.
        infotext: Its label in an infotext; None where A1111 knows no such thing.
        description: What the schema says of it beyond its kind.
        flags: Its flags of `imagine run`.
        metavar: What its flag's value is called in the help.
        help: What the help says of its flag.
        needs: It changes nothing unless one of these fields is there.
    """

    name: str
    wire: str
    kind: Kind
    optional: bool = False
    noted: Literal["always", "changed", "never"] = "changed"
    infotext: str | None = None
    description: str = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    help: str = ""
    needs: tuple[str, ...] = ()

    @property
    def default(self) -> Any:
        """What requests have that do not name it; None for the prompt, which has none."""
        return DEFAULTS[self.name]

    @property
    def usual(self) -> Any:
        """What requests for a model get that do not name it, where neither does the model."""
        return USUAL.get(self.name)

    @property
    def flag(self) -> str:
        """What the command line calls it."""
        return self.flags[-1] if self.flags else f"--{self.wire}"

    @property
    def parameter(self) -> str:
        """What click calls its flag."""
        return self.flag.removeprefix("--").replace("-", "_")

    def schema(self, limits: Limits) -> Json:
        """The JSON Schema of its values, on a server with `limits`."""
        schema = self.kind.schema(limits)
        if self.optional:
            schema = {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
        says = [self.description] if self.description else []
        if self.usual is not None:
            says.append(f"By default the model's own; the usual one is {json.dumps(self.usual)}.")
        if says:
            schema["description"] = " ".join(says)
        if isinstance(self.default, str | bool | int | float):
            schema["default"] = self.default
        return schema


DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        each.name: None if each.default is dataclasses.MISSING else each.default
        for each in dataclasses.fields(GenerationRequest)
    }
)


def row(  # noqa: PLR0913 - the columns
    name: str,
    wire: str,
    kind: Kind,
    *,
    optional: bool = False,
    noted: Literal["always", "changed", "never"] = "changed",
    infotext: str | None = None,
    flags: str = "",
    help: str = "",  # noqa: A002 - what click calls it
    says: str = "",
    needs: str = "",
) -> Field:
    """A row of the table; `flags` and `needs` are separated by blanks, the metavar is behind."""
    words = flags.split()
    return Field(
        name=name,
        wire=wire,
        kind=kind,
        optional=optional,
        noted=noted,
        infotext=infotext,
        description=says,
        flags=tuple(word for word in words if word.startswith("-")),
        metavar=next((word for word in words if not word.startswith("-")), None),
        help=help,
        needs=tuple(needs.split()),
    )


# In the order that metadata and help have them.
# fmt: off
FIELDS = (
    row("model",           "model",    Name(), optional=True, noted="always", infotext="Model",
        flags="-m --model NAME", help="Model to use. [default: the server's]",
        says="A name from `GET /models`."),
    row("prompt",          "prompt",   Text(required=True), noted="always"),
    row("width",           "width",    Side(), optional=True, noted="always", infotext="Size",
        flags="-w --width", help="Width in pixels.",
        says="`width` x `height` is at most the server's limit of pixels."),
    row("height",          "height",   Side(), optional=True, noted="always", infotext="Size",
        flags="-h --height", help="Height in pixels.",
        says="`width` x `height` is at most the server's limit of pixels."),
    row("steps",           "steps",    Whole(1, "steps"), optional=True, noted="always",
        infotext="Steps", flags="-n --steps", help="Sampling steps."),
    row("guidance_scale",  "guidance", Decimal(0, 1000), optional=True, noted="always",
        infotext="CFG scale", flags="-g --guidance",
        help="How closely to follow the prompt; up to 1 takes half the time and no --neg."),
    row("distilled_guidance", "distilled_guidance", Decimal(0, 1000), optional=True,
        infotext="Distilled CFG Scale", flags="--distilled-guidance",
        help="The guidance that FLUX.1 [dev] and kin read themselves, in one forward.",
        says="The guidance that a distilled model was trained to read, in one forward."),
    row("sampler",         "sampler",  Name(), optional=True, noted="always", infotext="Sampler",
        flags="--sampler NAME", help="See 'imagine samplers'.",
        says="A name or an alias from `GET /samplers`, in any case."),
    row("seed",            "seed",     Seed(), optional=True, noted="always", infotext="Seed",
        flags="--seed", help="Repeats a picture. [default: random]", says="-1 and null draw one."),
    row("negative_prompt", "neg",      Text(), noted="always", infotext="Negative prompt",
        flags="--neg TEXT", help="What to avoid."),
    row("clip_skip",       "clip",     Whole(1, lowest="the last layer"), noted="always",
        infotext="Clip skip", flags="-c --clip", help="Clip skip: 1 is the last layer.",
        says="At most the model's `clip_layers`."),
    row("preview_every",   "stream",   Every(0, lowest="none"), optional=True, noted="always",
        flags="-s --stream N",
        help="Save how the picture looks every N steps, in the output file.",
        says="A preview every so many steps."),
    row("init_image",      "img",      Picture(), optional=True, noted="always",
        flags="-i --img FILE", help="Picture to start from; it is scaled to --width x --height.",
        says="A picture to start from, in base64, with or without the prefix of a data URL."),
    row("strength",        "strength", Decimal(0.0, 1.0), noted="always",
        infotext="Denoising strength", flags="-d --strength",
        help="How much of --img to replace, 0.0 to 1.0.",
        needs="init_image"),
    row("noise_schedule",  "schedule", Name(), infotext="Schedule type", flags="--schedule NAME",
        help="Noise schedule of the sampler.", says="One of the sampler's `schedules`."),
    row("hires_scale",     "hires",    Decimal(1, 8), optional=True,
        infotext="Hires upscale", flags="-f --hires SCALE",
        help="Hires fix: refine at this times the size, 1.5 for example, and scale back.",
        says="The enlarged picture has at most the server's limit of pixels."),
    row("hires_keeps",     "keep_size", Flag(), infotext="Keep size", flags="--keep-size",
        help="Keep the larger picture of --hires.",
        says="Whether the larger picture of the hires fix is kept, not scaled back.",
        needs="hires_scale"),
    row("hires_upscaler",  "hires_upscaler", Name(), infotext="Hires upscaler",
        flags="--hires-upscaler NAME", help="What enlarges for --hires, see 'imagine upscalers'.",
        says="A name from `GET /upscalers`.",
        needs="hires_scale"),
    row("hires_steps",     "hires_steps", Whole(1, "steps"), optional=True, infotext="Hires steps",
        flags="--hires-steps", help="Steps of the second pass. [default: as many]",
        needs="hires_scale"),
    row("hires_strength",  "hires_strength", Decimal(0.0, 1.0), flags="--hires-strength",
        help="How much of the enlarged picture to replace.",
        needs="hires_scale"),
    row("hires_sampler",   "hires_sampler", Name(), optional=True, infotext="Hires sampler",
        flags="--hires-sampler NAME", help="Sampler of the second pass. [default: the same]",
        needs="hires_scale"),
    row("subseed",         "subseed",  Seed(), optional=True, infotext="Variation seed",
        flags="--subseed", help="Seed of a variation of --seed. [default: random]",
        says="-1 and null draw one where there is a `subseed_strength`.",
        needs="subseed_strength"),
    row("subseed_strength", "subseed_strength", Decimal(0.0, 1.0),
        infotext="Variation seed strength", flags="--subseed-strength",
        help="How far towards --subseed, 0.0 to 1.0.",
        says="How far the noise of `seed` goes towards that of `subseed`."),
    row("mask",            "mask",     Picture(), optional=True, flags="--mask FILE",
        help="What of --img to repaint: white, or transparent.",
        says="What of `img` to repaint, in base64: white repaints; transparency does, if any."),
    row("mask_blur",       "mask_blur", Decimal(0.0, 256.0), infotext="Mask blur",
        flags="--mask-blur", help="Pixels by which the mask's edge is feathered.",
        needs="mask extend"),
    row("mask_fill",       "mask_fill", Choice(("original", "noise", "blank", "average")),
        infotext="Masked content", flags="--mask-fill KIND",
        help="What the masked part starts from: original, noise, blank, average.",
        says="What the repainted part starts from.",
        needs="mask extend"),
    row("mask_invert",     "mask_invert", Flag(), infotext="Mask mode", flags="--mask-invert",
        help="Repaint what is black in the mask.",
        needs="mask"),
    row("mask_padding",    "mask_padding", Whole(0, lowest="the mask alone"), optional=True,
        infotext="Masked area padding", flags="--mask-padding",
        help="Repaint the mask alone, with so many pixels around it, at --width x --height.",
        says="Repaints only the mask and so many pixels around it, at `width` x `height`; the "
             "picture keeps its own size. null repaints the picture as a whole.",
        needs="mask extend"),
    row("extend",          "extend",   Borders(), infotext="Extend", flags="--extend L,T,R,B",
        help="Pixels to paint beyond the edges of --img: left, top, right, bottom, each a multiple "
             "of 8.",
        says="Pixels to paint beyond the edges of `img`: left, top, right, bottom, each a multiple "
             "of 8."),
    row("controls",        "controls", Controls(), flags="--control NAME=FILE",
        help="ControlNet and its hint, --control canny=edges.png,weight=0.8 for example; may be "
             "given several times.",
        says="ControlNets that steer the model, each with its hint."),
    row("tiling",          "tiling",   Axes(), infotext="Tiling", flags="--tiling AXES",
        help="Draw a seamless picture: x, y or xy.",
        says="Whether the picture is seamless: both ways, or along one axis."),
    row("vae_tiling",      "vae_tiling", Flag(), flags="--vae-tiling",
        help="Decode in tiles, which takes less memory.",
        says="Whether pictures are encoded and decoded in tiles, which takes less memory."),
    row("loras",           "loras",    Loras(), flags="--lora NAME[:WEIGHT]",
        help="LoRA to draw with, --lora ink:0.8 for example; may be given several times.",
        says="LoRAs that change the model for this request, beside those that the prompt names."),
    row("vae",             "vae",      Name(), optional=True, infotext="VAE",
        flags="--vae NAME", help="VAE to draw with. [default: the model's]",
        says='A name from `GET /models?kind=vae`; "none" is the one in the model.'),
    row("decoder",         "decoder",  Choice(("full", "fast")), flags="--decoder KIND",
        help="'fast' decodes with a small VAE (TAESD).",
        says="What turns the latent into the picture."),
    row("deterministic",   "deterministic", Flag(), flags="--deterministic",
        help="The same bytes again whatever else the server does, a little slower."),
    row("original_prompt", "original_prompt", Text(), optional=True),
    row("preview",         "preview",  Choice(("fast", "vae")), noted="never",
        needs="preview_every"),
    row("images",          "n",        Whole(1, "images"), noted="never", flags="--count",
        help="Pictures to make, each with a new seed."),
)
# fmt: on

WIRE_NAMES: Mapping[str, str] = MappingProxyType({field.name: field.wire for field in FIELDS})
CORE_NAMES: Mapping[str, str] = MappingProxyType({field.wire: field.name for field in FIELDS})
PLACEHOLDER = "-"
"""Stands for a prompt that cannot be read: whatever checks the request finds nothing to say."""


def from_json(given: dict[str, Any]) -> tuple[GenerationRequest, list[FieldError]]:
    """The request in a JSON object, and the fields of it that are not what they should be.

    Takes its fields out of `given`; the others stay. A field with an error has its default in the
    request, so that whatever checks the request finds the remaining errors.
    """
    values: dict[str, Any] = {"prompt": PLACEHOLDER}
    errors: list[FieldError] = []
    if "prompt" not in given:
        errors.append(FieldError("prompt", "is required: say what to draw"))
    for field in FIELDS:
        if field.wire not in given:
            continue
        value = given.pop(field.wire)
        if value is None and field.optional:
            continue
        try:
            values[field.name] = field.kind.read(value)
        except Refused as error:
            errors.append(FieldError(field.name, str(error)))
    return GenerationRequest(**values), errors


def to_json(request: GenerationRequest) -> dict[str, Any]:
    """The JSON object of a request: what differs from the defaults."""
    return {field.wire: value for field, value in _written(request) if _changed(request, field)}


def noted(request: GenerationRequest) -> dict[str, Any]:
    """What a picture's metadata has of the request that made it."""
    return {
        field.wire: value
        for field, value in _written(request)
        if field.noted == "always" or (field.noted == "changed" and _changed(request, field))
    }


def idle(request: GenerationRequest) -> Iterator[Field]:
    """The fields of `request` that are not at their default, and change nothing still."""
    return (field for field in FIELDS if _changed(request, field) and lacks(request, field))


def lacks(request: GenerationRequest, field: Field) -> bool:
    """Whether a field changes nothing, because `request` has none of those that it needs."""
    needed = (each for each in FIELDS if each.name in field.needs)
    return bool(field.needs) and not any(_changed(request, each) for each in needed)


def without_pictures(request: Request) -> Request:
    """`request` without the pictures that its caller sent, which may be large."""
    pictures: dict[str, Any] = {
        each.name: None for each in FIELDS if isinstance(each.kind, Picture)
    }
    controls = tuple(replace(use, image=b"") for use in request.controls)
    return replace(request, controls=controls, **pictures)


def changed_pictures(request: Request, change: Callable[[bytes], bytes]) -> Request:
    """`request` with each picture that its caller sent changed."""
    pictures: dict[str, Any] = {
        each.name: change(sent)
        for each in FIELDS
        if isinstance(each.kind, Picture) and (sent := getattr(request, each.name)) is not None
    }
    controls = tuple(replace(use, image=change(use.image)) for use in request.controls)
    return replace(request, controls=controls, **pictures)


def with_pictures(request: Request, of: GenerationRequest) -> Request:
    """`request` with the pictures `of` another, which differs from it in nothing else."""
    pictures: dict[str, Any] = {
        each.name: getattr(of, each.name) for each in FIELDS if isinstance(each.kind, Picture)
    }
    controls = tuple(
        replace(use, image=sent.image)
        for use, sent in zip(request.controls, of.controls, strict=True)
    )
    return replace(request, controls=controls, **pictures)


def field_errors(request: GenerationRequest, limits: Limits) -> Iterator[FieldError]:
    """What a server with `limits` cannot serve of each field by itself."""
    for field in FIELDS:
        value = getattr(request, field.name)
        problem = None if value is None else field.kind.problem(value, limits)
        if problem is not None:
            yield FieldError(field.name, problem)


def in_order(errors: Iterable[FieldError]) -> list[FieldError]:
    """`errors` in the order of the table, those of other names last."""
    places = {field.name: place for place, field in enumerate(FIELDS)}
    return sorted(errors, key=lambda error: places.get(error.field, len(places)))


def on_wire(error: RequestError) -> RequestError:
    """`error` under the wire names of its fields."""
    return renamed(error, WIRE_NAMES)


def in_core(error: RequestError) -> RequestError:
    """`error` under the names that its fields have in `GenerationRequest`."""
    return renamed(error, CORE_NAMES)


def renamed(error: RequestError, names: Mapping[str, str]) -> RequestError:
    """`error` with its fields under other names."""
    return RequestError(FieldError(names.get(e.field, e.field), e.message) for e in error.fields)


def _written(request: GenerationRequest) -> Iterator[tuple[Field, Any]]:
    for field in FIELDS:
        yield field, field.kind.write(getattr(request, field.name))


def _changed(request: GenerationRequest, field: Field) -> bool:
    return bool(getattr(request, field.name) != field.default)
