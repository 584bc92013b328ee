"""The engine: one loop that owns a device and steps the pictures of all callers."""

from imagine_core.engine.engine import Engine, build_engine

__all__ = ["Engine", "build_engine"]
