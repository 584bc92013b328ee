"""LoRAs in single rows of a forward that others share: nothing of them is ever in the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, groupby
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn

from imagine_core.errors import FieldError, RequestError, UnusableModel
from imagine_core.parts import AppliedLora, FittedLora, Layers, Lora, Parts
from imagine_plugins.loaders.adapters.blocks import Blocks, BlocksError, blocks
from imagine_plugins.loaders.adapters.layer_rows import LayerRows, Weighted, layer_rows
from imagine_plugins.loaders.adapters.modules import Modules, modules_of, target_of
from imagine_plugins.loaders.adapters.stacks import Acting, Stacks

Key = tuple[tuple[int, float, str | None], ...]
"""LoRAs and their weights, by numbers: it keeps no LoRA in memory."""

Span = tuple[int, int | None]
"""The first row and the one behind the last; None for all that there are."""


class Group(NamedTuple):
    """Adjacent rows in which the same acts."""

    acting: Acting
    first: int
    last: int


class Rows:
    """What LoRAs change in the networks of a model.

    It is prepared once for equal LoRAs with equal weights, and kept as long as a `Parts` that uses
    it. During a forward, hooks on the layers that are changed add it to the outputs of its rows.

    Args:
        layers: The model's.
        networks: Its networks by component: "unet", "text_encoder", "text_encoder_2".
    """

    def __init__(self, layers: Layers, networks: Mapping[str, nn.Module]) -> None:
        self._layers = layers
        self._modules: Modules = modules_of(layers)
        self._networks = networks
        self._numbers: WeakKeyDictionary[Lora, int] = WeakKeyDictionary()
        self._next = count()
        self._prepared: WeakValueDictionary[tuple[str, Key], Acting] = WeakValueDictionary()
        self._stacks = Stacks()
        self._used: WeakKeyDictionary[Parts, dict[str, Acting | None]] = WeakKeyDictionary()

    def fit(self, parts: Parts) -> tuple[str, ...]:
        """What of LoRAs is left out, in sentences; raises `RequestError` for those that are bad."""
        problems, warnings = [], []
        for each in parts.loras:
            name = f"LoRA {each.use.name!r}"
            try:
                fitted = each.lora.fit(self._layers)
                _blocks(each)
            except UnusableModel as error:
                problems.append(FieldError("loras", f"{name}: {error.problem}"))
            except BlocksError as error:
                problems.append(FieldError("loras", f"{name}: {error}"))
            else:
                warnings += [f"{name}: {sentence}" for sentence in fitted.warnings]
        if problems:
            raise RequestError(problems)
        return tuple(warnings)

    def key(self, component: str, parts: Parts | None) -> Key:
        """What acts on a network: equal for equal LoRAs in equal strength; empty for none."""
        return tuple(
            (self._number(each.lora), weight, each.use.blocks)
            for each, weight in _summed(component, parts)
            if weight and any(self._of(component, each))
        )

    def words(self, parts: Parts | None) -> dict[str, Mapping[str, torch.Tensor]]:
        """The embeddings that come with a request's LoRAs, as `Embedding.vectors` by their names.

        Those of a LoRA that does not act at all are no words.
        """
        return {
            word: vectors
            for each in (parts.loras if parts is not None else ())
            if each.use.weight or each.text_weight
            for word, vectors in each.lora.fit(self._layers).words.items()
        }

    def prepare(self, component: str, parts: Parts) -> Acting | None:
        """What a request's LoRAs do in a network; None where that is nothing."""
        used = self._used.setdefault(parts, {})
        if component not in used:
            used[component] = self._acting(component, parts)
        return used[component]

    @contextmanager
    def acting(self, component: str, rows: Sequence[Parts | None]) -> Iterator[None]:
        """Let LoRAs act in a forward: for each row its own, and those of a single one in all."""
        spans: dict[nn.Module, list[tuple[Span, LayerRows]]] = {}
        prepared = [None if parts is None else self.prepare(component, parts) for parts in rows]
        for run in _runs(prepared):
            stacked = self._stacks.layers([each.acting for each in run]) if len(run) > 1 else {}
            whole = (run[0].first, run[-1].last if len(rows) > 1 else None)
            for layer, change in stacked.items():
                spans.setdefault(layer, []).append((whole, change))
            for each in run:
                span = (each.first, each.last if len(rows) > 1 else None)
                for layer, change in each.acting.layers.items():
                    if layer not in stacked:
                        spans.setdefault(layer, []).append((span, change))
        hooks = []
        try:
            for layer, changes in spans.items():
                hooks.append(layer.register_forward_hook(partial(_change, changes)))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _acting(self, component: str, parts: Parts) -> Acting | None:
        key = self.key(component, parts)
        if (component, key) in self._prepared:
            return self._prepared[component, key]
        changes = self._changes(component, parts)
        if not changes:
            return None
        found = {
            name.removeprefix("text_model."): layer
            for name, layer in self._networks[component].named_modules()
        }
        acting = Acting(
            {
                found[target_of(name).module]: layer_rows(found[target_of(name).module], weighted)
                for name, weighted in changes.items()
            }
        )
        self._prepared[component, key] = acting
        return acting

    def _changes(self, component: str, parts: Parts) -> dict[str, list[Weighted]]:
        """What changes each layer of a network."""
        changes: dict[str, list[Weighted]] = {}
        for each, weight in _summed(component, parts):
            factors = _blocks(each)
            for name, change in self._of(component, each):
                strength = weight
                if factors is not None:
                    strength *= factors.factor(self._modules[target_of(name)])
                if strength:
                    changes.setdefault(name, []).append(Weighted(change, strength))
        return changes

    def _of(self, component: str, each: AppliedLora) -> Iterator[tuple[str, Any]]:
        fitted: FittedLora = each.lora.fit(self._layers)
        for name, change in fitted.changes.items():
            if target_of(name).component == component:
                yield name, change

    def _number(self, lora: Lora) -> int:
        """A number of its own, for as long as it lives."""
        if lora not in self._numbers:
            self._numbers[lora] = next(self._next)
        return self._numbers[lora]


def _change(
    changes: Sequence[tuple[Span, LayerRows]], layer: Any, inputs: Any, output: Any
) -> None:
    """Change rows of a layer's output in place."""
    x, tokens = inputs[0], 1
    if isinstance(layer, nn.Linear) and output.is_contiguous():  # all tokens are rows of a matrix
        tokens = output.numel() // (len(output) * output.shape[-1])
        x, output = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
    for (first, last), change in changes:
        rows = slice(first * tokens, last and last * tokens)
        change(layer, x[rows], output[rows])


def _summed(component: str, parts: Parts | None) -> list[tuple[AppliedLora, float]]:
    """The LoRAs that act on a network with their weights: one that is there twice, once."""
    weights: dict[tuple[int, str | None], tuple[AppliedLora, float]] = {}
    for each in parts.loras if parts is not None else ():
        key = (id(each.lora), each.use.blocks)
        first, weight = weights.get(key, (each, 0.0))
        weights[key] = (first, weight + _weight(each, component))
    return list(weights.values())


def _runs(prepared: Sequence[Acting | None]) -> Iterator[list[Group]]:
    """Groups of rows, each run of adjacent ones with equally many."""
    first = 0
    run: list[Group] = []
    for acting, same in groupby(prepared, key=lambda acting: acting):
        last = first + len(list(same))
        if run and (acting is None or run[-1].last - run[-1].first != last - first):
            yield run
            run = []
        if acting is not None:
            run.append(Group(acting, first, last))
        first = last
    if run:
        yield run


def _weight(each: AppliedLora, component: str) -> float:
    return each.use.weight if component == "unet" else each.text_weight


def _blocks(each: AppliedLora) -> Blocks | None:
    return None if each.use.blocks is None else blocks(each.use.blocks)
