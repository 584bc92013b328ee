"""The enhancer against the rules of all, and its own."""

import asyncio

from imagine_enhancer_seasons import Seasons

from imagine_core import EnhanceTask
from imagine_core.enhancing import enhanced
from imagine_core.testing import check_enhancer


def test_seasons_does_what_enhancers_do():
    """The suite that every enhancer passes."""
    check_enhancer(Seasons(), repeatable=True)


def test_a_season_that_the_prompt_names_stays():
    """And the others are what to keep away from."""
    task = EnhanceTask(prompt="a fox, winter", seed=1, negative=True)
    made = asyncio.run(enhanced(Seasons(), task))
    assert made.prompt == "a fox, winter"
    assert made.negative_prompt == "spring, summer, autumn"
