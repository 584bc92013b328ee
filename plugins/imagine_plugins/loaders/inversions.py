"""Recognises embeddings (textual inversions) by the headers of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imagine_plugins.loaders.adapters.recognition import FAMILIES, TITLES, adapter_info
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.header import Header, Tensor

KEYS = {
    "emb_params": None,  # A1111 and kohya
    "clip_l": "text_encoder",  # A1111, kohya, ComfyUI and OneTrainer
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",  # diffusers' pivotal tuning
    "text_encoders_1": "text_encoder_2",
}
"""Names of tensors, and the text encoder that each is for; None where its width tells."""

WIDTHS = {
    768: ("text_encoder", ("sd1",)),
    1024: ("text_encoder", ("sd2",)),
    1280: ("text_encoder_2", ("sdxl",)),
}
"""By width, the text encoder that reads such vectors, and the families that have it."""

WIDTHS_OF_SDXL = {"text_encoder": 768, "text_encoder_2": 1280}
MOST_TENSORS = 6
MOST_VECTORS = 1024
MOST_NAMELESS = 128
"""Vectors of a file whose tensor has a name of its own, as diffusers gives it."""

T5 = 4096
OTHERS = "Flux or Stable Diffusion 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """What an embedding's file is, as its header says.

    Attributes:
        family: "sd1", "sd2", "sdxl"; or "unknown".
        fits: The families of models that can take it.
        keys: The names of its tensors by text encoder.
        vectors: How many tokens it counts as.
        width: Numbers of a vector; of SDXL those of both text encoders.
        left_out: What of the file nothing reads, in sentences.
        problem: Why no model can take it, or None.
    """

    family: str = "unknown"
    fits: tuple[str, ...] = ()
    keys: Mapping[str, str]
    vectors: int = 0
    width: int = 0
    left_out: tuple[str, ...] = ()
    problem: str | None = None


def inversion(header: Header) -> Inversion | None:
    """What embedding a file holds; None for any other file."""
    keys = _keys(header)
    if not keys:
        return None
    tensors = {key: header.tensors[key] for key in keys.values()}
    rest = [key for key in header.tensors if key not in tensors]
    problem = next(_problems(tensors, rest), None)
    if problem is not None:
        return Inversion(keys=keys, problem=problem)
    fits = _fits(tensors)
    if set(keys) == {""}:  # the only tensor: its width tells
        keys = {WIDTHS[_width(tensor)][0]: key for key, tensor in tensors.items()}
    return Inversion(
        family=fits[0],
        fits=fits,
        keys=keys,
        vectors=max(_rows(tensor) for tensor in tensors.values()),
        width=sum(_width(tensor) for tensor in tensors.values()),
        left_out=tuple(f"{key}: nothing reads it" for key in rest),
    )


def _keys(header: Header) -> dict[str, str]:
    """The names of the tensors by text encoder, which is "" where the width tells it."""
    tensors = header.tensors
    if len(tensors) > MOST_TENSORS:
        return {}
    known = {KEYS[key] or "": key for key in KEYS if key in tensors}
    if len(known) > 1:
        known.pop("", None)
    if known or len(tensors) != 1:
        return {"": next(iter(known.values()))} if len(known) == 1 else known
    ((key, tensor),) = tensors.items()
    is_one = len(tensor.shape) in (1, 2) and 0 < _rows(tensor) <= MOST_NAMELESS
    is_module = key.endswith((".weight", ".bias")) or adapter_info(header) is not None
    return {"": key} if is_one and not is_module and _width(tensor) in WIDTHS else {}


def _problems(tensors: Mapping[str, Tensor], rest: list[str]) -> Iterator[str]:
    known = ", ".join(TITLES[family] for family in FAMILIES)
    if any("t5" in key for key in rest) or any(_width(each) == T5 for each in tensors.values()):
        yield (
            f"this is a textual inversion embedding for {OTHERS}, which are not supported; "
            f"{known} are"
        )
    for key, tensor in tensors.items():
        shape = "x".join(map(str, tensor.shape)) or "a single number"
        if len(tensor.shape) not in (1, 2) or not 0 < _rows(tensor) <= MOST_VECTORS:
            yield f"this is an embedding whose {key} is {shape}, which are no vectors for words"
        if tensor.dtype not in FLOATS:
            yield f"this is an embedding whose {key} holds {tensor.dtype}: quantised vectors"
    if not _fits(tensors):
        widths = " and ".join(str(_width(tensor)) for tensor in tensors.values())
        yield (
            f"this is a textual inversion embedding for another model, whose vectors have {widths} "
            f"numbers; {known} are supported"
        )


def _fits(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The families whose text encoders have the tensors' widths."""
    if len(tensors) > 1:
        pairs = [(KEYS[key] or "", _width(tensor)) for key, tensor in tensors.items()]
        return ("sdxl",) if all(WIDTHS_OF_SDXL.get(part) == width for part, width in pairs) else ()
    ((key, tensor),) = tensors.items()
    _, fits = WIDTHS.get(_width(tensor), ("", ()))
    # SD1's text encoder is the first of SDXL's; by this name the file may be for either.
    return (*fits, "sdxl") if fits == ("sd1",) and KEYS.get(key) else fits


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if len(tensor.shape) == 2 else 1


def _width(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.shape else 0
