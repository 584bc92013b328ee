"""Extracts prompts from the answer of a language model, which may write around its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

PROMPT, NEGATIVE = "prompt", "negative_prompt"

SCHEMA: dict[bool, dict[str, Any]] = {
    negative: {
        "type": "object",
        "properties": {key: {"type": "string"} for key in keys},
        "required": list(keys),
    }
    for negative, keys in ((False, (PROMPT,)), (True, (PROMPT, NEGATIVE)))
}
"""The JSON that is asked for, without and with a negative prompt. The prompt comes first, so that
it can be shown while the rest is still being written."""

THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)
"""The reasoning that models write first, some of them without an opening tag."""

OPENING = re.compile(r'\{\s*"' + PROMPT + r'"\s*:\s*"')
CHARACTERS = re.compile(r'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*')
"""The beginning of a JSON string, without an incomplete escape at its end."""

MAX_OBJECTS = 100
"""How many opening braces are tried before the answer counts as unreadable."""


class Unreadable(ValueError):
    """An answer holds no prompts; the message quotes what it holds instead."""


def read_answer(text: str, *, negative: bool = False) -> dict[str, str]:
    """The prompts in `text`: the first JSON object in it that has all of them, in words.

    Chat around it is ignored, and so are forms to be filled in ({"prompt": "..."}) and drafts
    without the negative prompt that was asked for, unless there is nothing better.

    Raises:
        Unreadable: There is none.
    """
    text = THOUGHTS.sub("", text)
    if not text.strip():
        raise Unreadable("it answered nothing")
    wanted = (PROMPT, NEGATIVE) if negative else (PROMPT,)
    candidates = list(_candidates(text))
    for found in candidates:
        if all(_has_words(found.get(key, "")) for key in wanted):
            return found
    if candidates:
        return candidates[0]
    what = "broken JSON" if "{" in text else "prose instead of JSON"
    raise Unreadable(f"it answered {what}: {tidy(text)[:80]!r}")


def prompt_so_far(text: str) -> str:
    """The part of the prompt that `text`, the beginning of an answer, holds."""
    for opening in OPENING.finditer(THOUGHTS.sub("", text)):
        prompt = _written(opening)
        if _has_words(prompt):
            return prompt
    return ""


def tidy(text: str) -> str:
    """`text` on one line, and Unicode."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _candidates(text: str) -> Iterator[dict[str, str]]:
    """The texts of each JSON object in `text` that has a prompt."""
    decoder = json.JSONDecoder(strict=False)  # models put plain newlines into strings
    for brace in list(re.finditer(r"\{", text))[:MAX_OBJECTS]:
        try:
            found, _ = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if _is_text(found, PROMPT):
            yield {key: tidy(found[key]) for key in (PROMPT, NEGATIVE) if _is_text(found, key)}


def _written(opening: re.Match[str]) -> str:
    """The part of the string behind `opening` that has arrived."""
    written = CHARACTERS.match(opening.string, opening.end())
    assert written is not None  # the pattern matches the empty string
    try:
        value = str(json.loads(f'"{written[0]}"', strict=False))
    except ValueError:
        return ""
    if "\ud800" <= value[-1:] <= "\udbff":  # the second half of a surrogate pair has not arrived
        value = value[:-1]
    return tidy(value)


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _is_text(found: dict[str, Any], key: str) -> bool:
    return isinstance(found.get(key), str)
