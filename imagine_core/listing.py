"""Describes upscalers and preprocessors for lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagine_core.models.catalogue import Catalogue
    from imagine_core.plugins import Plugins

__all__ = [
    "preprocessor_details",
    "upscaler_details",
]


def upscaler_details(plugins: Plugins, catalogue: Catalogue) -> list[dict[str, Any]]:
    """What lists say of each upscaler: of those that need no file, then of the files.

    A "factor" of None stands for any.
    """
    registered = [
        {
            "name": spec.name,
            "label": spec.label,
            "aliases": list(spec.aliases),
            "factor": None,
            "architecture": None,
            "problem": None,
            "plugin": plugins.upscalers.plugin_of(spec.name),
        }
        for spec in sorted(plugins.upscalers, key=lambda spec: spec.name)
    ]
    files = [
        {
            "name": info.name,
            "label": info.name,
            "aliases": [],
            "factor": info.details.get("factor"),
            "architecture": info.details.get("architecture"),
            "problem": info.problem,
            "plugin": None,
        }
        for info in catalogue.models("upscaler")
    ]
    return registered + files


def preprocessor_details(plugins: Plugins) -> list[dict[str, Any]]:
    """What lists say of each preprocessor."""
    return [
        {
            "name": each.name,
            "label": each.label,
            "aliases": list(each.aliases),
            "problem": each.unavailable(),
            "plugin": plugins.preprocessors.plugin_of(each.name),
        }
        for each in sorted(plugins.preprocessors, key=lambda each: each.name)
    ]
