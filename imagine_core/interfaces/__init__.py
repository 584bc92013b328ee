"""What plugins implement, a module for each kind."""

from imagine_core.interfaces.apis import HttpApi
from imagine_core.interfaces.devices import Device
from imagine_core.interfaces.enhancers import Enhancement, Enhancer, EnhanceTask
from imagine_core.interfaces.models import (
    Changeable,
    Conditioning,
    DiffusionModel,
    Maskable,
    ModelInfo,
    ModelLoader,
    Sized,
)
from imagine_core.interfaces.pictures import Preprocessor, UpscalerSpec
from imagine_core.interfaces.samplers import (
    Evaluation,
    SamplerSpec,
    Sampling,
    SamplingTask,
    steps_to_run,
)

__all__ = [
    "Changeable",
    "Conditioning",
    "Device",
    "DiffusionModel",
    "EnhanceTask",
    "Enhancement",
    "Enhancer",
    "Evaluation",
    "HttpApi",
    "Maskable",
    "ModelInfo",
    "ModelLoader",
    "Preprocessor",
    "SamplerSpec",
    "Sampling",
    "SamplingTask",
    "Sized",
    "UpscalerSpec",
    "steps_to_run",
]
