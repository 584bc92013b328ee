"""Puts a model together from an architecture, weights and a device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagine_core.sampling import NoiseModel
from imagine_plugins.loaders.configs import Read, component_name
from imagine_plugins.loaders.counting import Meter
from imagine_plugins.loaders.tokenizers import tokenizer
from imagine_plugins.loaders.weights import Weights, build

if TYPE_CHECKING:
    import torch

    from imagine_core.interfaces import Device
    from imagine_plugins.loaders.architectures import Architecture
    from imagine_plugins.loaders.autoencoder import Autoencoder
    from imagine_plugins.loaders.hashing import FileHash
    from imagine_plugins.loaders.layout import Slot
    from imagine_plugins.loaders.stable_diffusion import StableDiffusion
    from imagine_plugins.loaders.text import TextEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a model is made from.

    Attributes:
        architecture: Its configurations.
        slots: The tensors of each component; None where names are the parameters' own.
        weights: The stored tensors of each component.
        read: Gives the files of its tokenizers.
        file_hash: Computes the checkpoint's hash; None for a folder.
        progress: Called with how much of it is read, 0 .. 1.
    """

    architecture: Architecture
    slots: Mapping[str, Sequence[Slot] | None]
    weights: Mapping[str, Weights]
    read: Read
    file_hash: FileHash | None = None
    progress: Callable[[float], object] = id


def assemble(source: Source, *, device: Device, full_precision: bool) -> StableDiffusion:
    """Load every component of a model onto the device."""
    import torch

    from imagine_plugins.loaders.stable_diffusion import StableDiffusion, StableDiffusionXL

    dtype = torch.float32 if full_precision else device.dtype()
    plan = source.architecture
    meter = Meter(source.slots, source.weights, source.progress)
    texts = [
        _text(source, number, dtype=dtype, device=device, meter=meter)
        for number in range(len(plan.texts))
    ]
    options: dict[str, Any] = {
        "unet": _unet(source, dtype=dtype, device=device, meter=meter),
        "autoencoder": _autoencoder(source, dtype=dtype, device=device, meter=meter),
        "text": texts[0],
        "noise": NoiseModel(plan.scheduler),
        "file_hash": None if source.file_hash is None else source.file_hash.start(),
    }
    if len(texts) == 1:
        return StableDiffusion(**options)
    return StableDiffusionXL(second=texts[1], zero_empty_prompt=plan.zero_empty_prompt, **options)


def _unet(source: Source, *, dtype: torch.dtype, device: Device, meter: Meter) -> Any:
    from diffusers import UNet2DConditionModel

    config = source.architecture.unet
    return build(
        lambda: UNet2DConditionModel.from_config(dict(config)),
        source.slots["unet"],
        source.weights["unet"],
        dtype=dtype,
        device=device.torch_device(),
        meter=meter,
    )


def _autoencoder(
    source: Source, *, dtype: torch.dtype, device: Device, meter: Meter
) -> Autoencoder:
    import diffusers
    import torch

    from imagine_plugins.loaders.autoencoder import Autoencoder

    config = source.architecture.vae
    dtype = device.vae_dtype(dtype)
    if dtype == torch.float16 and config["force_upcast"]:
        dtype = torch.float32  # SDXL's autoencoder overflows in half precision
    kind = getattr(diffusers, config["_class_name"])
    # AutoencoderTiny saves entries that it does not take itself, and diffusers warns of them.
    known = inspect.signature(kind.__init__).parameters
    model = build(
        lambda: kind.from_config({key: config[key] for key in config if key in known}),
        source.slots["vae"],
        source.weights["vae"],
        dtype=dtype,
        device=device.torch_device(),
        meter=meter,
    )
    return Autoencoder(model.to(memory_format=torch.channels_last))


def _text(
    source: Source, number: int, *, dtype: torch.dtype, device: Device, meter: Meter
) -> TextEncoder:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from imagine_plugins.loaders.text import TextEncoder

    part = source.architecture.texts[number]
    name = component_name("text_encoder", number)
    kind = CLIPTextModelWithProjection if part.projection else CLIPTextModel
    model = build(
        lambda: kind(CLIPTextConfig(**part.config)),
        source.slots[name],
        source.weights[name],
        dtype=dtype,
        device=device.torch_device(),
        meter=meter,
    )
    several = len(source.architecture.texts) > 1
    return TextEncoder(
        model,
        tokenizer(part, source.read, component_name("tokenizer", number)),
        first_layer=2 if several else 1,
        normalise=not several,
    )
