"""Variation seeds: the noise of one seed on its way to that of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ALIKE = 0.9995
"""Mean cosine from which two noises count as the same: the sine of their angle divides."""


def varied(noise: torch.Tensor, other: torch.Tensor, strength: float) -> torch.Tensor:
    """Spherical interpolation (Shoemake 1985) from `noise` (0) to `other` (1), as A1111 has it.

    The angle is that between the columns of each channel, not between whole pictures: A1111 takes
    norms along the height. So variations of A1111's pictures need the same here.

    Args:
        noise: Unit noise, [1, channels, height, width].
        other: The same of another seed.
        strength: 0 .. 1.
    """
    import torch

    height = 2
    ours, theirs = (each / each.norm(dim=height, keepdim=True) for each in (noise, other))
    cosine = (ours * theirs).sum(height, keepdim=True)
    if cosine.mean() > ALIKE:
        return noise * (1 - strength) + other * strength
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    return (torch.sin((1 - strength) * angle) * noise + torch.sin(strength * angle) * other) / sine
