"""One forward for many requests: stacks their rows, calls the model, splits the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagine_core.interfaces import Conditioning

if TYPE_CHECKING:
    import torch

    from imagine_core.engine.drawing import Denoise
    from imagine_core.interfaces import DiffusionModel
    from imagine_core.parts import Parts


def forward(model: DiffusionModel, wants: Sequence[Denoise]) -> list[torch.Tensor]:
    """The guided prediction for each of `wants`, in one call of the model.

    Several calls are made where the common multiple of the prompts' lengths is so long that
    cross-attention over it would cost more than another call.
    """
    answers: dict[int, torch.Tensor] = {}
    found = [[*range(len(wants))]]
    if all(row.repeats for want in wants for row in want.guidance.rows):
        found = groups([_tokens(want) for want in wants])
    for group in found:
        answers |= zip(group, _together(model, [wants[i] for i in group]), strict=True)
    return [answers[i] for i in range(len(wants))]


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of `lengths` in groups whose common multiple is at most twice the longest."""
    found: list[tuple[int, list[int]]] = []
    for place, length in enumerate(lengths):
        for number, (common, members) in enumerate(found):
            joint = math.lcm(common, length)
            if joint <= 2 * max(common, length):
                found[number] = (joint, [*members, place])
                break
        else:
            found.append((length, [place]))
    return [members for _, members in found]


def _tokens(want: Denoise) -> int:
    return math.lcm(*(row.context.shape[1] for row in want.guidance.rows))


def _together(model: DiffusionModel, wants: Sequence[Denoise]) -> list[torch.Tensor]:
    import torch

    rows = [conditioning for want in wants for conditioning in want.guidance.rows]
    latents, timesteps = [], []
    parts: list[Parts | None] = []
    for want in wants:
        count = len(want.guidance.rows)
        parts += _of_rows(want.parts, count)
        latents += [want.latent] * count
        timesteps += [float(want.timestep)] * count
    batch = torch.cat(latents)
    times = torch.tensor(timesteps, dtype=torch.float32).to(batch.device, non_blocking=True)
    predictions = model.predict(batch, times, stack(rows, parts))
    split = torch.split(predictions, [len(want.guidance.rows) for want in wants])
    return [want.guidance.combine(part) for want, part in zip(wants, split, strict=True)]


def _of_rows(parts: Parts | None, count: int) -> list[Parts | None]:
    """What changes the model in each row of a picture, the unconditional one first."""
    if parts is None or count == 1:
        return [parts] * count
    return [parts.unconditional, parts]


def stack(rows: Sequence[Conditioning], parts: Sequence[Parts | None] = ()) -> Conditioning:
    """The conditioning of a batch, one row each, and what changes the model in each.

    Prompts of different length are repeated to one length, which leaves cross-attention
    unchanged: every token's weight is shared among its copies. Zeros follow those that may not be.
    """
    import torch

    lengths = [row.context.shape[1] for row in rows]
    repeats = all(row.repeats for row in rows)
    length = math.lcm(*lengths) if repeats else max(lengths)
    contexts = [_extended(row.context, length, repeats=repeats) for row in rows]
    extras = {name: torch.cat([row.extras[name] for row in rows]) for name in rows[0].extras}
    changed = tuple(parts) if any(parts) else ()
    return Conditioning(
        context=torch.cat(contexts),
        extras=extras,
        parts=changed,
        repeats=repeats,
        lengths=() if repeats else tuple(lengths),
    )


def _extended(context: torch.Tensor, length: int, *, repeats: bool) -> torch.Tensor:
    import torch

    tokens = context.shape[1]
    if repeats:
        return context.repeat(1, length // tokens, 1)
    return torch.nn.functional.pad(context, (0, 0, 0, length - tokens))
