"""Finds, for each parameter of a flow transformer, the rows of stored tensors that it is made of.

diffusers converts its authors' layouts by renaming, splitting, joining and swapping along the first
axis, in halves and in thirds. Its conversions are run on numbers in place of weights, one for each
sixth of a tensor's rows: what comes out says which rows of which tensors each parameter has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from imagine_plugins.loaders.components import Piece
from imagine_plugins.loaders.layout import Shape
from imagine_plugins.loaders.problems import ProblemError

if TYPE_CHECKING:
    import torch

Rows = dict[str, "torch.Tensor"]
"""Numbers of parts by the name of a tensor, [parts]."""

Pieces = Mapping[str, tuple[Piece, ...]]
"""What each parameter is made of, by diffusers' names."""

PARTS = (6, 3, 2, 1)
FUSED_WIDTH = 3072  # that diffusers takes for granted where it splits FLUX's and Chroma's linear1
LINEAR1 = re.compile(r"single_blocks\.(\d+)\.linear1\.(weight|bias)", re.ASCII)
WEIGHTS = (".weight", ".bias", ".scale", "pos_embed", "_pad_token")
FUSED_PARTS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


def pieces_of(
    transformer: str, stored: Mapping[str, Shape], wanted: Mapping[str, Shape], *, original: bool
) -> Pieces:
    """The pieces of each parameter, in its rows' order.

    Args:
        transformer: diffusers' class of the transformer.
        stored: The shapes of the tensors that there are, without a prefix.
        wanted: Those of the transformer's parameters and persistent buffers.
        original: Whether the stored tensors have the names of its authors.

    Raises:
        ProblemError: A tensor is missing or has another shape; the text names it.
    """
    if original:
        found = _traced(transformer, stored)
    else:
        found = {name: (_whole(name, shape),) for name, shape in stored.items()}
    for name, shape in wanted.items():
        if name not in found:
            raise ProblemError(f"no tensor holds {name!r}: the file is damaged or was cut down")
        _require_shape(name, shape, found[name], stored)
    return {name: found[name] for name in wanted}


def _whole(name: str, shape: Shape) -> Piece:
    return Piece(name, 0, shape[0] if shape else 1)


def _require_shape(
    name: str, shape: Shape, pieces: tuple[Piece, ...], stored: Mapping[str, Shape]
) -> None:
    rows = sum((piece.stop or 0) - piece.start for piece in pieces)
    for key in {piece.key for piece in pieces}:
        if (rows, *stored[key][1:]) != (shape or (1,)):
            raise ProblemError(
                f"tensor {key!r} has the shape {list(stored[key])}, which does not fit "
                f"{name!r} of {list(shape)}"
            )


def _traced(transformer: str, stored: Mapping[str, Shape]) -> Pieces:
    """The pieces of all that diffusers' conversion makes of tensors in their authors' layout."""
    import torch

    rows: Rows = {}
    parts: list[Piece] = []
    for name, shape in stored.items():
        if not name.endswith(WEIGHTS):
            continue  # scales of fp8 and kin
        count = shape[0] if shape else 1
        number = next(number for number in PARTS if count % number == 0)
        rows[name] = torch.arange(len(parts), len(parts) + number)
        size = count // number
        parts += [Piece(name, size * part, size * (part + 1)) for part in range(number)]
    convert, is_fused = CONVERSIONS[transformer]
    fused = dict(_fused(stored)) if is_fused else {}
    if is_fused:
        placeholder = torch.zeros(7 * FUSED_WIDTH, dtype=torch.int64)
        rows |= {key: placeholder for key in rows if LINEAR1.fullmatch(key)}
    try:
        converted = _converted(convert, rows)
    except KeyError as error:
        raise ProblemError(
            f"tensor {error.args[0]!r} is missing: the file is damaged or was cut down"
        ) from error
    except (RuntimeError, ValueError, IndexError) as error:
        raise ProblemError(f"its tensors have unusual shapes ({error!s:.200})") from error
    return {
        name: fused[name] if name in fused else _joined(parts, numbers.tolist())
        for name, numbers in converted.items()
    }


def _joined(parts: Sequence[Piece], numbers: Iterable[int]) -> tuple[Piece, ...]:
    """The parts of these numbers, those that follow each other in a tensor as one piece."""
    pieces: list[Piece] = []
    for number in numbers:
        part = parts[number]
        if pieces and (pieces[-1].key, pieces[-1].stop) == (part.key, part.start):
            part = Piece(part.key, pieces.pop().start, part.stop)
        pieces.append(part)
    return tuple(pieces)


def _converted(name: str, rows: Rows) -> Rows:
    from diffusers.loaders import single_file_utils

    convert: Callable[[Rows], Rows] = getattr(single_file_utils, name)
    return convert(rows)


def _fused(stored: Mapping[str, Shape]) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """What `linear1` of each single block holds: queries, keys, values, an MLP's first layer.

    diffusers splits it for a width of 3072 alone.
    """
    for key, shape in stored.items():
        if match := LINEAR1.fullmatch(key):
            columns = stored.get(f"single_blocks.{match[1]}.linear2.weight", (0,))
            width, rows = columns[0], shape[0] if shape else 1
            ends = (0, width, 2 * width, 3 * width, rows)
            for name, start, stop in zip(FUSED_PARTS, ends, ends[1:], strict=False):
                target = f"single_transformer_blocks.{match[1]}.{name}.{match[2]}"
                yield target, (Piece(key, start, stop),)


CONVERSIONS: Mapping[str, tuple[str, bool]] = {
    "SD3Transformer2DModel": ("convert_sd3_transformer_checkpoint_to_diffusers", False),
    "FluxTransformer2DModel": ("convert_flux_transformer_checkpoint_to_diffusers", True),
    "Flux2Transformer2DModel": ("convert_flux2_transformer_checkpoint_to_diffusers", False),
    "ZImageTransformer2DModel": ("convert_z_image_transformer_checkpoint_to_diffusers", False),
    "ChromaTransformer2DModel": ("convert_chroma_transformer_checkpoint_to_diffusers", True),
}
"""diffusers' conversion for each class, and whether `linear1` is ours to split."""
