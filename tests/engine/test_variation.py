"""Variation seeds, with A1111's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import torch

from engines import RED, pixels
from imagine_core.engine import Engine
from imagine_core.engine.variation import varied
from imagine_core.testing import draw_one


def unit(seed: int, shape: tuple[int, ...] = (1, 4, 8, 16)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_variation_goes_from_one_noise_to_the_other() -> None:
    one, other = unit(1), unit(2)
    assert torch.allclose(varied(one, other, 0.0), one, atol=1e-6)
    assert torch.allclose(varied(one, other, 1.0), other, atol=1e-6)
    half = varied(one, other, 0.5)
    assert 0.9 < half.std() < 1.1  # a plain mean of two noises has 0.71


def test_the_angle_is_that_of_the_columns_of_each_channel() -> None:
    one, other = unit(1), unit(2)
    mixed = varied(one, other, 0.3)
    for channel in range(4):
        for column in range(16):
            a, b = one[0, channel, :, column].double(), other[0, channel, :, column].double()
            angle = torch.acos((a @ b) / (a.norm() * b.norm()))
            expected = (torch.sin(0.7 * angle) * a + torch.sin(0.3 * angle) * b) / angle.sin()
            assert torch.allclose(mixed[0, channel, :, column].double(), expected, atol=1e-5)


def test_noises_that_are_alike_are_mixed_straight() -> None:
    one = unit(1)
    assert torch.allclose(varied(one, one, 0.4), one, atol=1e-6)


def test_without_a_strength_a_subseed_changes_nothing(roomy: Engine) -> None:
    plain, with_subseed = draw_one(roomy, RED), draw_one(roomy, replace(RED, subseed=9))
    assert (pixels(plain) == pixels(with_subseed)).all()
    assert with_subseed.images[0].subseed is None


def test_a_strength_of_one_draws_the_picture_of_the_subseed(roomy: Engine) -> None:
    varied_whole = draw_one(roomy, replace(RED, seed=1, subseed=9, subseed_strength=1.0))
    other = draw_one(roomy, replace(RED, seed=9))
    assert abs(pixels(varied_whole).astype(int) - pixels(other)).max() <= 1


def test_pictures_of_a_variation_keep_the_seed_and_count_the_subseed(roomy: Engine) -> None:
    request = replace(RED, seed=5, subseed=2**64 - 1, subseed_strength=0.3, images=2)
    result = draw_one(roomy, request)
    assert [(made.seed, made.subseed) for made in result.images] == [(5, 2**64 - 1), (5, 0)]
    second = draw_one(roomy, replace(request, subseed=0, images=1))
    assert (pixels(second) == pixels(result, 1)).all()


def test_a_variation_without_a_subseed_draws_one(roomy: Engine) -> None:
    result = draw_one(roomy, replace(RED, subseed_strength=0.3))
    assert result.request.subseed is not None
    again = draw_one(roomy, result.request)
    assert (pixels(again) == pixels(result)).all()
