"""Rules that plugins keep: which one is broken, how, and where it is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeVar

PAGE = "docs/conformance.md"
NONE: Mapping[str, str] = MappingProxyType({})
T = TypeVar("T")


class BrokenRule(AssertionError):
    """A plugin does not do what plugins of its kind do.

    Attributes:
        rule: The rule's name: its heading in docs/conformance.md.
    """

    def __init__(self, subject: str, rule: str, problem: str) -> None:
        self.rule = rule
        super().__init__(f"{subject} breaks the rule {rule!r}: {problem} (see {PAGE}#{rule})")


def hold(
    subject: str,
    rules: Iterable[tuple[str, Callable[[T], None]]],
    to: T,
    *,
    excused: Mapping[str, str] = NONE,
) -> None:
    """Hold a subject to rules, each with the check that raises if it is broken.

    Args:
        subject: What is checked: "sampler 'rk4'".
        rules: Names and checks, in order: one may rely on those before it.
        to: What the checks are given.
        excused: Rules that need not be kept, and why. Each must be one of `rules`, and broken: an
            excuse that is not needed would hide the day on which it is.
    """
    known = dict(rules)
    for name in excused:
        assert name in known, f"there is no rule {name!r}; known: {', '.join(known)}"
    for name, check in known.items():
        try:
            with rule(subject, name):
                check(to)
        except BrokenRule:
            if name not in excused:
                raise
        else:
            assert name not in excused, f"{subject} is excused from {name!r}, but keeps it"


@contextmanager
def rule(subject: str, name: str) -> Iterator[None]:
    """Whatever goes wrong in here breaks the rule `name`."""
    try:
        yield
    except AssertionError as error:
        raise BrokenRule(subject, name, str(error) or "an assertion in it failed") from error
    except Exception as error:  # a stranger's code
        raise BrokenRule(subject, name, f"it raised {type(error).__name__}: {error}") from error
