"""Reads forms with files (multipart/form-data, RFC 7578) whose size is bounded already."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

from imagine_core.errors import MalformedBody

__all__ = [
    "Part",
    "read_form",
]

MOST_PARTS = 200

# The parser warns in the log of bodies that the client is told about.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Part(NamedTuple):
    """A field of a form.

    Attributes:
        name: Its name.
        value: Its bytes.
        is_file: Whether it has a file name.
    """

    name: str
    value: bytes
    is_file: bool

    def text(self) -> str:
        """Its value as text; raises `MalformedBody` if it is not UTF-8."""
        try:
            return self.value.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedBody(f"the field {self.name[:100]!r} is not UTF-8") from None


def read_form(body: bytes, content_type: str) -> list[Part]:
    """The fields of a form, in the order of `body`.

    Args:
        body: The whole body.
        content_type: Its Content-Type, which has the boundary.

    Raises:
        MalformedBody: It is no form, ends too early, or has more than `MOST_PARTS` fields.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedBody("the body must be a form: multipart/form-data with a boundary")
    reading = _Reading()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reading.begin,
                "on_header_field": reading.header_name,
                "on_header_value": reading.header_value,
                "on_header_end": reading.header_end,
                "on_part_data": reading.data,
                "on_part_end": reading.end,
                "on_end": reading.finish,
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise MalformedBody(f"the body is no form: {error}") from None
    if not reading.finished:
        raise MalformedBody("the body is no whole form: its end is missing")
    return reading.parts


@dataclass(slots=True)
class _Reading:
    """The parts that the parser has found so far; it gives `bytes` and two positions in them."""

    parts: list[Part] = field(default_factory=list)
    finished: bool = False
    _headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)

    def begin(self) -> None:
        """A part begins."""
        if len(self.parts) >= MOST_PARTS:
            raise MalformedBody(f"the form has more than {MOST_PARTS} fields")
        self._headers, self._data = [], bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """A header is complete."""
        self._headers.append((bytes(self._name).lower(), bytes(self._value)))
        self._name.clear()
        self._value.clear()

    def data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a value."""
        self._data += data[start:end]

    def end(self) -> None:
        """A part is complete."""
        from python_multipart.multipart import parse_options_header

        for name, value in self._headers:
            if name == b"content-disposition":
                options = parse_options_header(value)[1]
                if b"name" in options:
                    label = options[b"name"].decode("utf-8", "replace")
                    self.parts.append(Part(label, bytes(self._data), b"filename" in options))
                    return
        raise MalformedBody("a field of the form has no name")

    def finish(self) -> None:
        """The form is complete."""
        self.finished = True
