"""Finds the scales of files that have them beside their tensors, as PEFT and diffusers write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imagine_plugins.loaders.adapters.modules import Target
from imagine_plugins.loaders.header import Header

METADATA = "lora_adapter_metadata"  # diffusers: PEFT's configurations as JSON, by component
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's own files
CONFIG_LIMIT = 2**20
WILD = frozenset("*+?()[]{}|^$\\")


class Scales:
    """The scales that a file's configurations have for ranks."""

    def __init__(self, header: Header, path: Path) -> None:
        self._configs = _from_metadata(header) or _from_folder(path)

    def of(self, target: Target) -> Callable[[int | None], float | None]:
        """The scale of a module for its rank: None where nothing is said.

        Without a rank, where both factors of a LoKr are whole, PEFT divides by the one it was
        asked for.
        """
        config = self._configs.get(target.component, self._configs.get("", {}))
        alpha = _of(config, "alpha_pattern", target.module, "lora_alpha", "alpha")
        asked = _of(config, "rank_pattern", target.module, "r")

        def scale(rank: int | None) -> float | None:
            by = asked if rank is None else rank
            if alpha is None or not by or by < 0:
                return None
            return alpha / (math.sqrt(by) if config.get("use_rslora") is True else by)

        return scale

    def unread(self) -> Iterator[str]:
        """Patterns of modules that are regular expressions, whose alphas are not applied."""
        for config in self._configs.values():
            patterns = _patterns(config, "alpha_pattern")
            yield from (pattern for pattern in patterns if WILD & set(pattern))


def _from_metadata(header: Header) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in _object(header.metadata.get(METADATA, "{}")).items():
        component, _, name = key.partition(".")
        found.setdefault(component, {})[name] = value
    return found


def _from_folder(path: Path) -> dict[str, dict[str, Any]]:
    beside = path.with_name(CONFIG)
    if path.name != WEIGHTS or not beside.is_file() or beside.stat().st_size > CONFIG_LIMIT:
        return {}
    return {"": _object(beside.read_text("utf-8", errors="replace"))}


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _of(config: Mapping[str, Any], patterns: str, module: str, *names: str) -> float | None:
    """A number for a module: its own, or the one for all, under the first name that is there."""
    for pattern, value in _patterns(config, patterns).items():
        if f".{module}".endswith(f".{pattern}") or f".{pattern}".endswith(f".{module}"):
            return _number(value)
    return next((_number(config[name]) for name in names if name in config), None)


def _patterns(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    patterns = config.get(name)
    return patterns if isinstance(patterns, dict) else {}


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond what a float holds
        return None
