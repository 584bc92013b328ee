"""check_loader finds each fault that it looks for, and none in a loader that is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conformance import toys
from conformance.toys import Toys
from imagine_core.testing import BrokenRule, check_loader
from imagine_core.testing.loader_rules import RULES
from imagine_core.testing.model_rules import MODEL_RULES

BROKEN: list[tuple[str, str, type[Toys]]] = [
    ("loader-registered", "'Loud Toys' is not", toys.Loud),
    ("loader-registered", "is taken by plugin 'imagine-loaders'", toys.Taken),
    ("loader-registered", "no loader of the plugin recognises", toys.Blind),
    ("loader-described", "lies at /elsewhere", toys.SaysPath),
    ("loader-described", "the loader is 'another'", toys.SaysLoader),
    ("loader-described", "'My model'", toys.SaysName),
    ("loader-described", "no family", toys.SaysFamily),
    ("loader-described", "0 bytes", toys.SaysSize),
    ("loader-described", "clip_layers is 0", toys.SaysLayers),
    ("loader-described", "(500, 500)", toys.SaysSides),
    ("loader-described", "not all texts", toys.SaysMetadata),
    ("loader-described", "come back tomorrow", toys.SaysProblem),
    ("loader-described", "the second time", toys.Fickle),
    ("loader-quick", "thousands of files", toys.Slow),
    ("loader-light", "imports torch", toys.Heavy),
    ("loader-others", "takes notes.txt for a model", toys.Greedy),
    ("loader-others", "it raised FileNotFoundError", toys.Trusting),
    ("loader-foreign", "it loads an empty file", toys.BySuffix),
    ("loader-foreign", "helps nobody", toys.Curt),
    ("loader-foreign", "where the model lies", toys.Indiscreet),
    ("loader-truncated", "it loads a copy cut to 90%", toys.Unmeasured),
    ("loader-truncated", "vanishes without a word", toys.Silent),
    ("loader-progress", "50.0", toys.Percent),
    ("loader-progress", "it goes back", toys.Backwards),
    ("model-described", "downsampling is 0", toys.NoCell),
    ("model-described", "10 hex digits", toys.LongHash),
    ("model-described", "of the kind 'vp', not 'flow'", toys.SaysNoise),
    ("model-complete", "meta device", toys.Hollow),
    ("model-complete", "a weight is not finite", toys.NotNumbers),
    ("model-prompts", "every prompt is encoded alike", toys.OneForAll),
    ("model-prompts", "rows, not one", toys.TwoRows),
    ("model-predictions", "when another is beside it", toys.Sociable),
    ("model-predictions", "not float32", toys.Double),
    ("model-pictures", "(128, 64) L", toys.Grey),
    ("model-pictures", "`preview` makes", toys.LargePreview),
    ("model-pictures", "another latent the second time", toys.Forgetful),
    ("model-closing", "weights are still there", toys.Keeps),
]
READS_ALL = pytest.param(
    "loader-quick",
    "recognising reads 4",
    toys.ReadsAll,
    marks=pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's count of bytes read"),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write(tmp_path_factory.mktemp("toys") / "boat.toy")


def test_a_right_loader_passes(toy: Path) -> None:
    check_loader(Toys, toy, patience=60)


@pytest.mark.parametrize(("rule", "words", "plugin"), [*BROKEN, READS_ALL])
def test_each_fault_is_found_and_named(
    toy: Path, rule: str, words: str, plugin: type[Toys]
) -> None:
    with pytest.raises(BrokenRule) as caught:
        check_loader(plugin, toy, patience=0.05 if plugin is toys.Slow else 60)
    assert caught.value.rule == rule, caught.value
    assert words in str(caught.value)
    assert str(caught.value).startswith("the loader of boat.toy breaks the rule")
    assert f"docs/conformance.md#{rule}" in str(caught.value)


def test_a_plugin_that_no_process_can_import_is_found(toy: Path) -> None:
    class Hidden(Toys):
        """Lives in a function."""

    with pytest.raises(BrokenRule, match="only a module, or a class in one"):
        check_loader(Hidden, toy, patience=60)


def test_every_rule_has_a_loader_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(dict((*RULES, *MODEL_RULES)))
