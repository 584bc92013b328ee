"""A foreign exception's text is passed on without its file paths."""

from __future__ import annotations

import pytest

from imagine_core.safe_text import LONGEST, quoted


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("seven"), "ZeroDivisionError: seven"),
        (TimeoutError(), "TimeoutError"),
        (
            FileNotFoundError(2, "No such file or directory", "/home/anna/my models/a.bin"),
            "FileNotFoundError: [Errno 2] No such file or directory: ...",
        ),
        (OSError("cannot open ~/models/a.bin, sorry"), "OSError: cannot open ... sorry"),
        (OSError("cannot open:/srv/a.bin"), "OSError: cannot open:..."),
        (OSError("see file:///srv/a.bin"), "OSError: see file:..."),
        (OSError(r"no C:\models\a.bin here"), "OSError: no ... here"),
        (OSError(r"no \\nas\models here"), "OSError: no ... here"),
        (ValueError("1/2 of a / b and/or c"), "ValueError: 1/2 of a / b and/or c"),
        (
            ValueError("ask http://localhost:11434/api"),
            "ValueError: ask http://localhost:11434/api",
        ),
        (
            RuntimeError('a worker failed\nTraceback (most recent call last):\n  File "x.py"'),
            "RuntimeError: a worker failed",
        ),
    ],
)
def test_an_error_is_its_kind_and_its_first_line_without_paths(error: Exception, said: str) -> None:
    assert quoted(error) == said


def test_a_text_without_end_is_cut() -> None:
    assert len(quoted(ValueError("x" * 10**6))) == len("ValueError: ") + LONGEST
