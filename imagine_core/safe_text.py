"""What an exception of somebody else's says, in words that may be sent to anybody."""

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
    """The kind of `error` and its first line; dots stand for paths, which tell of this machine.

    The whole of it is in the log, or in the trace that IMAGINE_DEBUG asks for.
    """
    kind = type(error).__name__
    first = str(error).strip().partition("\n")[0][:LONGEST]
    return f"{kind}: {PATH.sub('...', first)}" if first else kind
