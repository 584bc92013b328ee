"""Writes adapter files by the formulas of the papers, and computes in float64 what they change.

made = loha((320, 640), rank=4, alpha=2, seed=0)     # its tensors by part, and the difference
save(tmp_path / "a.safetensors", named(made, kohya("unet.conv_in")))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Shape = tuple[int, ...]
Array = NDArray[np.float64]

KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
PEFT = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "up_bias": "lora_B.bias",
    "magnitude": "lora_magnitude_vector",
}
OLD = {"down": "lora.down.weight", "up": "lora.up.weight"}


@dataclass(frozen=True)
class Made:
    """The tensors of a module in a file, and what they are to do.

    Attributes:
        parts: Tensors by part.
        delta: What is added to the weight, in float64.
        bias: What is added to the bias.
        magnitude: DoRA's, and along which axis.
    """

    parts: Mapping[str, torch.Tensor]
    delta: Array
    bias: Array | None = None
    magnitude: tuple[Array, str] | None = None
    names: Mapping[str, str] = field(default_factory=lambda: KOHYA)

    def merge(self, weight: Array, bias: Array | None, strength: float) -> tuple[Array, Any]:
        """A weight and a bias with the change in them, as A1111 and ComfyUI merge it."""
        whole = weight + self.delta
        if self.magnitude is not None:
            values, axis = self.magnitude
            others = tuple(n for n in range(weight.ndim) if n != (0 if axis == "out" else 1))
            length = np.sqrt((whole**2).sum(axis=others, keepdims=True))
            whole = whole * values.reshape(length.shape) / length
        merged = (1 - strength) * weight + strength * whole
        if self.bias is None:
            return merged, bias
        return merged, (0 if bias is None else bias) + strength * self.bias


class Random:
    """Random tensors of a dtype, and the same values in float64."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._dtype = dtype

    def __call__(self, *shape: int, size: float = 0.5) -> tuple[torch.Tensor, Array]:
        value = (torch.randn(shape, generator=self._generator) * size).to(self._dtype)
        return value, value.double().numpy()


def alpha_tensor(alpha: float | None, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {} if alpha is None else {"alpha": torch.tensor(alpha).to(dtype)}


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else float(torch.tensor(alpha).double()) / rank


def lora(shape: Shape, *, rank: int, alpha: float | None, seed: int, dtype: torch.dtype) -> Made:
    """`W + alpha/rank B A`; a convolution's A has the kernel (LoCon)."""
    random = Random(seed, dtype)
    down, a = random(rank, *shape[1:])
    up, b = random(shape[0], rank, *[1] * (len(shape) - 2))
    delta = np.tensordot(b.reshape(shape[0], rank), a, axes=(1, 0)) * _scale(alpha, rank)
    return Made({"down": down, "up": up, **alpha_tensor(alpha)}, delta)


def tucker(shape: Shape, *, rank: int, alpha: float | None, seed: int, dtype: torch.dtype) -> Made:
    """LoCon with a core: pixel by pixel down, the kernel on `rank` channels, and up."""
    random = Random(seed, dtype)
    ones = [1] * (len(shape) - 2)
    down, a = random(rank, shape[1], *ones)
    mid, c = random(rank, rank, *shape[2:])
    up, b = random(shape[0], rank, *ones)
    c = c.reshape(rank, rank, -1)
    delta = np.einsum("or,rsk,si->oik", b.reshape(shape[0], rank), c, a.reshape(rank, shape[1]))
    parts = {"down": down, "up": up, "mid": mid, **alpha_tensor(alpha)}
    return Made(parts, delta.reshape(shape) * _scale(alpha, rank))


def loha(shape: Shape, *, rank: int, alpha: float | None, seed: int, dtype: torch.dtype) -> Made:
    """The elementwise product of two products of matrices; a kernel is folded into columns."""
    random = Random(seed, dtype)
    parts: dict[str, torch.Tensor] = alpha_tensor(alpha)
    delta = np.ones((shape[0], math.prod(shape[1:])))
    for number in "12":
        parts[f"hada_w{number}_a"], a = random(shape[0], rank)
        parts[f"hada_w{number}_b"], b = random(rank, math.prod(shape[1:]))
        delta *= a @ b
    return Made(parts, delta.reshape(shape) * _scale(alpha, rank))


def loha_tucker(
    shape: Shape, *, rank: int, alpha: float | None, seed: int, dtype: torch.dtype
) -> Made:
    """LoHa of two kernels in Tucker's decomposition."""
    random = Random(seed, dtype)
    parts: dict[str, torch.Tensor] = alpha_tensor(alpha)
    delta = np.ones(shape)
    for number in "12":
        parts[f"hada_t{number}"], core = random(rank, rank, *shape[2:])
        parts[f"hada_w{number}_a"], a = random(rank, shape[0])
        parts[f"hada_w{number}_b"], b = random(rank, shape[1])
        delta *= np.einsum("rskl,sj,ri->ijkl", core, b, a)
    return Made(parts, delta * _scale(alpha, rank))


def lokr(  # noqa: PLR0913 - each is one way in which a file may have it
    shape: Shape,
    *,
    rank: int,
    alpha: float | None,
    seed: int,
    dtype: torch.dtype,
    whole: tuple[bool, bool] = (True, False),
    core: bool = False,
    factor: int = 4,
) -> Made:
    """The Kronecker product of two factors, each whole or a product of rank `rank`."""
    random = Random(seed, dtype)
    parts: dict[str, torch.Tensor] = alpha_tensor(alpha)
    small = factor, factor
    large = shape[0] // factor, shape[1] // factor
    if whole[0]:
        parts["lokr_w1"], first = random(*small)
    else:
        parts["lokr_w1_a"], a = random(small[0], rank)
        parts["lokr_w1_b"], b = random(rank, small[1])
        first = a @ b
    if whole[1]:
        parts["lokr_w2"], second = random(*large, *shape[2:])
    elif core:
        parts["lokr_t2"], kernel = random(rank, rank, *shape[2:])
        parts["lokr_w2_a"], a = random(rank, large[0])
        parts["lokr_w2_b"], b = random(rank, large[1])
        second = np.einsum("rskl,ri,sj->ijkl", kernel, a, b)
    else:
        parts["lokr_w2_a"], a = random(large[0], rank)
        parts["lokr_w2_b"], b = random(rank, large[1] * math.prod(shape[2:]))
        second = (a @ b).reshape(*large, *shape[2:])
    delta = np.zeros(shape)
    for i in range(small[0]):
        for j in range(small[1]):
            rows = slice(i * large[0], (i + 1) * large[0])
            columns = slice(j * large[1], (j + 1) * large[1])
            delta[rows, columns] = first[i, j] * second
    return Made(parts, delta * (1.0 if all(whole) else _scale(alpha, rank)))


def full(shape: Shape, *, seed: int, dtype: torch.dtype, **_: Any) -> Made:
    """A difference of weight and bias."""
    random = Random(seed, dtype)
    diff, delta = random(*shape)
    diff_b, bias = random(shape[0])
    return Made({"diff": diff, "diff_b": diff_b}, delta, bias=bias)


def norm(shape: Shape, *, seed: int, dtype: torch.dtype, **_: Any) -> Made:
    """LyCORIS' difference of a norm."""
    made = full(shape, seed=seed, dtype=dtype)
    parts = {"w_norm": made.parts["diff"], "b_norm": made.parts["diff_b"]}
    return replace(made, parts=parts)


def dora(made: Made, shape: Shape, axis: str, *, seed: int, part: str = "dora_scale") -> Made:
    """The same with DoRA's magnitudes, as LyCORIS (either axis) or PEFT (by outputs) has them."""
    count = shape[0 if axis == "out" else 1]
    value = torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.5
    ones = [1] * (len(shape) - 2)
    kernel = bool(ones)
    shapes = {
        ("dora_scale", "out"): (count, 1, *ones),
        ("dora_scale", "in"): (1, count, *ones),
        ("magnitude", "out"): (1, count, 1, 1) if kernel else (count,),
    }
    parts = {**made.parts, part: value.reshape(shapes[part, axis])}
    return replace(made, parts=parts, magnitude=(value.double().numpy(), axis))


def named(made: Made, stem: str, names: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """Its tensors under the names of a file."""
    names = made.names if names is None else names
    return {f"{stem}.{names.get(part, part)}": value for part, value in made.parts.items()}


def save(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Path:
    from safetensors.torch import save_file

    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path, metadata)
    return path


Maker = Callable[..., Made]

LINEAR: dict[str, Maker] = {
    "LoRA": lora,
    "LoHa": loha,
    "LoKr, second factor": lokr,
    "LoKr, both factors": lambda shape, **how: lokr(shape, whole=(False, False), **how),
    "LoKr, first factor": lambda shape, **how: lokr(shape, whole=(False, True), **how),
    "LoKr, whole": lambda shape, **how: lokr(shape, whole=(True, True), **how),
    "full": full,
}
KERNEL: dict[str, Maker] = {
    **LINEAR,
    "Tucker": tucker,
    "LoHa, Tucker": loha_tucker,
    "LoKr, Tucker": lambda shape, **how: lokr(shape, core=True, **how),
}
"""Makers by kind, for matrices and for kernels."""
