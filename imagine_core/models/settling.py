"""Loads a model from a file that somebody may be replacing meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import DiffusionModel, ModelInfo
from imagine_core.models.catalogue import Stamp, has_changed, stamp_of

TRIES = 2
"""A file that was replaced is whole the second time; one that was not is still being written."""


def load_settled(
    info: ModelInfo, load: Callable[[ModelInfo], DiffusionModel]
) -> tuple[Stamp, DiffusionModel]:
    """The model, all of it from one version of its file, and that version's stamp.

    Raises:
        UnusableModel: It cannot be loaded, or its file changes all the time.
    """
    for _ in range(TRIES):
        stamp = stamp_of(info.path)
        try:
            model = load(info)
        except UnusableModel:
            if not has_changed(info.path, stamp):
                raise
            continue
        if not has_changed(info.path, stamp):
            return stamp, model
        model.close()
    raise UnusableModel(info.name, "its file is being written; ask again when it is whole")
