"""The rules of LoRAs, each with the check that raises if it is broken."""

from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from imagine_core.errors import UnusableModel
from imagine_core.parts import Change, FittedLora, Layers
from imagine_core.testing.live_tensors import alive, born
from imagine_core.testing.loader_rules import helpful

if TYPE_CHECKING:
    from imagine_core.testing.loader_under_test import LoadedLora

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CLOSE = 1e-5
"""How far a product may be from the sum that it stands for, as a part of the largest value."""

ROOM, SLACK = 1.5, 2**16
"""Memory that a LoRA may take, as a multiple of its file and in bytes beside."""


def described(loaded: LoadedLora) -> None:
    """It is of the kind "lora", for the models that it is said to be for, and JSON can hold it."""
    info = loaded.info
    assert info.kind == "lora", f"it says that its kind is {info.kind!r}, not 'lora'"
    fits: object = info.fits
    assert isinstance(fits, tuple), f"`fits` is {fits!r}, not a tuple"
    assert all(isinstance(each, str) for each in fits), f"`fits` is {fits!r}, not all texts"
    family = loaded.layers.family
    assert not fits or family in fits, f"it says that it fits {fits}, but not {family!r}"
    assert info.takes == (), f"it says that it takes {info.takes}, as models do"
    json.dumps(dict(info.details), allow_nan=False)
    triggers: Any = info.details.get("triggers", [])
    listed = isinstance(triggers, list) and all(isinstance(each, str) for each in triggers)
    assert listed, f"its triggers are {triggers!r}, not a list of texts"


def hashed(loaded: LoadedLora) -> None:
    """It has a hash of 12 digits, or none."""
    digest = loaded.lora.hash
    known = digest is None or re.fullmatch("[0-9a-f]{12}", digest)
    assert known, f"its hash is {digest!r}, not 12 hex digits"


def changes(loaded: LoadedLora) -> None:
    """It changes something, and only layers that there are."""
    fitted: object = loaded.fitted
    assert isinstance(fitted, FittedLora), f"`fit` gives {fitted!r:.60}"
    assert fitted.changes or fitted.words, "it changes nothing, and says nothing"
    for name, change in fitted.changes.items():
        assert name in loaded.layers.shapes, f"it changes {name!r}, which is no layer of the model"
        acts = change.updates or change.bias is not None or change.magnitude is not None
        assert acts, f"the change of {name} does nothing"


def shapes(loaded: LoadedLora) -> None:
    """What it changes in a layer has the layer's shape."""
    for name, change in loaded.fitted.changes.items():
        shape = loaded.layers.shapes[name]
        for update in change.updates:
            _shaped(update.dense(torch.float32), shape, f"the update of {name}")
            low = update.low_rank(torch.float32)
            if low is not None:
                rank = len(low.down)
                _shaped(low.down, (rank, *shape[1:]), f"`down` of {name}")
                _shaped(low.up, (shape[0], rank), f"`up` of {name}")
        if change.bias is not None:
            _shaped(change.bias, shape[:1], f"the bias of {name}")
        if change.magnitude is not None:
            axis: object = change.magnitude.axis
            assert axis in ("out", "in"), f"the magnitude of {name} lies along {axis!r}"
            sizes = shape[:1] if axis == "out" else shape[1:2]
            _shaped(change.magnitude.values, sizes, f"the magnitude of {name}")
    for word, encoders in loaded.fitted.words.items():
        for encoder, vectors in encoders.items():
            _shaped(vectors, (len(vectors), vectors.shape[-1]), f"{word!r} for the {encoder}")


def _shaped(tensor: torch.Tensor, shape: tuple[int, ...], what: str) -> None:
    found = tuple(tensor.shape)
    assert found == shape, f"{what} has the shape {found}, not {shape}"


def low_rank(loaded: LoadedLora) -> None:
    """The product of two is the sum that it stands for."""
    for name, change in loaded.fitted.changes.items():
        for update in change.updates:
            low, dense = update.low_rank(torch.float32), update.dense(torch.float32)
            if low is None:
                continue
            product = (low.up @ low.down.flatten(1)).view(dense.shape)
            away = float((product - dense).abs().max())
            limit = CLOSE * float(dense.abs().max())
            assert away <= limit, f"`up @ down` of {name} is {away:.2g} away from `dense`"


def values(loaded: LoadedLora) -> None:
    """Its values are numbers, of the dtype that was asked for."""
    for dtype in DTYPES:
        for what, tensor in _computed(loaded.fitted, dtype):
            assert tensor.dtype == dtype, f"{what} is {tensor.dtype}, not {dtype} as asked for"
            assert tensor.isfinite().all(), f"{what} is not finite"
    for what, tensor in _stored(loaded.fitted):
        assert tensor.is_floating_point(), f"{what} is {tensor.dtype}, which holds no fractions"
        assert tensor.float().isfinite().all(), f"{what} is not finite"


def device(loaded: LoadedLora) -> None:
    """An update goes to a device, is computed there, and stays where it was as well."""
    for name, change in loaded.fitted.changes.items():
        for update in change.updates:
            there = update.to(torch.device("meta"))
            low = there.low_rank(torch.float32)
            tensors = (there.dense(torch.float32), *(() if low is None else low))
            assert all(each.is_meta for each in tensors), f"`to` leaves the update of {name} behind"
            here = not update.dense(torch.float32).is_meta
            assert here, f"`to` takes the update of {name} away from where it was"


def shared(loaded: LoadedLora) -> None:
    """Each forward fits it again, and several models share it: it gives the same each time."""
    lora, first = loaded.lora, _values(loaded.fitted)
    _same(first, _values(loaded.fitted), "when it is computed the second time")
    for name in loaded.fitted.changes:
        _fit_without(loaded, name)
    again = lora.fit(loaded.layers)
    _same(first, _values(again), "after it was fitted to another model")
    assert again.warnings == loaded.fitted.warnings, "its warnings are others the second time"
    assert weakref.ref(lora)() is lora, "it cannot be referred to weakly"
    other = loaded.load(loaded.info)
    assert len({lora, other}) == 2, "two that were loaded are equal; compare them by identity"
    other.close()


def _same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], when: str) -> None:
    assert first.keys() == second.keys(), f"it changes other layers {when}"
    for what, tensor in first.items():
        assert torch.equal(tensor, second[what]), f"{what} is another {when}"


def lacking(loaded: LoadedLora) -> None:
    """What a model lacks of its layers is said; the others are changed all the same."""
    every = loaded.fitted
    for name in every.changes:
        found = _fit_without(loaded, name)
        if found is None:
            alone = len(every.changes) == 1 and not every.words
            assert alone, f"it cannot be used where the model lacks {name} alone"
            continue
        assert name not in found.changes, f"it changes {name} where the model lacks it"
        lost = every.changes.keys() - found.changes.keys() - {name}
        assert not lost, f"it leaves out {', '.join(lost)} where the model lacks {name}"
        assert found.changes or found.words, f"it says nothing where the model has only {name} less"
        news = set(found.warnings) - set(every.warnings)
        assert news, f"no warning says that the model lacks {name}"
        for sentence in news:
            helpful(sentence, name)


def _fit_without(loaded: LoadedLora, name: str) -> FittedLora | None:
    """The fit for a model that lacks a layer; None where nothing is left."""
    rest = {each: shape for each, shape in loaded.layers.shapes.items() if each != name}
    try:
        return loaded.lora.fit(_with(loaded.layers, rest))
    except UnusableModel as error:
        helpful(error.problem, f"a model without {name}")
        return None


def misfit(loaded: LoadedLora) -> None:
    """It is refused for a model whose layers have other shapes, or other names."""
    wide = {
        name: (*(2 * size for size in shape[:2]), *shape[2:])
        for name, shape in loaded.layers.shapes.items()
    }
    others: dict[str, Mapping[str, tuple[int, ...]]] = {
        "a model twice as wide": wide,
        "a model of other layers": {"unet.other": (8, 8)},
    }
    for what, sizes in others.items():
        try:
            found = loaded.lora.fit(_with(loaded.layers, sizes))
        except UnusableModel as error:
            helpful(error.problem, what)
            continue
        wrong = ", ".join(found.changes)
        assert not wrong, f"it changes {wrong} of {what}"
        assert found.words, f"it changes nothing of {what}, and is not refused"
        assert found.warnings or not loaded.fitted.changes, f"it says nothing about {what}"


def _with(layers: Layers, sizes: Mapping[str, tuple[int, ...]]) -> Layers:
    originals = {name: each for name, each in layers.original_names.items() if name in sizes}
    return replace(layers, shapes=sizes, original_names=originals)


def memory(loaded: LoadedLora) -> None:
    """It takes no more memory than its file is large, which is what the engine reckons with."""
    before = alive()
    lora = loaded.load(loaded.info)
    fitted = lora.fit(loaded.layers)
    gc.collect()
    storages = [each.untyped_storage() for each in born(before)]
    taken = sum({each.data_ptr(): each.nbytes() for each in storages}.values())
    limit = int(ROOM * loaded.info.size) + SLACK
    assert taken <= limit, f"its tensors take {taken} bytes; its file has {loaded.info.size}"
    del fitted
    lora.close()


def closing(loaded: LoadedLora) -> None:
    """Closing it, even twice, gives its memory back, though the object itself lives on."""
    before = alive()
    lora = loaded.load(loaded.info)
    assert lora.fit(loaded.layers) is not None
    lora.close()
    lora.close()
    gc.collect()
    left = len(born(before))
    assert not left, f"{left} tensors are still there after `close`"


def _computed(fitted: FittedLora, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """What updates come to, by what it is."""
    for name, change in fitted.changes.items():
        for number, update in enumerate(change.updates, start=1):
            what = f"update {number} of {name}"
            yield what, update.dense(dtype)
            low = update.low_rank(dtype)
            if low is not None:
                yield f"`down` in {what}", low.down
                yield f"`up` in {what}", low.up


def _stored(fitted: FittedLora) -> Iterator[tuple[str, torch.Tensor]]:
    """Biases, magnitudes and words, by what they are."""
    for name, change in fitted.changes.items():
        yield from _vectors(name, change)
    for word, encoders in fitted.words.items():
        for encoder, vectors in encoders.items():
            yield f"{word!r} for the {encoder}", vectors


def _vectors(name: str, change: Change) -> Iterator[tuple[str, torch.Tensor]]:
    if change.bias is not None:
        yield f"the bias of {name}", change.bias
    if change.magnitude is not None:
        yield f"the magnitude of {name}", change.magnitude.values


def _values(fitted: FittedLora) -> dict[str, torch.Tensor]:
    """All that it comes to, copied."""
    found = (*_computed(fitted, torch.float32), *_stored(fitted))
    return {what: tensor.clone() for what, tensor in found}


LORA_RULES: tuple[tuple[str, Callable[[LoadedLora], None]], ...] = (
    ("lora-described", described),
    ("lora-hash", hashed),
    ("lora-changes", changes),
    ("lora-shapes", shapes),
    ("lora-low-rank", low_rank),
    ("lora-values", values),
    ("lora-device", device),
    ("lora-shared", shared),
    ("lora-lacking", lacking),
    ("lora-misfit", misfit),
    ("lora-memory", memory),
    ("lora-closing", closing),
)
