"""docs/samplers.md lists all samplers."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import pytest

from engines import TEN_SAMPLERS
from imagine_core import SamplerSpec
from imagine_core.schedules import SCHEDULES
from imagine_plugins.samplers.diffusers_schedulers import SAMPLERS
from imagine_plugins.samplers.scheduler_options import OF_THE_MODEL
from samplers.driving import registry

PAGE = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text()


def line(spec: SamplerSpec) -> str:
    """The row of the table in docs/samplers.md for a sampler."""
    cells = (
        f"`{spec.name}`",
        spec.label,
        ", ".join(f"`{alias}`" for alias in spec.aliases),
        str(spec.evaluations),
        "yes" if spec.stochastic else "no",
        "all" if spec.schedules == tuple(SCHEDULES) else ", ".join(spec.schedules),
        f"imagine-samplers-{registry().plugin_of(spec.name)}",
    )
    return "| " + " | ".join(cells) + " |"


def test_the_table_lists_every_sampler_as_it_is_registered() -> None:
    listed = re.findall(r"^\| `.*\| imagine-.*$", PAGE, re.MULTILINE)
    assert listed == [line(spec) for spec in registry()]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_is_explained(schedule: str) -> None:
    assert f"| `{schedule}` |" in PAGE


@pytest.mark.parametrize("kind", [name for name in dir(diffusers) if name.endswith("Scheduler")])
def test_every_scheduler_of_diffusers_is_offered_or_left_out_for_a_reason(kind: str) -> None:
    offered = {f"{row.scheduler}Scheduler" for row in SAMPLERS}
    left_out = PAGE[PAGE.index("## Left out") :]
    assert (kind in offered) != (re.search(rf"\b{kind}\b", left_out) is not None)


@pytest.mark.parametrize("option", sorted(OF_THE_MODEL))
def test_every_option_that_belongs_to_the_model_is_named_with_what_it_counts_for(
    option: str,
) -> None:
    (named,) = (row for row in PAGE.splitlines() if row.startswith("|") and f"`{option}`" in row)
    assert not named.endswith("| nothing |")


def test_the_ten_samplers_that_everybody_asks_for_are_there() -> None:
    assert {registry().get(name).name for name in TEN_SAMPLERS} == {*TEN_SAMPLERS}
