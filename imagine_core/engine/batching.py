"""Which requests share a forward: how many rows pay, and whose turn it is.

Rows of one forward cost less each than forwards of one row, up to a number that depends on the
device, the model and the picture's size. Past it, sharing only makes everybody late: with N equal
jobs and no gain in throughput, all finish at N*S instead of at (N+1)/2*S on average. So the number
is measured while the engine works.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

GAIN = 0.95
"""Doubling the rows must bring the time per row to at most this share of what it was."""

SAMPLES = 2
"""Forwards of a size that are timed before it is judged; the fastest counts, noise only adds."""

REMEMBERED = 256
"""Keys whose limits are kept."""


@dataclass(slots=True)
class RowLimit:
    """The most rows of one forward that still pay, for one batch key.

    Sizes are tried in doublings, starting at `first`, and only when there is work to fill them: the
    limit moves on from a size once it has proved cheaper per row than the size before it.
    """

    first: int = 2
    most: int = 32
    _limit: int = field(init=False)
    _settled: bool = field(init=False, default=False)
    _seen: dict[int, list[float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._limit = min(self.first, self.most)

    @property
    def rows(self) -> int:
        """The most rows that the next forward should take."""
        return self._limit

    def record(self, rows: int, seconds: float) -> None:
        """A forward of `rows` rows took `seconds`."""
        limit = self._limit
        if self._settled or not limit // 2 < rows <= limit:
            return
        times = self._seen.setdefault(limit, [])
        times.append(seconds / rows)
        if len(times) <= SAMPLES:  # the first of a size pays for allocations and kernel choice
            return
        best, before = min(times[1:]), self._seen.get(limit // 2)
        if before is not None and best > GAIN * min(before[1:]):
            self._limit, self._settled = limit // 2, True
        elif limit * 2 > self.most:
            self._settled = True
        else:
            self._limit = limit * 2

    def shrink(self, rows: int) -> None:
        """`rows` rows did not fit in memory: never try as many again."""
        self._limit = max(1, min(self._limit, rows // 2))
        self._settled = True


class RowLimits(dict[Hashable, RowLimit]):
    """The limit of each batch key, made when it is first asked for; the oldest are forgotten.

    Args:
        rows: The limit of all keys where it is set by hand; None measures each.
    """

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, key: Hashable) -> RowLimit:
        """A new limit."""
        while len(self) >= REMEMBERED:
            del self[next(iter(self))]
        rows = self._rows
        self[key] = RowLimit() if rows is None else RowLimit(first=rows, most=rows)
        return self[key]


class FairShare:
    """Whose turn it is among batch keys: the one that has had the least of the device.

    Start-time fair queueing (Goyal, Vin & Cheng 1996) with device seconds as the cost: a key that
    comes back after a pause starts level with the others, so that nobody saves up turns.
    """

    def __init__(self) -> None:
        self._used: dict[Hashable, float] = {}
        self._now = 0.0

    def pick(self, keys: Iterable[Hashable]) -> Hashable:
        """The key of `keys` whose turn it is; the first of several that are level."""
        candidates = list(keys)
        for key in candidates:
            self._used[key] = max(self._used.get(key, self._now), self._now)
        chosen = min(candidates, key=lambda key: self._used[key])
        self._now = self._used[chosen]
        return chosen

    def charge(self, key: Hashable, seconds: float) -> None:
        """`key` has used the device for `seconds`."""
        self._used[key] = self._used.get(key, self._now) + seconds

    def forget_all_but(self, keys: Iterable[Hashable]) -> None:
        """Drop the accounts of keys that have no work left."""
        keep = set(keys)
        self._used = {key: used for key, used in self._used.items() if key in keep}
