"""Tells the Stable Diffusion families apart by the shapes of their UNets."""

from __future__ import annotations

from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture
from imagine_plugins.loaders.header import Header
from imagine_plugins.loaders.layout import UNET
from imagine_plugins.loaders.problems import ProblemError
from imagine_plugins.loaders.unsupported import unsupported


def stable_diffusion(header: Header) -> Architecture:
    """The architecture that a header's shapes belong to; raises `ProblemError` for all others."""
    problem = unsupported(header)
    if problem is not None:
        raise problem
    width, channels = _first_convolution(header)
    context = _context(header)
    labels = any(name.startswith(f"{UNET}label_emb.") for name in header.tensors)
    _refuse_relatives(header, width, channels, context=context, labels=labels)
    plan = {768: SD1, 1024: SD2, 2048: SDXL}[context]
    return plan if channels == plan.unet["in_channels"] else plan.for_inpainting()


def _first_convolution(header: Header) -> tuple[int, int]:
    """Output and input channels of the UNet's first convolution; without it, the usual ones."""
    tensor = header.tensors.get(f"{UNET}input_blocks.0.0.weight")
    if tensor is not None and len(tensor.shape) > 1:
        return tensor.shape[0], tensor.shape[1]
    return 320, 4


def _context(header: Header) -> int:
    """What the UNet's cross-attention reads: the width of the text embeddings."""
    for name, tensor in header.tensors.items():
        if name.startswith(UNET) and name.endswith(".attn2.to_k.weight") and tensor.shape:
            return tensor.shape[-1]
    return 0


def _refuse_relatives(
    header: Header, width: int, channels: int, *, context: int, labels: bool
) -> None:
    tensors = header.tensors
    not_supported = "which is not supported; Stable Diffusion 1, 2 and XL are"
    if "edm_mean" in tensors:
        raise ProblemError(f"this is Playground 2.5, {not_supported}", family="playground")
    if "edm_vpred.sigma_max" in tensors:
        raise ProblemError(f"this is CosXL, {not_supported}", family="cosxl")
    if (width, context) == (384, 1280):
        raise ProblemError(
            "this is the SDXL refiner, which finishes pictures that another model began; "
            "take an SDXL base model",
            family="sdxl-refiner",
        )
    if (width, channels) == (256, 7):
        raise ProblemError(
            f"this is the Stable Diffusion x4 upscaler, {not_supported}", family="upscaler"
        )
    if width != 320 or context not in {768, 1024, 2048}:
        raise ProblemError(
            f"its UNet is of an unknown architecture, {not_supported}", family="unknown"
        )
    if context == 1024 and labels:
        raise ProblemError(f"this is Stable Diffusion unCLIP, {not_supported}", family="unclip")
    if channels not in {4, 9}:
        kind = {8: "an instruct-pix2pix model", 5: "a depth-to-image model"}
        what = kind.get(channels, f"a model with {channels} input channels")
        raise ProblemError(f"this is {what}, {not_supported}", family="unknown")
    if context == 2048 and not _is_full_sdxl(header):
        raise ProblemError(
            f"this is a cut-down SDXL (SSD-1B, Vega, KOALA or kin), {not_supported}",
            family="sdxl-distilled",
        )


def _is_full_sdxl(header: Header) -> bool:
    """Whether the deep blocks have ten transformers each; the cut-down ones have fewer or none."""
    return all(
        any(name.startswith(f"{UNET}{block}.transformer_blocks.9.") for name in header.tensors)
        for block in ("input_blocks.7.1", "input_blocks.8.1", "middle_block.1")
    )
