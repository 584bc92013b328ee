"""check_lora finds each fault that it looks for, and none in a loader that is right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from conformance import toy_lora_faults as toys
from conformance.toy_loras import LAYERS, ToyLoras, write
from imagine_core.testing import BrokenRule, FakeDevice, check_lora
from imagine_core.testing.loader_under_test import LoadedLora
from imagine_core.testing.lora_rules import LORA_RULES
from imagine_core.testing.rules import NONE, hold

BROKEN: list[tuple[str, str, type[ToyLoras]]] = [
    ("lora-described", "its kind is 'model'", toys.SaysModel),
    ("lora-described", "not a tuple", toys.FitsText),
    ("lora-described", "but not 'toy'", toys.FitsAnother),
    ("lora-described", "as models do", toys.Taking),
    ("lora-described", "set is not JSON", toys.Sets),
    ("lora-described", "not JSON compliant", toys.NotANumber),
    ("lora-described", "its triggers are 'boat'", toys.OneTrigger),
    ("lora-hash", "12 hex digits", toys.LongHash),
    ("lora-changes", "it changes nothing, and says nothing", toys.FitsNothing),
    ("lora-changes", "`fit` gives {", toys.FitsDict),
    ("lora-changes", "'lora_unet_up', which is no layer", toys.Stray),
    ("lora-changes", "the change of unet.other does nothing", toys.Empty),
    ("lora-shapes", "the update of unet.conv has the shape (4, 72)", toys.Flat),
    ("lora-shapes", "`down` of unet.conv", toys.FlatDown),
    ("lora-shapes", "the magnitude of unet.out has the shape (8, 1)", toys.Column),
    ("lora-shapes", "the magnitude of unet.out has the shape (8,), not (6,)", toys.Rows),
    ("lora-shapes", "the bias of unet.out", toys.Narrow),
    ("lora-shapes", "'boat' for the text_encoder", toys.OneVector),
    ("lora-low-rank", "away from `dense`", toys.Unscaled),
    ("lora-values", "float32, not torch.float16", toys.Single),
    ("lora-values", "the bias of unet.out is not finite", toys.Infinite),
    ("lora-values", "holds no fractions", toys.Whole),
    ("lora-device", "leaves the update of unet.norm behind", toys.Stays),
    ("lora-device", "takes the update of unet.norm away", toys.Moves),
    ("lora-shared", "computed the second time", toys.InPlace),
    ("lora-shared", "after it was fitted to another model", toys.Remembers),
    ("lora-shared", "compare them by identity", toys.Equal),
    ("lora-lacking", "no warning says that the model lacks unet.out", toys.Silent),
    ("lora-lacking", "cannot be used where the model lacks unet.out alone", toys.AllOrNothing),
    ("lora-lacking", "it changes unet.out where the model lacks it", toys.Invents),
    ("lora-misfit", "of a model twice as wide", toys.ByName),
    ("lora-misfit", "is not refused", toys.Contented),
    ("lora-misfit", "helps nobody", toys.Curt),
    ("lora-memory", "its tensors take", toys.Spreads),
    ("lora-closing", "still there after `close`", toys.Keeps),
    ("lora-closing", "it raised AttributeError", toys.ClosesOnce),
]


FOLLOWED = (toys.FitsNothing, toys.FitsDict, toys.Stray, toys.Moves)
"""Faults that keep later rules from being held."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("toys") / "boat.toy")


def hold_to(toy: Path, plugin: type[ToyLoras], excused: Mapping[str, str] = NONE) -> None:
    """Without the rules of all loaders, which start a process."""
    loaded = LoadedLora(plugin=plugin, path=toy, device=FakeDevice(), layers=LAYERS, patience=60)
    hold("the loader of boat.toy", LORA_RULES, loaded, excused=excused)


def test_a_right_loader_passes(toy: Path) -> None:
    check_lora(ToyLoras, toy, LAYERS, patience=60)


@pytest.mark.parametrize(("rule", "words", "plugin"), BROKEN)
def test_each_fault_is_found_and_named_and_breaks_no_other_rule(
    toy: Path, rule: str, words: str, plugin: type[ToyLoras]
) -> None:
    with pytest.raises(BrokenRule) as caught:
        hold_to(toy, plugin)
    assert caught.value.rule == rule, caught.value
    assert words in str(caught.value)
    assert f"docs/conformance.md#{rule}" in str(caught.value)
    if plugin not in FOLLOWED:
        hold_to(toy, plugin, excused={rule: "that is its fault"})


def test_a_loader_that_a_missing_layer_surprises_is_found(toy: Path) -> None:
    with pytest.raises(BrokenRule, match=r"it raised KeyError: 'unet\.norm'"):
        hold_to(toy, toys.Brittle)


def test_loaders_of_loras_keep_the_rules_of_all_loaders(toy: Path) -> None:
    with pytest.raises(BrokenRule, match="breaks the rule 'loader-registered'"):
        check_lora(toys.Loud, toy, LAYERS, patience=60)


def test_every_rule_of_loras_has_a_loader_that_breaks_it_alone() -> None:
    alone = {rule for rule, _, plugin in BROKEN if plugin not in FOLLOWED}
    assert alone == set(dict(LORA_RULES))
