"""Recognises VAEs by their headers: whose latents they turn into pictures, and by which network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagine_core.models.folders import KINDS, place_of
from imagine_plugins.loaders import configs
from imagine_plugins.loaders.architectures import SD1, SDXL, Config
from imagine_plugins.loaders.components import Component, Stored, autoencoder_slots
from imagine_plugins.loaders.flow.vaes import VAES, FlowVae
from imagine_plugins.loaders.header import Header, Tensor
from imagine_plugins.loaders.layout import VAE, Slot, own_names
from imagine_plugins.loaders.names import usual_names
from imagine_plugins.loaders.parameterization import read_values
from imagine_plugins.loaders.problems import ProblemError

OLD, XL = ("sd1", "sd2"), ("sdxl",)  # the families that share the meaning of latents
CHANNELS = 4  # of a latent of these families
FLOW_CHANNELS = 16  # of FLUX.1's and SD3's, of which only the values differ
OLD_SCALE, XL_SCALE = SD1.vae["scaling_factor"], SDXL.vae["scaling_factor"]
ROUNDING = 1e-3  # of a scale in half precision
TINY = "AutoencoderTiny"
DIFFUSERS = "decoder.up_blocks.0.resnets.0.norm1.weight"  # as ComfyUI tells it
ROOTS = ("", VAE, "vae.")
# Where a latent enters; Wan's authors call it conv1, as those of Qwen-Image do.
ENDS = ("decoder.conv_in.weight", "decoder.layers.0.weight", "decoder.conv1.weight")
QUANT = ("quant_conv", "post_quant_conv")
INSIDE = (("encoder", "quant_conv"), ("decoder", "post_quant_conv"))  # where FLUX.2 has them
WAN = "decoder.middle.0.residual.0.gamma"
HALVES = (  # of TAESD as its author publishes them, by two tensors; the decoder's layer 0 is tanh
    ("1.weight", "3.conv.0.weight", "decoder."),
    ("0.weight", "1.conv.0.weight", "encoder."),
)
ORIGINAL_TINY = re.compile(r"(?:taesd_)?(encoder|decoder)\.(\d{1,3})\.(.+)", re.ASCII)
NAMED_FLOW = {
    "sd3": re.compile(r"sd[-_ ]?3|stable[-_ ]?diffusion[-_ ]?(?:v)?3|taesd3", re.IGNORECASE),
    "flux": re.compile(r"flux|(?<![a-z])ae(?![a-z])|z[-_ ]?image|chroma|taef1", re.IGNORECASE),
}
NOT_YET = "this is {}, which is recognised, but cannot be used yet"
NAMED_XL = re.compile(r"(?i:sdxl|vae[_-]?xl|(?<![a-z])xl)|(?<=[a-z])XL")
ENCODER_ALONE = (
    "this is the encoder of a TAESD alone, which makes no pictures; take its decoder "
    "(taesd_decoder), or the file that has both"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeFile:
    """A VAE as its header and its configuration describe it.

    Attributes:
        config: The configuration of its network.
        component: Its tensors.
        fits: The families of the models whose latents it knows.
        problem: Why no model can use it yet, or None.
    """

    config: Config
    component: Component
    fits: tuple[str, ...]
    problem: str | None = None

    @property
    def family(self) -> str:
        """The first family that it is known to be for; "unknown" where that cannot be told."""
        known = (OLD, XL, *(vae.fits for vae in VAES.values()))
        return self.fits[0] if self.fits in known else "unknown"

    @property
    def is_tiny(self) -> bool:
        """Whether it is a TAESD."""
        return bool(self.config["_class_name"] == TINY)

    @property
    def encodes(self) -> bool:
        """Whether it turns pictures into latents, too."""
        slots = self.component.slots
        keys = self.component.weights if slots is None else (slot.key for slot in slots)
        return any(key.startswith("encoder.") for key in keys)


def vae_problem(header: Header) -> str | None:
    """Where a VAE belongs, or why no model can use it; None for a file that is none."""
    names = _names(header)
    if not names:
        return None
    try:
        _channels({usual: header.tensors[name] for usual, name in names.items()})
    except ProblemError as error:
        return str(error)
    small = " (a small one, TAESD)" if any(".layers." in name for name in names) else ""
    return f"{KINDS['vae']}{small}; it belongs {place_of('vae')}"


def vae_in_file(path: Path, header: Header) -> VaeFile:
    """The VAE in a file that is one; raises `ProblemError` where no model can use it."""
    weights = {usual: Stored(path, header.tensors[name]) for usual, name in _names(header).items()}
    config = configs.embedded(header.metadata).get("vae/config.json")
    if not isinstance(config, dict):
        config = None
    told = path.stem, header.metadata.get("modelspec.architecture", "").lower()
    scale = header.tensors.get("vae_scale")  # TAESDs for ComfyUI have that of their latents here
    scales = () if scale is None else read_values(path, scale)
    return vae_of(weights, config=config, told=told, scales=scales)


def vae_of(
    weights: Mapping[str, Stored],
    *,
    config: Config | None = None,
    told: Sequence[str] = (),
    scales: Sequence[float] = (),
) -> VaeFile:
    """The VAE that tensors are; raises `ProblemError` where no model can use it.

    Args:
        weights: Its tensors, by the names that `layout` has.
        config: Its configuration; None for that of Stable Diffusion's.
        told: Its name, and the architecture that its metadata says.
        scales: Of the latents that it was trained on, where something says it.
    """
    tensors = {name: stored.tensor for name, stored in weights.items()}
    if (other := _of_its_own(tensors, " ".join(told))) is not None:
        component = Component(title="VAE", slots=None, weights=weights)
        problem = NOT_YET.format(other.title)
        return VaeFile(
            config=config or other.config, component=component, fits=other.fits, problem=problem
        )
    channels = _channels(tensors)
    is_tiny = any(".layers." in name for name in weights)
    factor = (config or {}).get("scaling_factor")
    if factor == XL_SCALE or channels == FLOW_CHANNELS:  # converters write that of SD1 for any
        scales = [*scales, *([factor] if isinstance(factor, float) else [])]
    if channels == FLOW_CHANNELS:
        fits = _flow_fits(" ".join(told), scales)
        usual: Config = VAES["sd3" if fits == VAES["sd3"].fits else "flux"].config
        usual = {**usual, **{f"use_{name}": f"{name}.weight" in weights for name in QUANT}}
    else:
        fits = _fits(" ".join(told), scales, is_tiny=is_tiny)
        usual = (SDXL if fits == XL else SD1).vae
    if is_tiny:
        usual = {"_class_name": TINY, "latent_channels": channels}
    plan = configs.autoencoder(
        usual if config is None else config, TINY if is_tiny else "AutoencoderKL"
    )
    slots = autoencoder_slots(plan)
    if is_tiny and not any(name.startswith("encoder.") for name in weights):
        slots = [slot for slot in slots if slot.key.startswith("decoder.")]
    elif not is_tiny and DIFFUSERS in weights:
        slots = own_names(slots)
    return VaeFile(config=plan, component=_complete(slots, weights), fits=fits)


def _of_its_own(tensors: Mapping[str, Tensor], told: str) -> FlowVae | None:
    """The VAE of a kind of its own that tensors are, whatever their names; None for the usual."""
    entering = _entering(tensors)
    if entering is not None and len(entering.shape) == 5:
        if re.search(r"(?<![a-z])wan", told, re.IGNORECASE):
            raise ProblemError("this is the VAE of Wan video, which is not supported", family="vae")
        return VAES["qwen-image"]
    if entering is not None and entering.shape[1:2] == (VAES["flux2"].latent_channels,):
        return VAES["flux2"]
    return None


def _complete(slots: Sequence[Slot], weights: Mapping[str, Stored]) -> Component:
    component = Component(title="VAE", slots=slots, weights=weights)
    if component.problem is not None:
        raise ProblemError(component.problem, family="vae")
    return component


def _entering(tensors: Mapping[str, Tensor]) -> Tensor | None:
    return next((tensors[end] for end in ENDS if end in tensors), None)


def _channels(tensors: Mapping[str, Tensor]) -> int:
    """The channels of a VAE's latents; raises `ProblemError` where no model has so many."""
    entering = _entering(tensors)
    if entering is None:
        raise ProblemError(ENCODER_ALONE, family="vae")
    channels = entering.shape[1] if len(entering.shape) > 1 else 0
    known = {CHANNELS, *(vae.latent_channels for vae in VAES.values())}
    if channels not in known:
        raise ProblemError(
            f"this is a VAE for latents of {channels} channels, which is not supported; those of "
            f"the models that are have {', '.join(map(str, sorted(known)))}",
            family="vae",
        )
    return channels


def _flow_fits(told: str, scales: Sequence[float]) -> tuple[str, ...]:
    """As `_fits`, of 16 channels; shapes are the same, and the model has the scale."""
    for name in NAMED_FLOW:
        scale = VAES[name].config["scaling_factor"]
        if any(abs(other - scale) < ROUNDING for other in scales):
            return VAES[name].fits
    for name, named in NAMED_FLOW.items():
        if named.search(told):
            return VAES[name].fits
    return VAES["flux"].fits + VAES["sd3"].fits


def _fits(told: str, scales: Sequence[float], *, is_tiny: bool) -> tuple[str, ...]:
    """The families whose latents a VAE knows: all of them where nothing tells."""
    if any(abs(scale - OLD_SCALE) < ROUNDING for scale in scales):
        return OLD
    if NAMED_XL.search(told) or any(abs(scale - XL_SCALE) < ROUNDING for scale in scales):
        return XL
    if "stable-diffusion-v" in told or (is_tiny and "taesd" in told.lower()):
        return OLD
    return OLD + XL


def _names(header: Header) -> dict[str, str]:
    """The tensors of a VAE by the names that `layout` has, each with its own; {} for no VAE."""
    names = header.tensors
    if any(name in names for name in ("decoder.layers.0.weight", "encoder.layers.0.weight")):
        return {name: name for name in names}
    for first, second, half in HALVES:
        if first in names and second in names:
            return dict(_numbered(names, half))
    if {"taesd_decoder.1.weight", "decoder.1.weight", "taesd_encoder.0.weight"} & set(names):
        return dict(_numbered(names))
    wan = next((root for root in ROOTS if f"{root}{WAN}" in names), None)
    if wan is not None:
        return {name.removeprefix(wan): name for name in names if name.startswith(wan)}
    root = next((root for root in ROOTS if f"{root}{ENDS[0]}" in names), None)
    if root is None:
        return {}
    rooted = {name if root else f"{VAE}{name}": name for name in names}
    usual = usual_names(rooted, 1)
    found = {name.removeprefix(VAE): rooted[stored] for name, stored in usual.items()}
    for half, name in INSIDE:
        found |= {
            key.removeprefix(f"{half}."): found.pop(key)
            for key in list(found)
            if key.startswith(f"{half}.{name}.")
        }
    return found


def _numbered(names: Mapping[str, object], half: str = "") -> Iterator[tuple[str, str]]:
    """Diffusers' names of the author's: it does not count the decoder's first layer."""
    for name in names:
        if match := ORIGINAL_TINY.fullmatch(f"{half}{name}"):
            number = int(match[2]) - (match[1] == "decoder")
            yield f"{match[1]}.layers.{number}.{match[3]}", name
