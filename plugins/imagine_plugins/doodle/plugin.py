"""doodle, the model inside the package: the first picture comes without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imagine_core import hookimpl


@hookimpl
def register_model_folders(register: Callable[[Path], None]) -> None:
    """Register the folder that holds doodle."""
    register(Path(__file__).parent / "models")
