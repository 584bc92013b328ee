"""Shifts of flow models are those of diffusers' pipelines and schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from imagine_plugins.loaders.flow.shifts import (
    EmpiricalShift,
    FixedShift,
    Shift,
    ShiftBySize,
    configured,
)


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 6032])
@pytest.mark.parametrize(("most", "most_tokens"), [(1.15, 4096), (0.9, 8192)])
def test_the_shift_by_size_is_that_of_diffusers_flux(
    tokens: int, most: float, most_tokens: int
) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    shift = ShiftBySize(most=most, most_tokens=most_tokens)
    mu = calculate_shift(tokens, 256, most_tokens, 0.5, most)
    assert shift.factor(tokens, 20) == pytest.approx(math.exp(mu))


@pytest.mark.parametrize("tokens", [256, 4096, 4300, 4301, 10000])
@pytest.mark.parametrize("steps", [4, 50, 200])
def test_the_empirical_shift_is_that_of_diffusers_flux2(tokens: int, steps: int) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    mu = compute_empirical_mu(tokens, steps)
    assert EmpiricalShift().factor(tokens, steps) == pytest.approx(math.exp(mu))


@pytest.mark.parametrize("shift", [FixedShift(3.0), ShiftBySize()])
def test_a_factor_on_sigma_moves_times_as_diffusers_scheduler(shift: Shift) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    factor = shift.factor(1024, 8)
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0 if isinstance(shift, ShiftBySize) else factor,
        use_dynamic_shifting=isinstance(shift, ShiftBySize),
    )
    times = [1 - step / 8 for step in range(8)]
    mu = math.log(factor) if isinstance(shift, ShiftBySize) else None
    scheduler.set_timesteps(sigmas=times, mu=mu)
    for time, shifted in zip(times[1:], scheduler.sigmas.tolist()[1:], strict=False):
        sigma = factor * time / (1 - time)
        assert sigma / (1 + sigma) == pytest.approx(shifted, rel=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "shift"),
    [
        ({}, FixedShift(7.0)),
        ({"shift": 6.0}, FixedShift(6.0)),
        ({"shift": 3.0, "use_dynamic_shifting": False}, FixedShift(3.0)),
        ({"use_dynamic_shifting": True}, ShiftBySize()),
        (
            {
                "use_dynamic_shifting": True,
                "base_shift": 0.4,
                "max_shift": 0.9,
                "base_image_seq_len": 100,
                "max_image_seq_len": 8192,
                "shift_terminal": 0.02,
            },
            ShiftBySize(base=0.4, most=0.9, base_tokens=100, most_tokens=8192, terminal=0.02),
        ),
        ({"use_dynamic_shifting": True, "shift_terminal": False}, ShiftBySize()),
        ({"shift": "much"}, FixedShift(7.0)),
        ({"shift": -1.0}, FixedShift(7.0)),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 256}, FixedShift(7.0)),
        ({"use_dynamic_shifting": True, "base_shift": None}, FixedShift(7.0)),
    ],
)
def test_a_folders_scheduler_says_its_shift(scheduler: dict[str, Any], shift: Shift) -> None:
    assert configured(scheduler, FixedShift(7.0)) == shift


def test_flux2_has_its_shift_whatever_the_scheduler_says() -> None:
    usual = EmpiricalShift()
    assert configured({"use_dynamic_shifting": True, "shift": 3.0}, usual) is usual
