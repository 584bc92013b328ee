"""Makes the messages of foreign exceptions safe to send to clients."""

from __future__ import annotations

import re

__all__ = [
    "quoted",
]

LONGEST = 300

PATH = re.compile(
    r"""
      (?P<quote>['"]) (?:~|[A-Za-z]:)? [/\\] .*? (?P=quote)   # in quotes, with spaces
    | (?<!\w) [A-Za-z]: [/\\] [^\s'"]+                        # C:\models
    | \\\\ [^\s'"]+                                           # \\server\models
    | (?<![\w./~]) (?! (?<=:) //[^/] ) ~? / [^\s'"]+          # /models, ~/models; no https://...
    """,
    re.VERBOSE,
)


def quoted(error: BaseException) -> str:
    """The type of `error` and its first line, with dots for paths, which reveal this machine.

    The whole error is in the log, or in the traceback that IMAGINE_DEBUG enables.
    """
    kind = type(error).__name__
    first = str(error).strip().partition("\n")[0][:LONGEST]
    return f"{kind}: {PATH.sub('...', first)}" if first else kind
