"""The components of a model on disk: which tensors each wants, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.architectures import Architecture, Config
from imagine_plugins.loaders.configs import MIDDLE, ConfigError, Read, component_name
from imagine_plugins.loaders.header import Tensor
from imagine_plugins.loaders.layout import (
    Shape,
    Slot,
    clip_slots,
    openclip_slots,
    tiny_slots,
    unet_slots,
    vae_slots,
)

T = TypeVar("T")

TAKEN = ("lora", "embedding", "vae", "controlnet")
"""The kinds of what Stable Diffusion models take."""

FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}

# What `unet_slots` takes for granted; a UNet that differs is checked while it is loaded.
UNET_VARIANTS = {
    "resnet_time_scale_shift": "default",
    "dual_cross_attention": False,
    "reverse_transformer_layers_per_block": None,
    "attention_type": "default",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "time_embedding_act_fn": None,
    "encoder_hid_dim": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file."""

    path: Path
    tensor: Tensor


class Piece(NamedTuple):
    """Rows of a stored tensor that are rows of a parameter.

    Attributes:
        key: The tensor's name.
        start, stop: The rows, the latter excluded; None for all that there are from `start` on.
        transposed: Whether rows and columns are the other way round in the file; then all of it.
    """

    key: str
    start: int = 0
    stop: int | None = None
    transposed: bool = False


Weights = Mapping[str, Stored]
"""Tensors by the name that the slots know them under, whatever the file calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a model: a UNet, an autoencoder or a text encoder.

    Attributes:
        title: What error messages call it.
        slots: The tensors that fill it; None where names are the parameters' own.
        weights: The tensors that there are.
        prefix: What the file has before their names.
    """

    title: str
    slots: Sequence[Slot] | None
    weights: Weights
    prefix: str = ""

    @property
    def read(self) -> list[Stored]:
        """The tensors that fill it, whatever else there is."""
        keys = self.weights if self.slots is None else {slot.key for slot in self.slots}
        return [self.weights[key] for key in keys if key in self.weights]

    @property
    def problem(self) -> str | None:
        """What keeps the tensors from filling the slots, or None; looks at headers only."""
        missing = []
        for slot in self.slots or ():
            key, stored = f"{self.prefix}{slot.key}", self.weights.get(slot.key)
            if stored is None:
                missing.append(key)
            elif not same_shape(stored.tensor.shape, slot.shape):
                return (
                    f"tensor {key!r} has the shape {list(stored.tensor.shape)}, "
                    f"this architecture wants {list(slot.shape)}"
                )
            elif stored.tensor.dtype not in FLOATS:
                return f"tensor {key!r} holds {stored.tensor.dtype}: quantised weights"
        if not missing:
            return None
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"tensor {missing[0]!r}{more} missing: the file is damaged or was cut down"


Components = Mapping[str, Component]
"""Components by diffusers' names: "unet", "vae", "text_encoder", "text_encoder_2"."""


def same_shape(one: Shape, other: Shape) -> bool:
    """Whether shapes agree up to trailing ones: a 1x1 convolution is a matrix."""
    return _core(one) == _core(other)


def _core(shape: Shape) -> Shape:
    end = len(shape)
    while end > 1 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on disk, in one file or several, as its headers and configurations describe it.

    Attributes:
        architecture: Its configurations.
        components: Its tensors.
        read: Gives the files of its tokenizers.
        metadata: What it says of itself.
        vae: The VAE that its sidecar names, or None.
        defaults: What a request gets that does not say it.
    """

    architecture: Architecture
    components: Components
    read: Read
    metadata: Mapping[str, str] = field(default_factory=dict)
    vae: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def info(self, path: Path, *, name: str, loader: str) -> ModelInfo:
        """The model at `path` as it is listed."""
        plan = self.architecture
        weights = [stored for part in self.components.values() for stored in part.weights.values()]
        read = [stored.tensor for part in self.components.values() for stored in part.read]
        kinds: Counter[str] = Counter()
        for tensor in read:
            kinds[tensor.dtype] += prod(tensor.shape)
        return ModelInfo(
            name=name,
            path=path,
            loader=loader,
            family=f"{plan.family}-inpaint" if plan.inpainting else plan.family,
            size=sum(file.stat().st_size for file in {stored.path for stored in weights}),
            parameters=kinds.total(),
            dtype=FLOATS.get(max(kinds, key=kinds.__getitem__)),
            clip_layers=plan.clip_layers,
            recommended_size=plan.size,
            metadata=self.metadata,
            takes=(*TAKEN, *(("mask",) if plan.inpainting else ())),
            vae=self.vae,
            defaults=self.defaults,
        )


def component_slots(
    plan: Architecture, *, openclip: Container[int] = ()
) -> dict[str, list[Slot] | None]:
    """The tensors of each component by its folder's name; None where only loading can tell.

    Raises `ConfigError` where the configurations contradict themselves.

    Args:
        plan: The architecture.
        openclip: Numbers of the text encoders in OpenCLIP's layout; the others have Hugging Face's.
    """
    slots = {
        "unet": understood("unet", lambda: _unet_slots(plan.unet)),
        "vae": autoencoder_slots(plan.vae),
    }
    for number, part in enumerate(plan.texts):
        name = component_name("text_encoder", number)
        layout = openclip_slots if number in openclip else clip_slots
        filled = partial(layout, part.config, projection=part.projection)
        slots[name] = understood(name, lambda filled=filled: list(filled()))  # type: ignore[misc]
    return slots


def _unet_slots(config: Config) -> list[Slot] | None:
    return list(unet_slots(config)) if is_laid_out(config) else None


def autoencoder_slots(config: Config) -> list[Slot]:
    """The tensors of an autoencoder; raises `ConfigError` where they cannot be told."""
    layout = vae_slots if config["_class_name"] == "AutoencoderKL" else tiny_slots
    return understood("vae", lambda: list(layout(config)))


def is_laid_out(config: Config) -> bool:
    """Whether `unet_slots` knows all layers of a UNet."""
    down = [str(kind) for kind in config["down_block_types"]]
    up = [str(kind) for kind in config["up_block_types"]]
    return (
        all(config.get(name, value) == value for name, value in UNET_VARIANTS.items())
        and config.get("mid_block_type", MIDDLE) == MIDDLE
        and not isinstance(config["cross_attention_dim"], list)
        and set(down) <= {"CrossAttnDownBlock2D", "DownBlock2D"}
        and [kind.replace("Down", "Up") for kind in reversed(down)] == up
    )


def understood(component: str, compute: Callable[[], T]) -> T:
    """What `compute` makes of a configuration; raises `ConfigError` where that fails."""
    try:
        return compute()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"{component}/config.json is not understood ({error!r:.200})") from error


class Meter:
    """Tells `progress` which fraction of a model's bytes has been read, 0 .. 1."""

    def __init__(self, components: Components, progress: Callable[[float], object]) -> None:
        read = [stored.tensor for component in components.values() for stored in component.read]
        self._total = sum(tensor.end - tensor.start for tensor in read)
        self._progress = progress
        self._done = 0

    def __call__(self, size: int) -> None:
        """Count `size` more bytes as read."""
        self._done += size
        self._progress(min(1.0, self._done / max(1, self._total)))
