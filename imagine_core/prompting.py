"""Prompts as users of A1111 write them: weights, BREAK, and chunks of any number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = [
    "Chunk",
    "Fragment",
    "Token",
    "chunks",
    "describe",
    "parse",
    "sections",
]

ROUND, SQUARE = 1.1, 1 / 1.1  # what a pair of brackets multiplies by
WEIGHT_LIMIT = 10.0  # far beyond what any model bears; keeps nested brackets finite
DEPTH_LIMIT = 25  # brackets open at a time: deeper ones would pass the limit, and are text
COMMA_REACH = 20  # how far from a full chunk's end a comma is preferred to break at

_TOKEN = re.compile(
    r"""
      \\[\\()\[\]]                                # an escaped bracket or backslash
    | :\s*(?P<weight>[+-]?(?:\d++(?:\.\d*+)?|\.\d++))\s*+\)   # closes a round bracket
    | [()\[\]]
    | [^\\()\[\]:]+
    | [\\:]                                       # neither escapes nor weighs: itself
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\([\\()\[\]])")
_BREAK = re.compile(r"(?:(?<!\s)\s+)?\bBREAK\b\s*")  # from the first blank of a run: linear


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of text under one weight; `starts_chunk` where the prompt says BREAK before it."""

    text: str
    weight: float = 1.0
    starts_chunk: bool = False


def parse(prompt: str) -> list[Fragment]:
    """Split a prompt into runs of equal weight; never fails, brackets that match nothing are text.

    `(x)` multiplies by 1.1, `[x]` divides by it, `(x:1.3)` multiplies by 1.3, each nested as deep
    as wanted; an opening bracket that is never closed reaches to the end, as in A1111.
    """
    runs = _Runs()
    for match in _TOKEN.finditer(prompt):
        runs.take(match.group(), match["weight"])
    runs.close()
    return list(_joined(zip(runs.texts, runs.weights, strict=True)))


@dataclass(slots=True)
class _Runs:
    """The texts between brackets, and what all brackets around each multiply to."""

    texts: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    round: list[int] = field(default_factory=list)  # where brackets still open began
    square: list[int] = field(default_factory=list)

    def take(self, text: str, weight: str | None) -> None:
        if text == "(" and len(self.round) < DEPTH_LIMIT:
            self.round.append(len(self.texts))
        elif text == "[" and len(self.square) < DEPTH_LIMIT:
            self.square.append(len(self.texts))
        elif self.round and (weight is not None or text == ")"):
            self._multiply(self.round.pop(), ROUND if weight is None else float(weight))
        elif self.square and text == "]":
            self._multiply(self.square.pop(), SQUARE)
        else:
            self.texts.append(_ESCAPED.sub(r"\1", text))
            self.weights.append(1.0)

    def close(self) -> None:
        for start in self.round:
            self._multiply(start, ROUND)
        for start in self.square:
            self._multiply(start, SQUARE)

    def _multiply(self, start: int, factor: float) -> None:
        for position in range(start, len(self.weights)):
            self.weights[position] = _bounded(self.weights[position] * factor)


def _joined(runs: Iterator[tuple[str, float]]) -> Iterator[Fragment]:
    """Join neighbours of equal weight and split at BREAK."""
    merged: list[tuple[str, float]] = []
    for text, weight in runs:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    for text, weight in merged:
        for number, part in enumerate(_BREAK.split(text)):
            if part or number:
                yield Fragment(part, weight, starts_chunk=number > 0)


def _bounded(weight: float) -> float:
    return min(max(weight, -WEIGHT_LIMIT), WEIGHT_LIMIT)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens of one pass through the text encoder, without start, end and padding.

    Those below zero stand for vectors, which their caller knows.
    """

    tokens: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether any token's weight is not 1."""
        return any(weight != 1.0 for weight in self.weights)


@dataclass(slots=True)
class _Chunker:
    """Fills chunks of at most `length` tokens, breaking after a comma where one is near."""

    length: int
    comma: int | None
    done: list[Chunk] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def take(self, token: int | tuple[int, ...], weight: float) -> None:
        """Add a token; or several, which begin a chunk where this one has no room for all."""
        if isinstance(token, int):
            self.add(token, weight)
            return
        if len(self.tokens) + len(token) > self.length and self.tokens:
            self.close()
        for each in token:
            self.add(each, weight)

    def add(self, token: int, weight: float) -> None:
        if len(self.tokens) == self.length:
            self.close(None if token == self.comma else self._break())
        self.tokens.append(token)
        self.weights.append(weight)

    def close(self, end: int | None = None) -> None:
        """End the chunk after `end` tokens; what follows them begins the next."""
        end = len(self.tokens) if end is None else end
        self.done.append(Chunk(tuple(self.tokens[:end]), tuple(self.weights[:end])))
        del self.tokens[:end], self.weights[:end]

    def _break(self) -> int:
        reach = min(COMMA_REACH, self.length - 1)
        for back, token in enumerate(reversed(self.tokens[-reach:])):
            if token == self.comma:
                return len(self.tokens) - back
        return len(self.tokens)


Token = tuple[int | tuple[int, ...], float]
"""A token, or several that stay in one chunk if one holds them, and their weight."""


def sections(fragments: Iterable[Fragment]) -> list[list[Fragment]]:
    """The runs of text from one BREAK to the next."""
    found: list[list[Fragment]] = [[]]
    for fragment in fragments:
        if fragment.starts_chunk:
            found.append([])
        found[-1].append(fragment)
    return found


def chunks(
    texts: Iterable[Iterable[Token]], *, length: int, comma: int | None
) -> tuple[Chunk, ...]:
    """Cut texts, each of which begins a chunk, into chunks; no token is ever dropped.

    Args:
        texts: Their tokens, without start and end.
        length: The most tokens of a chunk: the encoder's positions less start and end.
        comma: The token of a comma.
    """
    chunker = _Chunker(length, comma)
    for number, tokens in enumerate(texts):
        if number:
            chunker.close()
        for token, weight in tokens:
            chunker.take(token, weight)
    if chunker.tokens or not chunker.done:
        chunker.close()
    return tuple(chunker.done)


def describe(pieces: Sequence[Chunk], length: int) -> tuple[str, ...]:
    """What the user should know of how a prompt was cut."""
    if len(pieces) < 2:
        return ()
    count = sum(len(piece.tokens) for piece in pieces)
    return (f"prompt has {count} tokens: encoded in {len(pieces)} chunks of {length}",)
