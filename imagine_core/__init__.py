"""Imagine's core: the nouns and the loop. Everything that has a name is a plugin."""

TYPE_CHECKING = False  # typing's own costs an import; see `__getattr__`
if TYPE_CHECKING:
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
        HttpApi,
        ModelInfo,
        ModelLoader,
        Preprocessor,
        SamplerSpec,
        Sampling,
        SamplingTask,
        UpscalerSpec,
    )
    from imagine_core.types import (
        GeneratedImage,
        Generation,
        GenerationEvent,
        GenerationRequest,
        GenerationResult,
        PhaseEvent,
        ResolvedRequest,
        StepEvent,
        UpscaleRequest,
        UpscaleResult,
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
    "Generation",
    "GenerationEvent",
    "GenerationRequest",
    "GenerationResult",
    "HttpApi",
    "ImagineError",
    "ModelInfo",
    "ModelLoader",
    "PhaseEvent",
    "Preprocessor",
    "ResolvedRequest",
    "SamplerSpec",
    "Sampling",
    "SamplingTask",
    "StepEvent",
    "UpscaleRequest",
    "UpscaleResult",
    "UpscalerSpec",
    "hookimpl",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for.

        `imagine` imports this package before it handles Ctrl-C, so the import must be fast.
        """
        if name in __all__:
            from importlib import import_module

            for home in ("errors", "hookspecs", "interfaces", "types"):
                module = import_module(f"{__name__}.{home}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
