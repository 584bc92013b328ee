"""Turns prompts into embeddings: weights, chunks and clip skip over a CLIP text encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from imagine_core.embeddings import named_embeddings
from imagine_core.errors import FieldError, RequestError
from imagine_core.prompting import Chunk, chunks, describe, parse, sections
from imagine_plugins.loaders.emphasis import weighted
from imagine_plugins.loaders.tokens import comma, read
from imagine_plugins.loaders.words import Places, Words

CACHED_PROMPTS = 64
MOST_CHUNKS = 100
"""Chunks of a prompt: more than anybody writes, few enough that others need not wait for long."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt's embeddings: [1, chunks * positions, width], and pooled [1, width]."""

    context: torch.Tensor
    pooled: torch.Tensor
    warnings: tuple[str, ...]
    unread: tuple[str, ...]


class TextEncoder:
    """A CLIP text encoder with its tokenizer and a cache of the last prompts.

    Args:
        model: A CLIPTextModel, or a CLIPTextModelWithProjection where the pooled output is used.
        tokenizer: Its tokenizer; `pad_token_id` fills what a chunk leaves free.
        first_layer: The layer, counted from the end, that clip skip 1 takes: 1, or 2 for SDXL.
        normalise: Whether the final layer norm follows; SDXL does without.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, first_layer: int = 1, normalise: bool = True
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.first_layer = first_layer
        self.normalise = normalise
        self.width: int = model.config.hidden_size
        self.positions: int = model.config.max_position_embeddings
        self._cache: OrderedDict[tuple[object, ...], Encoded] = OrderedDict()

    def encode(
        self,
        prompt: str,
        *,
        clip_skip: int,
        words: Words | None = None,
        changed: Hashable = None,
        changing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Encoded:
        """The embeddings of a prompt; `clip_skip` 1 is the layer that the model was trained on.

        Args:
            prompt: The prompt.
            clip_skip: The layer, counted from the end.
            words: The embeddings that it may name; their vectors stand in the places of tokens.
            changed: What tells apart what changes the model meanwhile.
            changing: Changes the model for as long as its context lasts.

        Raises:
            RequestError: It is longer than others can wait for, or names an embedding whose
                vectors are of another width.
        """
        named = {name: (words or {})[name] for name in named_embeddings(prompt, words or ())}
        key = (prompt, clip_skip, changed, *((name, word.digest) for name, word in named.items()))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        with changing():
            encoded = self._encode(prompt, clip_skip, named)
        self._cache[key] = encoded
        if len(self._cache) > CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return encoded

    def _encode(self, prompt: str, clip_skip: int, words: Words) -> Encoded:
        length = self.positions - 2
        places = Places(words)
        texts = [read(self.tokenizer, runs, places) for runs in sections(parse(prompt))]
        pieces = chunks([text.tokens for text in texts], length=length, comma=comma(self.tokenizer))
        if len(pieces) > MOST_CHUNKS:
            message = f"must fit into {MOST_CHUNKS} chunks of {length} tokens, not {len(pieces)}"
            raise RequestError([FieldError("prompt", message)])
        outputs = [self._chunk(piece, clip_skip, places) for piece in pieces]
        return Encoded(
            context=torch.cat([context for context, _ in outputs], dim=1),
            pooled=outputs[0][1],  # as in A1111: the first chunk speaks for the prompt
            warnings=(*describe(pieces, length), *_lacking(words)),
            unread=tuple(word for text in texts for word in text.unread),
        )

    def _chunk(
        self, piece: Chunk, clip_skip: int, places: Places
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer, device = self.tokenizer, self.model.device
        piece = places.read(piece)
        free = self.positions - 2 - len(piece.tokens)
        ids = [tokenizer.bos_token_id, *piece.tokens, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * free
        with places.filled(self.model, ids) as known:
            output = self.model(torch.tensor([known], device=device), output_hidden_states=True)
        context = self._layer(output, clip_skip)
        if piece.weighted:
            weights = [1.0, *piece.weights, 1.0, *[1.0] * free]
            context = weighted(context, torch.tensor(weights, device=device))
        pooled = output.text_embeds if "text_embeds" in output else output.pooler_output
        return context, pooled

    def _layer(self, output: Any, clip_skip: int) -> torch.Tensor:
        hidden = output.hidden_states
        back = min(clip_skip + self.first_layer - 1, len(hidden) - 1)
        if not self.normalise:
            return hidden[-back]  # type: ignore[no-any-return]
        if back == 1:
            return output.last_hidden_state  # type: ignore[no-any-return]
        inner = getattr(self.model, "text_model", self.model)
        return inner.final_layer_norm(hidden[-back])  # type: ignore[no-any-return]


def _lacking(words: Words) -> Iterator[str]:
    for name, word in words.items():
        if word.vectors is None:
            yield (
                f"embedding {name!r} has no vectors for one of this model's text encoders, "
                "which reads nothing in its place"
            )
