"""Counts the weights that a model consists of, whatever else its files hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

from imagine_plugins.loaders.header import Tensor
from imagine_plugins.loaders.layout import Slot
from imagine_plugins.loaders.weights import FLOATS, Weights

Slots = Mapping[str, Sequence[Slot] | None]


def count(slots: Slots, weights: Mapping[str, Weights]) -> tuple[int, str | None]:
    """The number of parameters, and the dtype that most of them are stored in."""
    kinds: Counter[str] = Counter()
    for tensor in _used(slots, weights):
        kinds[tensor.dtype] += prod(tensor.shape)
    most = kinds.most_common(1)
    return kinds.total(), FLOATS.get(most[0][0]) if most else None


class Meter:
    """Tells `progress` which fraction of a model's bytes has been read.

    Args:
        slots: What each component wants; None for all of its tensors.
        weights: What there is for each component.
        progress: Called with the fraction, 0 .. 1.
    """

    def __init__(
        self, slots: Slots, weights: Mapping[str, Weights], progress: Callable[[float], object]
    ) -> None:
        self._total = sum(tensor.end - tensor.start for tensor in _used(slots, weights))
        self._progress = progress
        self._done = 0

    def __call__(self, size: int) -> None:
        """So many more bytes were read."""
        self._done += size
        self._progress(min(1.0, self._done / max(1, self._total)))


def _used(slots: Slots, weights: Mapping[str, Weights]) -> Iterator[Tensor]:
    for name, wanted in slots.items():
        stored = weights[name]
        keys = stored if wanted is None else {slot.key for slot in wanted}
        yield from (stored[key].tensor for key in keys if key in stored)
