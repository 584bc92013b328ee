"""The forms that changes of weights have once they are read, and what each adds to its weight.

Tensors stay as the file has them, so that an adapter costs its own size; what runs one asks for its
rows in the dtype that the model computes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from imagine_core.parts import LowRank


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A matrix or kernel, whole or as a product.

    Attributes:
        b: The whole of (rows, columns[, height, width]), or (rank, columns[, height, width]).
        a: (rows, rank); None where `b` is the whole. With a core, (rank of a, rows).
        core: (rank of a, rank of b[, height, width]), as Tucker's decomposition has it.
    """

    b: torch.Tensor
    a: torch.Tensor | None = None
    core: torch.Tensor | None = None

    def to(self, device: torch.device) -> Factors:
        """The same on a device."""
        a, core = (each if each is None else placed(each, device) for each in (self.a, self.core))
        return Factors(placed(self.b, device), a, core)

    def pair(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(rows, rank) and (rank, columns[, height, width]); None where it is whole."""
        if self.a is None:
            return None
        a, b = self.a.to(dtype), self.b.to(dtype)
        if self.core is None:
            return a, b
        return a.T, torch.einsum("rs...,sj->rj...", self.core.to(dtype), b)

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """(rows, columns[, height, width])."""
        pair = self.pair(dtype)
        if pair is None:
            return self.b.to(dtype)
        a, b = pair
        return (a @ b.flatten(1)).view(len(a), *b.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """LoRA (Hu et al. 2021, eq. 3), LoCon and its Tucker form: `scale * a @ b`."""

    factors: Factors
    scale: float = 1.0

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        """As `Update`; always there."""
        pair = self.factors.pair(dtype)
        return None if pair is None else LowRank(pair[1], pair[0] * self.scale)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """As `Update`."""
        return self.factors.whole(dtype) * self.scale

    def to(self, device: torch.device) -> Product:
        """As `Update`."""
        return Product(self.factors.to(device), self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Hadamard:
    """LoHa (Hyeon-Woo et al. 2022, prop. 2): the elementwise product of two products."""

    first: Factors
    second: Factors
    scale: float = 1.0

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        """As `Update`; its rank is the product of both ranks, each row a product of two rows."""
        one, two = self.first.pair(dtype), self.second.pair(dtype)
        if one is None or two is None or not _pays(one, two, (len(one[0]), one[1][0].numel())):
            return None
        up = (one[0][:, :, None] * two[0][:, None, :]).flatten(1)
        down = (one[1][:, None] * two[1][None, :]).flatten(0, 1)
        return LowRank(down, up * self.scale)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """As `Update`."""
        return self.first.whole(dtype) * self.second.whole(dtype) * self.scale

    def to(self, device: torch.device) -> Hadamard:
        """As `Update`."""
        return Hadamard(self.first.to(device), self.second.to(device), self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker:
    """LoKr (Yeh et al. 2024, sec. 3.2): the Kronecker product of a small and a larger factor."""

    first: Factors
    second: Factors
    scale: float = 1.0

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        """As `Update`, by `kron(a b, c d) = kron(a, c) kron(b, d)`."""
        two = self.second.pair(dtype)
        if two is None:
            return None
        one = self.first.pair(dtype) or _with_identity(self.first.whole(dtype))
        rows, columns = len(one[0]) * len(two[0]), one[1].shape[1] * two[1][0].numel()
        if not _pays(one, two, (rows, columns)):
            return None
        return LowRank(_kron(one[1], two[1]), _kron(one[0], two[0]) * self.scale)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """As `Update`."""
        return _kron(self.first.whole(dtype), self.second.whole(dtype)) * self.scale

    def to(self, device: torch.device) -> Kronecker:
        """As `Update`."""
        return Kronecker(self.first.to(device), self.second.to(device), self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Full:
    """A difference as it is, of a weight or of a norm's."""

    difference: torch.Tensor

    def low_rank(self, dtype: torch.dtype) -> None:
        """As `Update`: there is none."""
        del dtype

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """As `Update`."""
        return self.difference.to(dtype)

    def to(self, device: torch.device) -> Full:
        """As `Update`."""
        return Full(placed(self.difference, device))


def placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; Metal has neither float64 nor float8."""
    if device.type == "mps":
        tensor = tensor.to({8: torch.float32, 1: torch.float16}.get(tensor.itemsize, tensor.dtype))
    return tensor.to(device)


Pair = tuple[torch.Tensor, torch.Tensor]


def _pays(one: Pair, two: Pair, shape: tuple[int, int]) -> bool:
    """Whether rows of both ranks' product cost half of the whole or less."""
    rank = one[0].shape[1] * two[0].shape[1]
    return 2 * rank * sum(shape) <= prod(shape)


def _with_identity(whole: torch.Tensor) -> Pair:
    """A matrix as the product of itself and an identity, of the smaller rank."""
    rows, columns = whole.shape
    if rows < columns:
        return torch.eye(rows, dtype=whole.dtype, device=whole.device), whole
    return whole, torch.eye(columns, dtype=whole.dtype, device=whole.device)


def _kron(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The Kronecker product of a matrix with a matrix or a kernel."""
    product = torch.einsum("ij,kl...->ikjl...", first, second)
    return product.flatten(2, 3).flatten(0, 1)
