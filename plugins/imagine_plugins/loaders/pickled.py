"""Reads what a pickle of `torch.save` describes, without running anything that it names.

A pickle is a program. The interpreter here knows the instructions that `torch.save` writes, and
makes of them dictionaries, lists, tuples, texts, numbers, tensors' places, and nothing else: what
the pickle would call stays a name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DICTIONARIES = frozenset(("collections.OrderedDict", "collections.defaultdict"))
TENSORS = frozenset(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"))
PARAMETER = "torch._utils._rebuild_parameter"


class PickleError(Exception):
    """The pickle is damaged, or uses what `torch.save` does not write."""


@dataclass(frozen=True, slots=True)
class Named:
    """A class or a function that a pickle names, or whatever came of calling it."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in a row.

    Attributes:
        kind: Their class: "FloatStorage".
        key: What the container calls them.
        count: How many there are.
        is_view: Whether they are a part of other numbers, as files before torch 1.6 may have it.
    """

    kind: str
    key: str
    count: int
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor: which of the numbers of a storage it has, in units of numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(data: bytes, start: int = 0) -> tuple[Any, int]:
    """What the pickle that begins at `start` describes, and where it ends.

    Raises:
        PickleError: It is damaged, or no pickle of `torch.save`.
    """
    reader = _Reader(data, start)
    try:
        return reader.run(), reader.at
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise PickleError("its pickle is damaged") from error


class _Reader:
    """The stack machine of pickles (Python's pickletools describe it), protocols 2 to 4."""

    def __init__(self, data: bytes, start: int) -> None:
        self.at = start
        self._data = data
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow the instructions up to the last one."""
        while True:
            code = self._take(1)
            if code == b".":
                return self._stack.pop()
            step = STEPS.get(code)
            if step is None:
                raise PickleError(f"its pickle uses the instruction {code!r}")
            step(self)

    # -- reading ---------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if not self.at <= end <= len(self._data):
            raise PickleError("its pickle ends too early")
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def number(self, layout: str) -> Any:
        """The next number, in one of the layouts of `struct`."""
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def push_number(self, layout: str) -> None:
        """Push the next number."""
        self._stack.append(self.number(layout))

    def push_text(self, layout: str) -> None:
        """Push the next text, whose length comes first."""
        self._stack.append(self._take(self.number(layout)).decode("utf-8", "replace"))

    def push_long(self) -> None:
        """Push the next number of up to 255 bytes."""
        self._stack.append(int.from_bytes(self._take(self.number("<B")), "little", signed=True))

    def push_global(self) -> None:
        """Push the name of a class or a function, which ends with two lines."""
        names = []
        for _ in range(2):
            end = self._data.index(b"\n", self.at, self.at + 1000)
            names.append(self._take(end - self.at).decode("utf-8", "replace"))
            self._take(1)
        self._stack.append(Named(".".join(names)))

    def push_stack_global(self) -> None:
        """Push the name of a class or a function, whose parts are on the stack."""
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(Named(f"{module:.500}.{name:.500}"))

    def push(self, value: object) -> None:
        """Push a value."""
        self._stack.append(value)

    # -- memory ----------------------------------------------------------------------------

    def put(self, layout: str) -> None:
        """Remember the top of the stack."""
        self._memo[self.number(layout)] = self._stack[-1]

    def memoise(self) -> None:
        """Remember the top of the stack under the next number."""
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, layout: str) -> None:
        """Push what was remembered."""
        self._stack.append(self._memo[self.number(layout)])

    # -- containers ------------------------------------------------------------------------

    def mark(self) -> None:
        """Remember how high the stack is."""
        self._marks.append(len(self._stack))

    def marked(self) -> list[Any]:
        """Pop all since the last mark."""
        start = self._marks.pop()
        taken, self._stack[start:] = self._stack[start:], []
        return taken

    def popped(self, count: int) -> list[Any]:
        """Pop the last `count` values."""
        start = len(self._stack) - count
        if start < 0:
            raise IndexError
        taken, self._stack[start:] = self._stack[start:], []
        return taken

    def tuple_of(self, count: int) -> None:
        """Replace the last `count` values by a tuple of them."""
        self._stack.append(tuple(self.popped(count)))

    def extend(self, values: list[Any]) -> None:
        """Add to the list on top."""
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        """Add keys and values to the dictionary on top; other keys than texts are left out."""
        if isinstance(into := self._stack[-1], dict):
            pairs = zip(values[::2], values[1::2], strict=True)
            into.update({key: value for key, value in pairs if isinstance(key, str | int)})

    # -- calls -----------------------------------------------------------------------------

    def call(self) -> None:
        """Replace a function and its arguments by what it would give, where that is known."""
        arguments, function = self._stack.pop(), self._stack.pop()
        name = function.name if isinstance(function, Named) else "?"
        if name in DICTIONARIES:
            self._stack.append({})
        elif name in TENSORS:
            storage, offset, shape, stride = arguments[:4]
            self._stack.append(_tensor(storage, offset, shape, stride))
        elif name == PARAMETER:
            self._stack.append(arguments[0])
        else:
            self._stack.append(Named(name))

    def build(self) -> None:
        """Leave out what an object would be given beside its contents."""
        self._stack.pop()

    def persistent(self) -> None:
        """Replace a storage's description by the storage."""
        match self._stack.pop():
            case ("storage", Named(name), str(key), str(), int(count), *rest):
                kind = name.rpartition(".")[2]
                self._stack.append(Storage(kind, key, count, is_view=any(rest)))
            case _:
                self._stack.append(Named("?"))


def _tensor(storage: object, offset: object, shape: object, stride: object) -> StoredTensor | Named:
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        return Named("?")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise TypeError
    if not all(isinstance(each, int) for each in (*shape, *stride)):
        raise TypeError
    return StoredTensor(storage, offset, shape, stride)


STEPS: Mapping[bytes, Callable[[_Reader], object]] = {
    b"\x80": lambda reader: reader.number("<B"),  # the protocol
    b"\x95": lambda reader: reader.number("<Q"),  # a frame, which holds what follows
    b"(": _Reader.mark,
    b"0": lambda reader: reader.build(),  # drops the top
    b"N": lambda reader: reader.push(None),
    b"\x88": lambda reader: reader.push(True),  # noqa: FBT003 - the instruction's own value
    b"\x89": lambda reader: reader.push(False),  # noqa: FBT003
    b"J": lambda reader: reader.push_number("<i"),
    b"K": lambda reader: reader.push_number("<B"),
    b"M": lambda reader: reader.push_number("<H"),
    b"G": lambda reader: reader.push_number(">d"),
    b"\x8a": _Reader.push_long,
    b"X": lambda reader: reader.push_text("<I"),
    b"T": lambda reader: reader.push_text("<I"),
    b"B": lambda reader: reader.push_text("<I"),
    b"\x8c": lambda reader: reader.push_text("<B"),
    b"U": lambda reader: reader.push_text("<B"),
    b"C": lambda reader: reader.push_text("<B"),
    b"c": _Reader.push_global,
    b"\x93": _Reader.push_stack_global,
    b"}": lambda reader: reader.push({}),
    b"]": lambda reader: reader.push([]),
    b")": lambda reader: reader.push(()),
    b"t": lambda reader: reader.push(tuple(reader.marked())),
    b"\x85": lambda reader: reader.tuple_of(1),
    b"\x86": lambda reader: reader.tuple_of(2),
    b"\x87": lambda reader: reader.tuple_of(3),
    b"a": lambda reader: reader.extend(reader.popped(1)),
    b"e": lambda reader: reader.extend(reader.marked()),
    b"s": lambda reader: reader.update(reader.popped(2)),
    b"u": lambda reader: reader.update(reader.marked()),
    b"q": lambda reader: reader.put("<B"),
    b"r": lambda reader: reader.put("<I"),
    b"\x94": _Reader.memoise,
    b"h": lambda reader: reader.get("<B"),
    b"j": lambda reader: reader.get("<I"),
    b"R": _Reader.call,
    b"\x81": _Reader.call,
    b"b": _Reader.build,
    b"Q": _Reader.persistent,
}
"""What each instruction does."""
