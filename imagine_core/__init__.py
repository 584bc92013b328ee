"""Imagine's core: the nouns and the loop. Everything that has a name is a plugin."""

from imagine_core.errors import ImagineError
from imagine_core.hookspecs import hookimpl
from imagine_core.interfaces import (
    Conditioning,
    Device,
    DiffusionModel,
    Enhancement,
    Enhancer,
    EnhanceTask,
    Evaluation,
    ModelInfo,
    ModelLoader,
    SamplerSpec,
    Sampling,
    SamplingTask,
)
from imagine_core.types import (
    GeneratedImage,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    PhaseEvent,
    StepEvent,
)

__all__ = [
    "Conditioning",
    "Device",
    "DiffusionModel",
    "EnhanceTask",
    "Enhancement",
    "Enhancer",
    "Evaluation",
    "GeneratedImage",
    "GenerationEvent",
    "GenerationRequest",
    "GenerationResult",
    "ImagineError",
    "ModelInfo",
    "ModelLoader",
    "PhaseEvent",
    "SamplerSpec",
    "Sampling",
    "SamplingTask",
    "StepEvent",
    "hookimpl",
]
