"""Applies the weights of a prompt to its embeddings."""

from __future__ import annotations

import torch
from torch.nn.functional import softshrink

SLACK = 1e-6  # of the factor: what rounding may add stays within the bound


def weighted(context: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply each token's embedding by its weight, then restore the mean within two bounds.

    With `z` the embeddings and `y` the weighted ones, A1111's "original" emphasis is `s * y`, where
    `s = mean(z) / mean(y)`; prompts found in the wild were written for it. But the means of tokens
    have either sign, and where they cancel, `s` may be -180. Therefore

    - `mean(y) / mean(z)`, which is an average of the weights if all means have one sign, is kept
      between the least and the greatest weight;
    - `s` is kept between 1 and `2 * n - 1`, where `n = (y . z) / (y . y)`.

    The second gives `|s * y - z| <= |y - z|` in the Euclidean norm: the squared distance is a
    parabola in `s` with its minimum at `n`, and `2 * n - 1` is the mirror image of 1. Both
    intervals hold 1, so `s` is never further from a positive factor of A1111's than 1 is.

    Args:
        context: The embeddings of one chunk, [1, positions, width].
        weights: Of each position, [positions]; 1 for start, end and padding.
    """
    before = context.float()
    after = before * weights[None, :, None]
    average = (after.mean() / before.mean()).nan_to_num(1.0).clamp(weights.min(), weights.max())
    factor = average.clamp(min=torch.finfo(average.dtype).tiny).reciprocal()
    way = (after * (before - after)).sum() / after.square().sum()  # n - 1, and n loses digits
    limit = 1 + softshrink(2 * way.nan_to_num(0.0), SLACK)
    factor = factor.clamp(limit.clamp(max=1.0), limit.clamp(min=1.0))
    return (after * factor).to(context.dtype)
