"""APIs of the server that other programs know."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "HttpApi",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpApi:
    """An API of the server that other programs know; `imagine serve` prints what to enter there.

    Attributes:
        name: Its name: "OpenAI API".
        path: What follows the server's address: "/v1".
        programs: Programs that draw through it.
        key: What to enter for the key of a server that has one.
        no_key: What to enter where it has none.
    """

    name: str
    path: str
    programs: tuple[str, ...]
    key: str
    no_key: str
