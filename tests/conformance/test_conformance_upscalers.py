"""The suites of upscalers and preprocessors find each fault, and none in those that are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conformance import toy_upscalers as toys
from conformance.toy_upscalers import ToyUpscalers, write
from imagine_core import Preprocessor, UpscalerSpec, hookimpl
from imagine_core.models import hashing
from imagine_core.testing import (
    BrokenRule,
    FakeDevice,
    check_preprocessor,
    check_upscaler,
    check_upscaler_loader,
)
from imagine_core.testing.loader_under_test import LoadedUpscaler
from imagine_core.testing.rules import hold
from imagine_core.testing.upscaler_rules import UPSCALER_RULES
from imagine_plugins.loaders import plugin as loaders
from imagine_plugins.preprocessors import plugin as preprocessors
from imagine_plugins.upscalers import resampling
from upscalers import compact, rrdb, save


@pytest.fixture(autouse=True)
def _own_hash_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "cache" / "hashes.json")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    "tensors",
    [rrdb("first"), rrdb("second", doublings=1), rrdb(channels=12), compact(factor=2)],
    ids=["first", "second", "squares", "compact"],
)
def test_the_built_in_loader_passes(tmp_path: Path, name: str, tensors: Any) -> None:
    check_upscaler_loader(loaders, save(tmp_path / name, tensors), patience=60)


@pytest.mark.parametrize("spec", resampling.UPSCALERS, ids=lambda spec: spec.name)
def test_the_built_in_upscalers_pass(spec: UpscalerSpec) -> None:
    check_upscaler(resampling, spec.name)


@pytest.mark.parametrize("item", preprocessors.PREPROCESSORS, ids=lambda item: item.name)
def test_the_built_in_preprocessors_pass(item: Preprocessor) -> None:
    check_preprocessor(preprocessors, item.name)


def test_a_toy_that_is_right_passes(tmp_path: Path) -> None:
    check_upscaler_loader(ToyUpscalers, write(tmp_path / "a.toy"))


BROKEN: list[tuple[str, str, type[ToyUpscalers]]] = [
    ("upscaler-described", "its kind is 'model'", toys.Model),
    ("upscaler-described", "say the factor None", toys.Silent),
    ("upscaler-described", "2.5, not a whole number", toys.Fraction),
    ("upscaler-hash", "10 hex digits", toys.LongHash),
    ("upscaler-sizes", r"of \(1, 1\) it makes \(1, 1\), not \(2, 2\)", toys.Once),
    ("upscaler-sizes", "mode L", toys.Grey),
    ("upscaler-sizes", "changes the picture that it is given", toys.Paints),
    ("upscaler-sizes", "it is at \\[100.0", toys.Percent),
    ("upscaler-sizes", "goes back", toys.Back),
    ("upscaler-repeats", "another the second time", toys.Counts),
    ("upscaler-seams", "dB from the same part", toys.Stretches),
    ("upscaler-closing", "1 tensors are still there", toys.Keeps),
    ("upscaler-closing", "it raised AttributeError", toys.ClosesOnce),
]


@pytest.mark.parametrize(("rule", "said", "toy"), BROKEN)
def test_a_fault_breaks_its_rule_in_words(
    tmp_path: Path, rule: str, said: str, toy: type[ToyUpscalers]
) -> None:
    path = write(tmp_path / "a.toy")
    loaded = LoadedUpscaler(plugin=toy, path=path, device=FakeDevice(), patience=1)
    with pytest.raises(BrokenRule, match=said) as caught:
        hold("a toy", UPSCALER_RULES, loaded)
    assert caught.value.rule == rule


def test_each_rule_of_loaders_is_broken_by_a_toy() -> None:
    assert {rule for rule, _, _ in BROKEN} == {name for name, _ in UPSCALER_RULES}


class Brings:
    """A plugin with an upscaler and a preprocessor."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    @hookimpl
    def register_upscalers(self, register: Callable[[UpscalerSpec], None]) -> None:
        usual = {"name": "toy", "label": "Toy", "enlarge": lambda image, size: image.resize(size)}
        keys = usual.keys() & self.changes.keys()
        register(UpscalerSpec(**{**usual, **{key: self.changes[key] for key in keys}}))

    @hookimpl
    def register_preprocessors(self, register: Callable[[Preprocessor], None]) -> None:
        usual = {"name": "toy", "label": "Toy", "prepare": lambda image: image.copy()}
        own = {key: value for key, value in self.changes.items() if key != "enlarge"}
        register(Preprocessor(**{**usual, **own}))


def shouted(image: Image.Image, size: tuple[int, int] = (1, 1)) -> Image.Image:
    image.putpixel((0, 0), (1, 2, 3))
    return image.resize(size)


SPECS: list[tuple[str, str, dict[str, Any]]] = [
    ("upscaler-spec-registered", "no label", {"label": " "}),
    ("upscaler-spec-sizes", "not \\(2, 2\\)", {"enlarge": lambda image, size: image.copy()}),
    ("upscaler-spec-sizes", "mode L", {"enlarge": lambda i, size: i.convert("L").resize(size)}),
    ("upscaler-spec-sizes", "changes the picture", {"enlarge": shouted}),
    (
        "upscaler-spec-flat",
        "levels away",
        {"enlarge": lambda i, size: i.resize(size).point(lambda v: v // 2)},
    ),
]


@pytest.mark.parametrize(("rule", "said", "changes"), SPECS)
def test_a_fault_of_an_upscaler_breaks_its_rule(
    rule: str, said: str, changes: dict[str, Any]
) -> None:
    check_upscaler(Brings(), "toy")
    with pytest.raises(BrokenRule, match=said) as caught:
        check_upscaler(Brings(**changes), "toy")
    assert caught.value.rule == rule


HINTS: list[tuple[str, str, dict[str, Any]]] = [
    ("preprocessor-registered", "`unavailable` gives ''", {"unavailable": lambda: ""}),
    ("preprocessor-hints", "a hint of \\(1, 1\\)", {"prepare": lambda image: image.resize((1, 1))}),
    ("preprocessor-hints", "mode L", {"prepare": lambda image: image.convert("L")}),
    ("preprocessor-hints", "changes the picture", {"prepare": shouted}),
]


@pytest.mark.parametrize(("rule", "said", "changes"), HINTS)
def test_a_fault_of_a_preprocessor_breaks_its_rule(
    rule: str, said: str, changes: dict[str, Any]
) -> None:
    check_preprocessor(Brings(), "toy")
    with pytest.raises(BrokenRule, match=said) as caught:
        check_preprocessor(Brings(**changes), "toy")
    assert caught.value.rule == rule


def test_a_preprocessor_that_lacks_something_is_checked_as_far_as_it_goes() -> None:
    def fails(image: Image.Image) -> Image.Image:
        raise ImportError("no cv2")

    check_preprocessor(Brings(prepare=fails, unavailable=lambda: "cv2 is missing"), "toy")
