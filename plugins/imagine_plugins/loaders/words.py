"""Embeddings as a text encoder reads them: vectors in the place of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from imagine_core.embeddings import EmbeddingNames
from imagine_core.prompting import Chunk


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """An embedding as one text encoder reads it.

    Attributes:
        vectors: [vectors, width]; None where it has none for this text encoder, which then reads
            nothing in its place, as in ComfyUI.
        places: How many tokens it counts as: the most vectors that any text encoder has of it,
            so that all text encoders of a model cut a prompt into the same chunks.
    """

    vectors: torch.Tensor | None
    places: int

    @property
    def digest(self) -> bytes:
        """Tells it from others, those that had its name before included."""
        told = hashlib.sha256(str(self.places).encode())
        if self.vectors is not None:
            values = self.vectors.detach().cpu().contiguous()
            told.update(f"{values.dtype} {tuple(values.shape)}".encode())
            told.update(values.view(torch.uint8).numpy().tobytes())
        return told.digest()


Words = Mapping[str, Word]
"""By the name that prompts call them."""


def words_for(component: str, found: Mapping[str, Mapping[str, torch.Tensor]]) -> Words:
    """Embeddings as the text encoder `component` reads them.

    Args:
        component: "text_encoder" or "text_encoder_2".
        found: By name and text encoder, [vectors, width].
    """
    return {
        name: Word(vectors.get(component), max(map(len, vectors.values()), default=0))
        for name, vectors in found.items()
    }


class Places:
    """Numbers below zero that stand among the tokens of a prompt, one for each vector.

    Args:
        words: The embeddings that the prompt names.
    """

    def __init__(self, words: Words) -> None:
        self.names = EmbeddingNames(words)
        self._tokens: dict[str, tuple[int, ...]] = {}
        self._vectors: dict[int, torch.Tensor] = {}
        lowest = 0
        for name, word in words.items():
            tokens = tuple(range(lowest - 1, lowest - 1 - word.places, -1))
            lowest -= word.places
            self._tokens[name] = tokens
            self._vectors |= zip(tokens, () if word.vectors is None else word.vectors, strict=False)

    def tokens(self, name: str) -> tuple[int, ...]:
        """The numbers of an embedding's vectors."""
        return self._tokens[name]

    def read(self, piece: Chunk) -> Chunk:
        """A chunk without the places that this text encoder reads nothing in."""
        pairs = zip(piece.tokens, piece.weights, strict=True)
        kept = [(token, weight) for token, weight in pairs if token >= 0 or token in self._vectors]
        return Chunk(tuple(token for token, _ in kept), tuple(weight for _, weight in kept))

    @contextmanager
    def filled(self, model: Any, tokens: list[int]) -> Iterator[list[int]]:
        """Within, `model` reads the vectors where `tokens` are below zero.

        Gives the tokens to call it with: there the start token takes their places, lest the model
        take one for the end, whose output is the pooled one.
        """
        places = [place for place, token in enumerate(tokens) if token < 0]
        if not places:
            yield tokens
            return
        vectors = torch.stack([self._vectors[tokens[place]] for place in places])

        def put(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            where = torch.tensor(places, device=output.device)
            return output.index_copy(1, where, vectors.to(output)[None])

        hook = model.get_input_embeddings().register_forward_hook(put)
        try:
            yield [tokens[0] if token < 0 else token for token in tokens]
        finally:
            hook.remove()


def misfits(
    found: Mapping[str, Mapping[str, torch.Tensor]], widths: Mapping[str, int]
) -> dict[str, str]:
    """Why embeddings are read as words: those whose vectors are no token's of a text encoder.

    Args:
        found: By name and text encoder, [vectors, width].
        widths: Of the text encoders of a model.
    """
    return {
        name: f"{name!r} is read as words: its vectors have {vectors[component].shape[-1]} "
        f"numbers, and this model's text encoder takes {width}"
        for name, vectors in found.items()
        for component, width in widths.items()
        if component in vectors and vectors[component].shape[1:] != (width,)
    }
