"""Reads `<lora:name:0.8>` out of prompts, as users of A1111 write it, and writes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from imagine_core.errors import FieldError, RequestError
from imagine_core.types import USUAL, GenerationRequest, LoraUse

__all__ = [
    "WEIGHT_LIMIT",
    "LoraTag",
    "Tagged",
    "read_tags",
    "tag_of",
    "untagged",
]

Request = TypeVar("Request", bound=GenerationRequest)

WEIGHT_LIMIT = 100.0
STEP_LIMIT = 10_000.0
NEVER = 0.999999  # a part of the steps that no step begins after; 1 would be the first step

_TAG = re.compile(r"<(\w+):([^>]+)>")
_NUMBER = re.compile(r"[0-9.eE+-]+")
_KINDS = ("lora", "lyco")
_NUMBERS = ("te", "unet")
_STEPS = ("start", "stop")
_BLOCKS = ("lbw", "w")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraTag:
    """One use of an adapter in a prompt.

    Attributes:
        name: The adapter's.
        weight: How much of it the UNet takes.
        text_weight: How much of it the text encoders take.
        blocks: Weights of blocks, as they are written: a list of numbers, or a list's name.
        start: From where on it acts: a fraction of the steps below 1, the number of a step above.
        stop: Where it ends, likewise.
    """

    name: str
    weight: float = 1.0
    text_weight: float = 1.0
    blocks: str | None = None
    start: float | None = None
    stop: float | None = None

    def use(self, steps: int) -> LoraUse:
        """The use in a request of so many steps."""
        start, end = _part(self.start, steps, 0.0), _part(self.stop, steps, 1.0)
        return LoraUse(
            name=self.name,
            weight=self.weight,
            text_weight=None if self.text_weight == self.weight else self.text_weight,
            start=start,
            end=end,
            blocks=self.blocks,
        )


class Tagged(NamedTuple):
    """What a prompt says.

    Attributes:
        prompt: Its text without tags; blanks around them stay.
        loras: The uses, in the order of the prompt; one adapter may be there twice.
        warnings: What the tags have that is not read.
    """

    prompt: str
    loras: tuple[LoraTag, ...]
    warnings: tuple[str, ...]


def read_tags(prompt: str) -> Tagged:
    """Take the tags out of a prompt; raises `RequestError` where one cannot be meant so.

    `<lora:name>` is `<lora:name:1>`. A second number is the UNet's, the first then the text
    encoders' alone, as in A1111: `<lora:name:0.6:0.8>`, `<lora:name:te=0.6:unet=0.8>`. There is no
    escape: whatever looks like a tag is taken out, as A1111 takes it. Of its extension LoRA Block
    Weight, `lbw=`, `start=`, `stop=` and `step=` are read.
    """
    end = prompt.rfind(">") + 1  # beyond it a tag cannot end, and looking for its end is quadratic
    tags = [(match[0], match[1], match[2]) for match in _TAG.finditer(prompt, 0, end)]
    loras: list[LoraTag] = []
    warnings: list[str] = []
    for text, kind, content in tags:
        if kind in _KINDS:
            loras.append(_lora(text, content, warnings))
        else:
            warnings.append(f"{text[:80]} left out of the prompt: only <lora:name:weight> is read")
    return Tagged(_TAG.sub("", prompt[:end]) + prompt[end:], tuple(loras), tuple(warnings))


def untagged(request: Request) -> tuple[Request, tuple[str, ...]]:
    """A request with the LoRAs of its prompt among its `loras`, and what of the tags is not read.

    Raises:
        RequestError: As `read_tags`.
    """
    tagged = read_tags(request.prompt)
    steps = USUAL["steps"] if request.steps is None else request.steps
    uses = (tag.use(steps) for tag in tagged.loras)
    prompt = tagged.prompt.strip() if tagged.loras else tagged.prompt
    return replace(request, prompt=prompt, loras=(*request.loras, *uses)), tagged.warnings


def can_be_tag(use: LoraUse) -> bool:
    """Whether a tag can name the LoRA."""
    return not set(":<>=") & set(use.name)


def tag_of(use: LoraUse) -> str:
    """The tag that says the same, where one can."""
    weights = [use.weight] if use.text_weight is None else [use.text_weight, use.weight]
    parts = ["lora", use.name, *map(_written, weights)]
    if use.blocks is not None:
        parts.append(f"lbw={use.blocks}")
    if use.start > 0:
        parts.append(f"start={_written(min(use.start, NEVER))}")
    if use.end < 1:
        parts.append(f"stop={_written(use.end)}")
    return f"<{':'.join(parts)}>"


def _written(number: float) -> str:
    """As short as it can be read back."""
    return repr(float(number)).removesuffix(".0")


def _part(given: float | None, steps: int, default: float) -> float:
    """The part of the steps that a fraction or a number of a step means."""
    if given is None:
        return default
    return given if given < 1 else min(given / max(steps, 1), 1.0)


def _lora(text: str, content: str, warnings: list[str]) -> LoraTag:
    name, *rest = content.split(":")
    named = {key: value for key, value in map(_named, rest) if key is not None}
    numbers = [value for key, value in map(_named, rest) if key is None]
    blocks = next((named.pop(key) for key in _BLOCKS if key in named), None)
    if blocks is None and len(numbers) > 1 and _is_list(numbers[1]):
        blocks = numbers.pop(1)  # as the extension's older versions had it
    if not name.strip():
        raise _error(text, "it has no name")
    given = [_number(text, number) for number in numbers[:2]]
    text_weight = _number(text, named.pop("te")) if "te" in named else (given or [1.0])[0]
    weight = given[1] if len(given) > 1 else text_weight
    if "unet" in named:
        weight = _number(text, named.pop("unet"))
    start, stop = _span(text, named)
    unread = [*numbers[2:], *(f"{key}={value}" for key, value in named.items())]
    warnings += [f"{each[:80]!r} in {text[:80]} is not read" for each in unread]
    return LoraTag(
        name=name.strip(),
        weight=weight,
        text_weight=text_weight,
        blocks=blocks,
        start=start,
        stop=stop,
    )


def _named(item: str) -> tuple[str | None, str]:
    parts = item.split("=")
    return (parts[0].strip(), parts[1].strip()) if len(parts) == 2 else (None, item.strip())


def _is_list(item: str) -> bool:
    return item.count(",") > 1 or (item[:1].isalpha() and item.isupper())


def _span(text: str, named: dict[str, str]) -> tuple[float | None, float | None]:
    """Start and stop, of `step=4-10` or of `start=4` and `stop=10`."""
    start, stop = named.pop("start", None), named.pop("stop", None)
    if "-" in named.get("step", ""):
        start, _, stop = named.pop("step").partition("-")
    return (
        None if start is None else _step(text, start),
        None if stop is None else _step(text, stop),
    )


def _step(text: str, given: str) -> float:
    return _number(text, given, least=0.0, most=STEP_LIMIT)


def _number(
    text: str, given: str, *, least: float = -WEIGHT_LIMIT, most: float = WEIGHT_LIMIT
) -> float:
    try:
        number = float(given) if _NUMBER.fullmatch(given.strip()) else math.nan
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise _error(text, f"{given[:40]!r} is no number from {least:g} to {most:g}")
    return number


def _error(text: str, problem: str) -> RequestError:
    return RequestError([FieldError("prompt", f"has the tag {text[:80]}, but {problem}")])
