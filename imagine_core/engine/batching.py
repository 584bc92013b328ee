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

SAMPLES = 3
"""Forwards of a size that are timed before it is judged; the fastest counts, noise only adds."""

PATIENCE, LONGEST_PATIENCE = 32, 1024
"""Forwards for which a verdict holds: at first, and at most after it has proved right repeatedly.

What else the machine does can spoil all the samples of a size, and it changes.
"""

REMEMBERED = 256
"""Keys whose limits are kept."""


@dataclass(slots=True)
class RowLimit:
    """The most rows of one forward that still pay, for one batch key.

    Sizes are tried in doublings, starting at `first`, and only when there is work to fill them: the
    limit moves on from a size once it has proved cheaper per row than the size before it. A verdict
    is put to the test again after a while, which doubles each time that it proves right.
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
        """A forward of `rows` rows took `seconds`."""
        limit = self._limit
        if not limit // 2 < rows <= limit:
            return
        if self._held:
            self._held -= 1
            if not self._held:
                self._begin_again()
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
        """`rows` rows did not fit in memory: never try as many again."""
        self.most = max(1, min(self.most, rows // 2))
        self._settle(min(self._limit, self.most))

    def _settle(self, rows: int) -> None:
        right = rows == self._verdict
        self._patience = min(2 * self._patience, LONGEST_PATIENCE) if right else PATIENCE
        self._limit = self._verdict = rows
        self._held = self._patience

    def _begin_again(self) -> None:
        """From one size below, for the verdict may have been too high as well."""
        self._seen.clear()
        self._limit = min(max(self.first, self._limit // 2), self.most)


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
