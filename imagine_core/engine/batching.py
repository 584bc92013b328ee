"""Decides how many rows share a forward and which batch key is next.

Rows of one forward cost less each than forwards of one row, up to a number that depends on the
device, the model and the picture's size. Past it, sharing only delays every job: with N equal jobs
and no gain in throughput, all finish at N*S instead of at (N+1)/2*S on average. So the engine
measures the number while it works.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

GAIN = 0.95
"""Doubling the rows must bring the time per row to at most this share of what it was."""

SAMPLES = 3
"""Forwards of a size that are timed before it is judged; the fastest counts, noise only adds."""

PATIENCE, LONGEST_PATIENCE = 32, 1024
"""Forwards for which a limit holds: at first, and at most after measuring has confirmed it.

Other load on the machine can distort all the samples of a size, and it changes.
"""

REMEMBERED = 256
"""Keys whose limits are kept."""


@dataclass(slots=True)
class RowLimit:
    """The most rows per forward that still lower the time per row, for one batch key.

    The limit starts at `first` and doubles while there is work to fill it and the larger size is
    cheaper per row. A settled limit is measured again after a while, which doubles each time that
    the limit is confirmed.
    """

    first: int = 2
    most: int = 32
    _limit: int = field(init=False)
    _verdict: int = field(init=False, default=0)
    _held: int = field(init=False, default=0)
    _patience: int = field(init=False, default=PATIENCE)
    _seen: dict[int, list[float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._limit = min(self.first, self.most)

    @property
    def rows(self) -> int:
        """The most rows that the next forward should take."""
        return self._limit

    def record(self, rows: int, seconds: float) -> None:
        """Record that a forward of `rows` rows took `seconds`."""
        limit = self._limit
        if not limit // 2 < rows <= limit:
            return
        if self._held:
            self._held -= 1
            if not self._held:
                self._measure_again()
            return
        times = self._seen.setdefault(limit, [])
        times.append(seconds / rows)
        if len(times) <= SAMPLES:  # the first of a size pays for allocations and kernel choice
            return
        best, before = min(times[1:]), self._seen.get(limit // 2)
        if before is not None and best > GAIN * min(before[1:]):
            self._settle(limit // 2)
        elif limit * 2 > self.most:
            self._settle(limit)
        else:
            self._limit = limit * 2

    def shrink(self, rows: int) -> None:
        """Never try `rows` rows again, which did not fit in memory."""
        self.most = max(1, min(self.most, rows // 2))
        self._settle(min(self._limit, self.most))

    def _settle(self, rows: int) -> None:
        right = rows == self._verdict
        self._patience = min(2 * self._patience, LONGEST_PATIENCE) if right else PATIENCE
        self._limit = self._verdict = rows
        self._held = self._patience

    def _measure_again(self) -> None:
        """Start one size below, since the limit may have been too high as well."""
        self._seen.clear()
        self._limit = min(max(self.first, self._limit // 2), self.most)


class RowLimits(dict[Hashable, RowLimit]):
    """The limit of each batch key, made on first access; the oldest are dropped.

    Args:
        rows: A fixed limit for all keys; None measures each.
    """

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, key: Hashable) -> RowLimit:
        """Make the limit of `key`."""
        while len(self) >= REMEMBERED:
            del self[next(iter(self))]
        rows = self._rows
        self[key] = RowLimit() if rows is None else RowLimit(first=rows, most=rows)
        return self[key]


class FairShare:
    """Picks the batch key that has used the device least.

    Start-time fair queueing (Goyal, Vin & Cheng 1996) with device seconds as the cost: a key that
    comes back after a pause starts level with the others, so that pauses earn no extra turns.
    """

    def __init__(self) -> None:
        self._used: dict[Hashable, float] = {}
        self._now = 0.0

    def pick(self, keys: Iterable[Hashable]) -> Hashable:
        """The key of `keys` that is next; the first of several that are level."""
        candidates = list(keys)
        for key in candidates:
            self._used[key] = max(self._used.get(key, self._now), self._now)
        chosen = min(candidates, key=lambda key: self._used[key])
        self._now = self._used[chosen]
        return chosen

    def charge(self, key: Hashable, seconds: float) -> None:
        """Add `seconds` of device time to `key`."""
        self._used[key] = self._used.get(key, self._now) + seconds

    def forget_all_but(self, keys: Iterable[Hashable]) -> None:
        """Drop the accounts of all other keys."""
        keep = set(keys)
        self._used = {key: used for key, used in self._used.items() if key in keep}
