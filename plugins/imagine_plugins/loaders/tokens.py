"""Reads the runs of a prompt with a tokenizer: tokens with their weights, and what has none."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from imagine_core.prompting import Fragment, Token

if TYPE_CHECKING:
    from imagine_plugins.loaders.words import Places

_WORD = re.compile(r"""[^\s,.;:!?|/_<>()\[\]{}"]+""")
_LITTLE = re.compile("an?|and|at|by|from|in|of|on|or|over|the|to|with", re.IGNORECASE)
LONGEST_WORD = 40
"""Characters of a word that is left out, when it is named."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The tokens of a text, and the words that none of them comes from."""

    tokens: list[Token]
    unread: tuple[str, ...] = ()


def read(tokenizer: Any, runs: Sequence[Fragment], places: Places) -> Reading:
    """The tokens of a text, without start and end, each with the weight of its run.

    The name of an embedding is the numbers that `places` has for it, all in one.
    """
    from transformers import CLIPTokenizer

    reader = _apart if isinstance(tokenizer, CLIPTokenizer) else _together
    tokens: list[Token] = []
    unread: list[str] = []
    for texts, word in _segments(runs, places):
        found = reader(tokenizer, texts)
        tokens += [*found.tokens, *word]
        unread += found.unread
    return Reading(tokens, tuple(unread))


def _segments(
    runs: Sequence[Fragment], places: Places
) -> Iterator[tuple[list[Fragment], list[Token]]]:
    """The runs between the names of embeddings, each with the name that follows it."""
    texts: list[Fragment] = []
    for run in runs:
        for text, name in places.names.split(run.text):
            if name is None:
                texts.append(Fragment(text, run.weight))
            else:
                yield texts, [(places.tokens(name), run.weight)]
                texts = []
    yield texts, []


def comma(tokenizer: Any) -> int | None:
    """The token of a comma, None where there is none."""
    token: int | None = tokenizer.convert_tokens_to_ids(",</w>")
    return None if token == tokenizer.unk_token_id else token


def _apart(tokenizer: Any, runs: Sequence[Fragment]) -> Reading:
    """Each run by itself, as A1111 does. CLIP has tokens for whatever there is."""
    tokens = [
        (token, run.weight) for run in runs for token in _tokenized(tokenizer, run.text).input_ids
    ]
    return Reading(tokens)


def _together(tokenizer: Any, runs: Sequence[Fragment]) -> Reading:
    """All at once: rules of a tokenizer's own may look at the words around a word."""
    if not runs:
        return Reading([])
    text = "".join(run.text for run in runs)
    starts = [0, *accumulate(len(run.text) for run in runs)]
    found = _tokenized(tokenizer, text, return_offsets_mapping=True)
    places = found.offset_mapping
    tokens = [
        (token, runs[bisect_right(starts, start) - 1].weight)
        for token, (start, _) in zip(found.input_ids, places, strict=True)
    ]
    covered = {place for start, end in places for place in range(start, end)}
    unread = (
        word.group()[:LONGEST_WORD]
        for word in _WORD.finditer(text)
        if _is_worth_naming(word.group()) and covered.isdisjoint(range(*word.span()))
    )
    return Reading(tokens, tuple(unread))


def _tokenized(tokenizer: Any, text: str, **options: bool) -> Any:
    """The tokens of what the user wrote: "<|endoftext|>" is text as well, and ends nothing."""
    return tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False, **options
    )


def _is_worth_naming(word: str) -> bool:
    return any(map(str.isalpha, word)) and not _LITTLE.fullmatch(word)
