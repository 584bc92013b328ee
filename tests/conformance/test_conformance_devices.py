"""check_device finds each fault that it looks for, and none in a device that is right."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import pytest
import torch

from imagine_core import Device, hookimpl
from imagine_core.testing import BrokenRule, FakePlugin, check_device
from imagine_core.testing.device_rules import ALWAYS, WHERE_AVAILABLE
from imagine_plugins.devices import cpu, cuda, mps, rocm


class Mine(Device):
    """The CPU under another name, which is its own plugin."""

    name, label = "mine", "Mine"

    def __init__(self, **answers: Any) -> None:
        """`answers` are what methods answer, or attributes are."""
        for name, answer in answers.items():
            setattr(self, name, answer)

    @hookimpl
    def register_devices(self, register: Callable[[Device], None]) -> None:
        register(self)

    def unavailable(self) -> str | None:
        return None

    def torch_device(self) -> str:
        return "cpu"

    def dtype(self) -> torch.dtype:
        return torch.float32


def fails(*_: object) -> Any:
    raise OSError("no driver")


def fickle() -> Callable[[], str]:
    count = iter(range(100))
    return lambda: f"try again {next(count)}"


def of_one_thread() -> Callable[[], Callable[[], None]]:
    """A driver that only the thread that opened it may use."""
    here = threading.get_ident()

    def fence() -> Callable[[], None]:
        if threading.get_ident() != here:
            fails()
        return lambda: None

    return fence


BROKEN: list[tuple[str, str, Callable[[], Mine]]] = [
    ("device-registered", "'my gpu' is not one", lambda: Mine(name="my gpu")),
    ("device-registered", "is taken by plugin", lambda: Mine(name="cpu")),
    ("device-registered", '"auto" stands for', lambda: Mine(name="auto")),
    ("device-registered", "label is empty", lambda: Mine(label="")),
    ("device-registered", "priority is 'high'", lambda: Mine(priority="high")),
    ("device-availability", "OSError: no driver", lambda: Mine(unavailable=fails)),
    ("device-availability", "without a reason", lambda: Mine(unavailable=lambda: "")),
    ("device-availability", "answers False", lambda: Mine(unavailable=lambda: False)),
    ("device-availability", "something else", lambda: Mine(unavailable=fickle())),
    ("device-tensors", "RuntimeError", lambda: Mine(torch_device=lambda: "mine")),
    ("device-tensors", "`torch_device` answers", lambda: Mine(torch_device=lambda: None)),
    ("device-dtypes", "torch.int8 holds no", lambda: Mine(dtype=lambda: torch.int8)),
    ("device-dtypes", "'float32' is no dtype", lambda: Mine(vae_dtype=lambda _: "float32")),
    ("device-memory", "free memory is -1", lambda: Mine(free_memory=lambda: -1)),
    ("device-memory", "nothing that can be called", lambda: Mine(watch_memory=lambda: 0)),
    ("device-memory", "peak is 0.5", lambda: Mine(watch_memory=lambda: lambda: 0.5)),
    ("device-memory", "OSError", lambda: Mine(empty_cache=fails)),
    ("device-fence", "nothing that can be called", lambda: Mine(fence=lambda: None)),
    ("device-network", "it raised", lambda: Mine(dtype=lambda: torch.float8_e4m3fn)),
    ("device-picture", "failed", lambda: Mine(fence=of_one_thread())),
]


@pytest.mark.parametrize(("plugin", "name"), [(cpu, "cpu"), (FakePlugin, "fake"), (Mine, "mine")])
def test_a_right_device_passes(plugin: object, name: str) -> None:
    check_device(plugin, name)


@pytest.mark.parametrize(("rule", "words", "build"), BROKEN)
def test_each_fault_is_found_and_named(rule: str, words: str, build: Callable[[], Mine]) -> None:
    device = build()
    with pytest.raises(BrokenRule) as caught:
        check_device(device, device.name)
    assert caught.value.rule == rule, caught.value
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"device {device.name!r} breaks the rule")
    assert f"docs/conformance.md#{rule}" in str(caught.value)


def test_a_network_that_comes_out_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As float16 on a device that loses the small numbers."""
    monkeypatch.setattr(torch.nn.functional, "silu", lossy(torch.nn.functional.silu))
    device = Mine(dtype=lambda: torch.bfloat16)
    with pytest.raises(BrokenRule, match=r"a small network in torch.bfloat16 is .* away"):
        check_device(device, "mine")


def lossy(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x: function(x) * (0.5 if x.dtype == torch.bfloat16 else 1)


def test_every_rule_has_a_device_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(dict([*ALWAYS, *WHERE_AVAILABLE]))


def test_a_device_that_is_not_here_skips_the_test_with_its_reason() -> None:
    with pytest.raises(SkipTest, match="device 'mine' is not available: no such card"):
        check_device(Mine(unavailable=lambda: "no such card"), "mine")


def test_an_excuse_goes_to_the_rule_that_it_names() -> None:
    device = Mine(free_memory=lambda: -1)
    check_device(device, "mine", excused={"device-memory": "the driver does not know"})
    with pytest.raises(AssertionError, match="there is no rule 'device-speed'"):
        check_device(Mine(), "mine", excused={"device-speed": "slow"})


@pytest.mark.parametrize(
    ("plugin", "name"), [(cuda, "cuda"), (rocm, "rocm"), (mps, "mps")], ids=["cuda", "rocm", "mps"]
)
def test_a_built_in_accelerator_passes_where_there_is_one(plugin: object, name: str) -> None:
    check_device(plugin, name)
