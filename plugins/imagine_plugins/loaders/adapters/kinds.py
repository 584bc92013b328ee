"""Tells the kinds of changes apart by the shapes of a module's parts, and whether they fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple, NoReturn

from imagine_plugins.loaders.adapters.modules import Module
from imagine_plugins.loaders.adapters.names import UNSUPPORTED
from imagine_plugins.loaders.layout import Shape

HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
HADAMARD_CORES = ("hada_t1", "hada_t2")
KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
SCALARS = ("alpha", "scale")

Parts = Mapping[str, Shape]


class Unfit(Exception):
    """A change that cannot be applied to its module; the text says why."""


class Kinds(NamedTuple):
    """What a file has for a module.

    Attributes:
        names: Of "LoRA", "LoCon", "LoHa", "LoKr", "DoRA", "full", "norm" and "bias".
        rank: Of its factors; None where it has none.
    """

    names: tuple[str, ...]
    rank: int | None


def kinds_of(parts: Parts, module: Module) -> Kinds:
    """The kinds of changes that a module's parts are; raises `Unfit` where they do not fit it."""
    _refuse(parts, module)
    found = [*_low_rank(parts, module), *_hadamard(parts, module), *_kronecker(parts, module)]
    if "diff" in parts:
        _require(parts, "diff", module.shape)
        found.append(("norm" if module.kind == "norm" else "full", None))
    if "diff_b" in parts or "up_bias" in parts:
        for part in {"diff_b", "up_bias"} & set(parts):
            _require(parts, part, module.shape[:1])
        found.append(("bias", None))
    if decomposed_axis(parts, module) is not None:
        found.append(("DoRA", None))
    if not found:
        raise Unfit("it has a scale alone, and nothing to scale")
    return Kinds(tuple(name for name, _ in found), next((rank for _, rank in found if rank), None))


def decomposed_axis(parts: Parts, module: Module) -> str | None:
    """Along which axis DoRA's magnitudes lie, "out" or "in"; None where there are none."""
    if module.kind != "layer":
        return None
    rows, columns = module.shape[:2]
    if "magnitude" in parts:
        # PEFT's are by outputs: (out,), and (1, out, 1, 1) for a convolution.
        if prod(parts["magnitude"]) != rows:
            _wrong("magnitude", parts["magnitude"], (rows,))
        return "out"
    shape = parts.get("dora_scale")
    if shape is None:
        return None
    if prod(shape) == rows and (len(shape) < 2 or shape[0] == rows):
        return "out"
    if prod(shape) == columns and (len(shape) < 2 or shape[1] == columns):
        return "in"
    return _wrong("dora_scale", shape, (rows, 1))


def kronecker_shape(parts: Parts, module: Module) -> tuple[Shape, Shape]:
    """Rows and columns of both factors of a LoKr; raises `Unfit` where they do not make it up."""
    first = _factor(parts, "lokr_w1")
    if 0 in first or any(whole % part for whole, part in zip(module.shape, first, strict=False)):
        _wrong("lokr_w1", first, module.shape)
    second = module.shape[0] // first[0], module.shape[1] // first[1]
    return (first[0], first[1]), second


def _refuse(parts: Parts, module: Module) -> None:
    """Refuse what no kind has, and what the module cannot take."""
    for part in parts:
        if part in UNSUPPORTED:
            raise Unfit(f"{UNSUPPORTED[part]} is not supported")
        if part in SCALARS and prod(parts[part]) != 1:
            raise Unfit(f"its {part} is {list(parts[part])} numbers in place of one")
    if module.kind == "table" and {"dora_scale", "magnitude", "diff_b", "up_bias"} & set(parts):
        raise Unfit("a table of embeddings has neither magnitudes nor a bias")
    if module.kind == "norm" and not set(parts) <= {"diff", "diff_b", *SCALARS}:
        raise Unfit("a norm takes a full difference alone")


def _low_rank(parts: Parts, module: Module) -> Iterator[tuple[str, int | None]]:
    if not {"down", "up", "mid"} & set(parts):
        return
    _require_all(parts, ("down", "up"))
    rows, *columns = module.shape
    left, rank = _rank(parts, "up", axis=1), _rank(parts, "down", axis=0)
    _require(parts, "up", (rows, left))
    if "mid" in parts:
        _require(parts, "mid", (left, rank, *columns[1:]))
        _require(parts, "down", (rank, columns[0]))
    else:
        _require(parts, "down", (left, *columns))
    yield "LoCon" if len(columns) > 1 else "LoRA", rank


def _hadamard(parts: Parts, module: Module) -> Iterator[tuple[str, int | None]]:
    if not set(parts) & {*HADAMARD, *HADAMARD_CORES}:
        return
    _require_all(parts, HADAMARD)
    rows, *columns = module.shape
    cores = any(core in parts for core in HADAMARD_CORES)
    if cores:
        _require_all(parts, HADAMARD_CORES)
    for number in "12":
        a, b, core = f"hada_w{number}_a", f"hada_w{number}_b", f"hada_t{number}"
        rank = _rank(parts, b, axis=0)
        if cores:
            left = _rank(parts, a, axis=0)
            _require(parts, a, (left, rows))
            _require(parts, b, (rank, columns[0]))
            _require(parts, core, (left, rank, *columns[1:]))
        else:
            _require(parts, a, (rows, rank))
            _require(parts, b, (rank, *columns))
    yield "LoHa", _rank(parts, "hada_w1_b", axis=0)


def _kronecker(parts: Parts, module: Module) -> Iterator[tuple[str, int | None]]:
    if not set(parts) & set(KRONECKER):
        return
    _, (rows, columns) = kronecker_shape(parts, module)
    kernel = module.shape[2:]
    if "lokr_w2" in parts:
        _require(parts, "lokr_w2", (rows, columns, *kernel))
    elif "lokr_t2" in parts:
        _require_all(parts, ("lokr_w2_a", "lokr_w2_b"))
        left, rank = _rank(parts, "lokr_w2_a", axis=0), _rank(parts, "lokr_w2_b", axis=0)
        _require(parts, "lokr_w2_a", (left, rows))
        _require(parts, "lokr_w2_b", (rank, columns))
        _require(parts, "lokr_t2", (left, rank, *kernel))
    else:
        _require_all(parts, ("lokr_w2_a", "lokr_w2_b"))
        rank = _rank(parts, "lokr_w2_b", axis=0)
        _require(parts, "lokr_w2_a", (rows, rank))
        _require(parts, "lokr_w2_b", (rank, columns, *kernel))
    yield "LoKr", lokr_rank(parts)


def lokr_rank(parts: Parts) -> int | None:
    """The rank that a LoKr's alpha is divided by; None where both factors are whole."""
    for factor in ("lokr_w2", "lokr_w1"):
        if factor not in parts and f"{factor}_b" in parts:
            return parts[f"{factor}_b"][0]
    return None


def _factor(parts: Parts, name: str) -> Shape:
    """Rows and columns of a factor that is there whole or as the product of two."""
    if name in parts:
        shape = parts[name]
    else:
        a, b = f"{name}_a", f"{name}_b"
        _require_all(parts, (a, b))
        rank = _rank(parts, b, axis=0)
        if len(parts[a]) != 2 or parts[a][1] != rank:
            _wrong(a, parts[a], (parts[a][0] if parts[a] else 0, rank))
        shape = (parts[a][0], prod(parts[b][1:]))
    if len(shape) != 2:
        raise Unfit(f"its {name} has the shape {list(shape)}, which is no matrix")
    return shape


def _rank(parts: Parts, part: str, *, axis: int) -> int:
    shape = parts[part]
    if len(shape) <= axis or not shape[axis]:
        raise Unfit(f"its {part} has the shape {list(shape)}, of rank 0")
    return shape[axis]


def _require(parts: Parts, part: str, shape: Shape) -> None:
    """Require a shape, up to how a kernel is folded: (8, 320, 1, 1) and (8, 320) are one."""
    given = parts[part]
    if prod(given) != prod(shape) or given[:1] != shape[:1]:
        _wrong(part, given, shape)
    if len(given) > 1 and len(shape) > 1 and given[1] not in {shape[1], prod(shape[1:])}:
        _wrong(part, given, shape)


def _require_all(parts: Parts, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in parts]
    if missing:
        raise Unfit(f"its {' and '.join(missing)} is missing")


def _wrong(part: str, given: Shape, wanted: Shape) -> NoReturn:
    raise Unfit(f"its {part} has the shape {list(given)}, this model wants {list(wanted)}")
