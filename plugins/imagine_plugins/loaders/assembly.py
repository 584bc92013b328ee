"""Puts a model together on a device from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from imagine_core.noise import VariancePreserving
from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.components import Checkpoint, Component, Meter
from imagine_plugins.loaders.configs import component_name
from imagine_plugins.loaders.tokenizers import tokenizer
from imagine_plugins.loaders.weights import build

if TYPE_CHECKING:
    import torch

    from imagine_core.interfaces import Device
    from imagine_core.models.hashing import FileHash
    from imagine_plugins.loaders.autoencoder import Autoencoder
    from imagine_plugins.loaders.stable_diffusion import StableDiffusion
    from imagine_plugins.loaders.text import TextEncoder


def assemble(
    checkpoint: Checkpoint,
    *,
    device: Device,
    full_precision: bool,
    progress: Callable[[float], object] = id,
    file_hash: FileHash | None = None,
) -> StableDiffusion:
    """Load every component of a model onto the device.

    Args:
        checkpoint: The model.
        device: Where it goes.
        full_precision: Whether it computes in float32 whatever the device prefers.
        progress: Called with how much of it is read, 0 .. 1.
        file_hash: Computes the checkpoint's hash; None for a folder.
    """
    import torch

    from imagine_plugins.loaders.adapters.modules import layers_of
    from imagine_plugins.loaders.adapters.rows import Rows
    from imagine_plugins.loaders.stable_diffusion import StableDiffusion, StableDiffusionXL

    plan = checkpoint.architecture
    dtype = torch.float32 if full_precision else device.dtype()
    parts = _Parts(checkpoint, device, dtype, progress)
    texts = [parts.text(number) for number in range(len(plan.texts))]
    unet = parts.unet()
    networks = {component_name("text_encoder", n): text.model for n, text in enumerate(texts)}
    kind: Callable[..., StableDiffusion] = StableDiffusion
    if len(texts) > 1:
        zero = plan.zero_empty_prompt
        kind = partial(StableDiffusionXL, second=texts[1], zero_empty_prompt=zero)
    return kind(
        unet=unet,
        autoencoder=parts.autoencoder(),
        text=texts[0],
        noise=VariancePreserving(plan.scheduler),
        rows=Rows(layers_of(plan), {"unet": unet, **networks}),
        file_hash=None if file_hash is None else file_hash.start(),
    )


def autoencoder_network(
    config: Config,
    component: Component,
    *,
    device: Device,
    dtype: torch.dtype,
    meter: Callable[[int], object] = id,
) -> Any:
    """An AutoencoderKL or AutoencoderTiny on the device, in `dtype`.

    Its `encoder` is None where the slots of the component have none.
    """
    import diffusers
    import torch

    kind = getattr(diffusers, config["_class_name"])
    # AutoencoderTiny saves entries that it does not take itself, and diffusers warns of them.
    known = inspect.signature(kind.__init__).parameters
    taken = {key: config[key] for key in config if key in known}

    def create() -> Any:
        network = kind.from_config(taken)
        if not any(slot.key.startswith("encoder.") for slot in component.slots or ()):
            network.encoder = None
        return network

    network = build(create, component, dtype=dtype, device=device.torch_device(), meter=meter)
    return network.to(memory_format=torch.channels_last)


class _Parts:
    """Loads the components of a checkpoint, one at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: Device,
        dtype: torch.dtype,
        progress: Callable[[float], object],
    ) -> None:
        self._checkpoint = checkpoint
        self._plan = checkpoint.architecture
        self._device = device
        self._dtype = dtype
        self._meter = Meter(checkpoint.components, progress)

    def unet(self) -> Any:
        from diffusers import UNet2DConditionModel

        config = dict(self._plan.unet)
        return self._build("unet", lambda: UNet2DConditionModel.from_config(config), self._dtype)

    def autoencoder(self) -> Autoencoder:
        import torch

        from imagine_plugins.loaders.autoencoder import Autoencoder
        from imagine_plugins.loaders.network import Network

        config = self._plan.vae
        dtype = self._device.vae_dtype(self._dtype)
        if dtype == torch.float16 and config["force_upcast"]:
            dtype = torch.float32  # SDXL's autoencoder overflows in half precision
        component = self._checkpoint.components["vae"]
        network = autoencoder_network(
            config, component, device=self._device, dtype=dtype, meter=self._meter
        )
        return Autoencoder(Network(model=network, free=self._device.free_memory))

    def text(self, number: int) -> TextEncoder:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        from imagine_plugins.loaders.text import TextEncoder

        part = self._plan.texts[number]
        kind = CLIPTextModelWithProjection if part.projection else CLIPTextModel
        name = component_name("text_encoder", number)
        model = self._build(name, lambda: kind(CLIPTextConfig(**part.config)), self._dtype)
        several = len(self._plan.texts) > 1
        return TextEncoder(
            model,
            tokenizer(part, self._checkpoint.read, component_name("tokenizer", number)),
            first_layer=2 if several else 1,
            normalise=not several,
        )

    def _build(self, name: str, create: Callable[[], Any], dtype: torch.dtype) -> Any:
        return build(
            create,
            self._checkpoint.components[name],
            dtype=dtype,
            device=self._device.torch_device(),
            meter=self._meter,
        )
