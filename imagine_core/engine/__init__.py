"""The engine: one loop that owns a device and steps everybody's pictures."""

from imagine_core.engine.engine import Engine, build_engine

__all__ = ["Engine", "build_engine"]
