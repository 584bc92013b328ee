"""Tests of imagine_core.engine.forward."""

from __future__ import annotations

import pytest
import torch

from imagine_core import Conditioning
from imagine_core.engine.drawing import Denoise
from imagine_core.engine.forward import forward, groups, stack
from imagine_core.engine.guiding import Guidance
from imagine_core.testing import FakeModel


def conditioning(tokens: int, value: float = 0.0) -> Conditioning:
    return Conditioning(context=torch.full((1, tokens, 4), value))


def want(positive: float, negative: float | None, scale: float, *, timestep: float) -> Denoise:
    guidance = Guidance(
        conditioning(1, positive),
        None if negative is None else conditioning(1, negative),
        scale,
    )
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(int(timestep)))
    return Denoise(latent, timestep, guidance, (64, 64))


def test_each_want_gets_its_own_guided_prediction() -> None:
    model = FakeModel()
    wants = [
        want(0.2, -0.1, 7.0, timestep=900),
        want(-0.3, None, 1.0, timestep=10),
        want(0.1, 0.3, 2.5, timestep=444.5),
    ]
    together = forward(model, wants)
    assert model.forwards == [5]
    for each, shared in zip(wants, together, strict=True):
        torch.testing.assert_close(shared, forward(model, [each])[0])


def test_guidance_extrapolates_from_the_unconditional_prediction() -> None:
    guidance = Guidance(conditioning(1), conditioning(1), 7.0)
    assert guidance.combine(torch.tensor([1.0, 3.0])).tolist() == [15.0]


def test_prompts_of_different_length_are_repeated_to_a_common_one() -> None:
    batch = stack([conditioning(2, 1.0), conditioning(3, 2.0)])
    assert batch.context.shape == (2, 6, 4)


def test_repeating_tokens_leaves_cross_attention_as_it_is() -> None:
    torch.manual_seed(0)
    query, context = torch.randn(1, 5, 8), torch.randn(1, 7, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    repeated = context.repeat(1, 3, 1)
    torch.testing.assert_close(
        attention(query, context, context), attention(query, repeated, repeated)
    )


def test_extras_are_stacked_by_name() -> None:
    rows = [
        Conditioning(context=torch.zeros(1, 1, 4), extras={"time_ids": torch.full((1, 6), value)})
        for value in (1.0, 2.0)
    ]
    assert stack(rows).extras["time_ids"][:, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_a_single_row_is_the_prediction_itself(scale: float) -> None:
    guidance = Guidance(conditioning(1), None, scale)
    assert guidance.combine(torch.tensor([3.0])).tolist() == [3.0]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([1, 2, 1, 2], [[0, 1, 2, 3]]),
        ([2, 3], [[0, 1]]),
        ([3, 4, 5, 3], [[0, 3], [1], [2]]),
        ([77], [[0]]),
    ],
)
def test_prompts_whose_common_length_would_explode_are_kept_apart(
    lengths: list[int], expected: list[list[int]]
) -> None:
    assert groups(lengths) == expected


def test_wants_in_different_groups_get_their_own_answers() -> None:
    model = FakeModel()
    wants = [
        Denoise(
            torch.randn(1, 4, 8, 8), 500.0, Guidance(conditioning(n, n / 10), None, 1), (64, 64)
        )
        for n in (3, 4, 5, 3)
    ]
    together = forward(model, wants)
    assert model.forwards == [2, 1, 1]
    for each, shared in zip(wants, together, strict=True):
        torch.testing.assert_close(shared, forward(model, [each])[0])
