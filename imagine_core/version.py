"""The version of the installed distribution."""

from __future__ import annotations

__all__ = [
    "version",
]

DISTRIBUTION = "imagine-sd"


def version() -> str:
    """Imagine's version, as `imagine --version` and `GET /version` show it."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"
