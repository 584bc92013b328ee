"""docs/conformance.md has every rule under its name, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imagine_core.testing import (
    device_rules,
    enhancer_rules,
    loader_rules,
    lora_rules,
    model_rules,
    picture_rules,
    sampler_rules,
    upscaler_rules,
)
from imagine_core.testing.rules import PAGE

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").iterdir())


def test_every_rule_has_its_section_in_the_order_of_the_suite() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)
    rules = [
        *sampler_rules.RULES,
        *loader_rules.RULES,
        *model_rules.MODEL_RULES,
        *lora_rules.LORA_RULES,
        *upscaler_rules.UPSCALER_RULES,
        *picture_rules.SPEC_RULES,
        *picture_rules.PREPROCESSOR_RULES,
        *device_rules.ALWAYS,
        *device_rules.WHERE_AVAILABLE,
        *enhancer_rules.RULES,
    ]
    assert headings == [name for name, _ in rules]


def test_the_tutorial_s_files_are_those_of_the_example() -> None:
    tutorial = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    blocks = re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for name, content in blocks:
        example = ROOT / "docs" / "examples" / "imagine-sampler-rk4" / name
        assert content == example.read_text("utf-8"), f"{name} has changed in one place"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_is_complete_in_a_screen_or_two(example: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        assert (example / name).is_file()
    (module,), (test,) = example.glob("*.py"), example.glob("tests/test_*.py")
    plugin, tests = (len(file.read_text("utf-8").splitlines()) for file in (module, test))
    if "lora" in example.name:  # a format of files, and what it does to a model
        assert plugin < 160
    elif "dialect" in example.name:  # three methods, where the others have one
        assert plugin < 80
    else:
        assert plugin + tests < 60
