"""Feature maps that compute any of their rows on demand, from rows of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

STRIP = 2**24  # values in a strip of a map
LEAST_ROWS = 8  # more than any block here reads beyond the rows that it makes: see `stored`


class Map(ABC):
    """A feature map, [1, channels, height, width], that computes any of its rows on demand."""

    channels: int
    height: int
    width: int

    @abstractmethod
    def rows(self, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last`, the latter excluded."""

    def strips(self) -> Iterator[tuple[int, int]]:
        """First and last row of each of its strips."""
        step = max(LEAST_ROWS, STRIP // (self.channels * self.width))
        for first in range(0, self.height, step):
            yield first, min(first + step, self.height)


class Stored(Map):
    """A tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        _, self.channels, self.height, self.width = tensor.shape

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        return self.tensor[:, :, first:last]


class Convolved(Map):
    """A convolution of a map.

    Args:
        source: What it reads.
        layer: The Conv2d.
        axes: Those along which the source wraps around, where it is zero beyond its edges else.
        after: Rows and columns that are padded at the end; None for as many as at the beginning.
    """

    def __init__(self, source: Map, layer: Any, axes: str, after: int | None = None) -> None:
        self._source, self._layer, self._axes = source, layer, axes
        self._before = layer.padding[0]
        self._after = self._before if after is None else after
        self._kernel, self._stride = layer.kernel_size[0], layer.stride[0]
        self.channels = layer.out_channels
        padding = self._before + self._after - self._kernel
        self.height = (source.height + padding) // self._stride + 1
        self.width = (source.width + padding) // self._stride + 1

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        first, last = first * self._stride, (last - 1) * self._stride + self._kernel
        rows = self._window(first - self._before, last - self._before)
        side = 0
        if "x" in self._axes or self._before != self._after:
            mode = "circular" if "x" in self._axes else "constant"
            rows = functional.pad(rows, (self._before, self._after, 0, 0), mode)
        else:
            side = self._before
        weight, bias = self._layer.weight, self._layer.bias
        return functional.conv2d(rows, weight, bias, self._stride, (0, side))

    def _window(self, first: int, last: int) -> torch.Tensor:
        """Rows of the source, some of which lie beyond its edges."""
        height = self._source.height
        inside = self._source.rows(max(first, 0), min(last, height))
        above, below = max(-first, 0), max(last - height, 0)
        if not (above or below):
            return inside
        if "y" not in self._axes:
            return functional.pad(inside, (0, 0, above, below))
        parts = [self._source.rows(height - above, height)] if above else []
        parts.append(inside)
        parts += [self._source.rows(0, below)] if below else []
        return torch.cat(parts, dim=2)


class Doubled(Map):
    """A map at twice its size, each value four times."""

    def __init__(self, source: Map) -> None:
        self._source, self.channels = source, source.channels
        self.height, self.width = 2 * source.height, 2 * source.width

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        begin = first // 2
        rows = functional.interpolate(self._source.rows(begin, -(-last // 2)), scale_factor=2.0)
        return rows[:, :, first - 2 * begin : last - 2 * begin]


class Applied(Map):
    """A function of each value of a map."""

    def __init__(self, source: Map, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._source, self._function, self.channels = source, function, source.channels
        self.height, self.width = source.height, source.width

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        return self._function(self._source.rows(first, last))


class Normed(Map):
    """A map after a group norm whose statistics are those of all its rows, and an activation."""

    def __init__(self, source: Map, norm: Any, activation: Callable[..., torch.Tensor]) -> None:
        self._source, self._activation, self.channels = source, activation, source.channels
        self.height, self.width = source.height, source.width
        self._eps = norm.eps
        self._weight, self._bias = norm.weight.float(), norm.bias.float()
        self._mean, self._variance = self._statistics(norm.num_groups)

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        rows = self._source.rows(first, last)
        statistics = (self._mean, self._variance, self._weight, self._bias)
        normed = functional.batch_norm(_wide(rows), *statistics, eps=self._eps)
        return self._activation(normed.to(rows.dtype))

    def _statistics(self, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of each channel's group, from strips' (Chan et al. 1979, equation 2).

        A batch norm computes those of a strip's channels in one pass, in float32.
        """
        one, zero = torch.ones_like(self._weight), torch.zeros_like(self._weight)
        weights, means, variances = [], [], []
        for first, last in self._source.strips():
            strip = _wide(self._source.rows(first, last))
            _, mean, deviation = torch.native_batch_norm(
                strip, one, zero, None, None, training=True, momentum=0.0, eps=self._eps
            )
            weights.append((last - first) / self.height)
            means.append(mean)
            variances.append(deviation.pow(-2) - self._eps)
        weight = torch.tensor(weights, device=one.device)[:, None, None]
        each = torch.stack(means).view(len(weights), groups, -1)
        whole = (each * weight).sum(0).mean(1)
        within = torch.stack(variances).view_as(each)
        spread = ((within + (each - whole[:, None]).square()) * weight).sum(0).mean(1)
        size = self.channels // groups
        return whole.repeat_interleave(size), spread.repeat_interleave(size)


def _wide(rows: torch.Tensor) -> torch.Tensor:
    """Rows that a batch norm takes beside statistics in float32: on MPS their dtype must agree."""
    return rows.float() if rows.device.type == "mps" else rows


class Sum(Map):
    """Two maps added up."""

    def __init__(self, first: Map, second: Map) -> None:
        self._first, self._second, self.channels = first, second, first.channels
        self.height, self.width = first.height, first.width

    def rows(self, first: int, last: int) -> torch.Tensor:  # noqa: D102 - as in `Map`
        return self._first.rows(first, last) + self._second.rows(first, last)


def stored(source: Map, over: Map | None = None) -> Stored:
    """A map as a whole; in the memory of `over`, which it reads, where that fits.

    A strip is written once the next one has been computed, which reads rows of it, and the first
    strip at the end, since the last one reads it where the map wraps around.
    """
    size = (1, source.channels, source.height, source.width)
    kept = over.tensor if isinstance(over, Stored) and over.tensor.shape == size else None
    waiting: list[tuple[int, int, torch.Tensor]] = []
    for first, last in source.strips():
        strip = source.rows(first, last)
        if kept is None:
            kept = torch.empty(
                size,
                dtype=strip.dtype,
                device=strip.device,
                memory_format=torch.channels_last,
            )
        waiting.append((first, last, strip))
        if len(waiting) > 2:
            _write(kept, *waiting.pop(1))
    assert kept is not None
    for each in waiting:
        _write(kept, *each)
    return Stored(kept)


def _write(kept: torch.Tensor, first: int, last: int, strip: torch.Tensor) -> None:
    kept[:, :, first:last] = strip
