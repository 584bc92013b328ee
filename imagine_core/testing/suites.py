"""The suites that a plugin of each kind must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import SkipTest

from imagine_core.interfaces import Device, Enhancer
from imagine_core.parts import Layers
from imagine_core.testing.fakes import FakeDevice
from imagine_core.testing.rules import NONE, hold

STEPS = (1, 2, 7, 50, 1000)
PROMPTS = (
    "a fox",
    "ein Fuchs im Schnee, 狐狸 🦊",
    'a (red:1.3) fox says "no\\n", {braces} BREAK\nand a second line',
    "a very long walk, " * 200,
)
"""Prompts that plugins have stumbled over."""


def check_sampler(  # noqa: PLR0913 - all but the first two have a value that suits most
    plugin: object,
    name: str,
    *,
    order: float = 1.0,
    distilled: bool = False,
    steps: Sequence[int] = STEPS,
    excused: Mapping[str, str] = NONE,
) -> None:
    """Check a sampler, on a model of Gaussian pictures whose right answer is known.

    Args:
        plugin: What the entry point names: a module, a class, or an object.
        name: The sampler's name.
        order: The order at which its error falls with its steps, if it is deterministic.
        distilled: Whether it wants a model that was distilled to jump to the end of its path.
        steps: The numbers of steps after which no latent may be infinite or NaN.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.sampler_driving import quickly
    from imagine_core.testing.sampler_rules import RULES
    from imagine_core.testing.sampler_runs import Sampled

    with quickly():
        sampled = Sampled(plugin, name, order, distilled, steps)
        hold(f"sampler {name!r}", RULES, sampled, excused=excused)


def check_loader(  # noqa: PLR0913 - all but the first two have a value that suits most
    plugin: object,
    path: Path,
    *,
    device: Device | None = None,
    size: tuple[int, int] = (128, 64),
    patience: float = 1.0,
    excused: Mapping[str, str] = NONE,
) -> None:
    """Check a model loader with a model that it can load: the smaller, the quicker.

    Args:
        plugin: What the entry point names: a module, or a class in a module.
        path: The model: a file or a folder.
        device: Where it is to run; the CPU in float32 where none is given.
        size: Width and height of the pictures to try, as the model can make them.
        patience: Seconds that recognising the model may take.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.loader_rules import RULES
    from imagine_core.testing.loader_under_test import LoadedModel
    from imagine_core.testing.model_rules import MODEL_RULES

    loaded = LoadedModel(
        plugin=plugin, path=path, device=device or FakeDevice(), size=size, patience=patience
    )
    hold(f"the loader of {path.name}", (*RULES, *MODEL_RULES), loaded, excused=excused)


def check_lora(
    plugin: object,
    path: Path,
    layers: Layers,
    *,
    patience: float = 1.0,
    excused: Mapping[str, str] = NONE,
) -> None:
    """Check a loader of LoRAs with a LoRA that it can load: the smaller, the quicker.

    Args:
        plugin: What the entry point names: a module, or a class in a module.
        path: The LoRA: a file or a folder.
        layers: The layers of a model that the LoRA is for, all that it changes among them.
        patience: Seconds that recognising the LoRA may take.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.loader_rules import RULES
    from imagine_core.testing.loader_under_test import LoadedLora
    from imagine_core.testing.lora_rules import LORA_RULES

    loaded = LoadedLora(
        plugin=plugin, path=path, device=FakeDevice(), layers=layers, patience=patience
    )
    hold(f"the loader of {path.name}", (*RULES, *LORA_RULES), loaded, excused=excused)


def check_upscaler_loader(
    plugin: object, path: Path, *, patience: float = 1.0, excused: Mapping[str, str] = NONE
) -> None:
    """Check a loader of upscalers with one that it can load: the smaller, the quicker.

    Args:
        plugin: What the entry point names: a module, or a class in a module.
        path: The upscaler: a file or a folder.
        patience: Seconds that recognising it may take.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.loader_rules import RULES
    from imagine_core.testing.loader_under_test import LoadedUpscaler
    from imagine_core.testing.upscaler_rules import UPSCALER_RULES

    loaded = LoadedUpscaler(plugin=plugin, path=path, device=FakeDevice(), patience=patience)
    hold(f"the loader of {path.name}", (*RULES, *UPSCALER_RULES), loaded, excused=excused)


def check_upscaler(plugin: object, name: str, *, excused: Mapping[str, str] = NONE) -> None:
    """Check an upscaler that needs no file.

    Args:
        plugin: What the entry point names: a module, a class, or an object.
        name: The upscaler's name.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.picture_rules import SPEC_RULES, Making

    hold(f"upscaler {name!r}", SPEC_RULES, Making(plugin, name), excused=excused)


def check_preprocessor(plugin: object, name: str, *, excused: Mapping[str, str] = NONE) -> None:
    """Check a preprocessor; of one that is not available here, its registration alone.

    Args:
        plugin: What the entry point names: a module, a class, or an object.
        name: The preprocessor's name.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.picture_rules import PREPROCESSOR_RULES, Making

    hold(f"preprocessor {name!r}", PREPROCESSOR_RULES, Making(plugin, name), excused=excused)


def check_device(plugin: object, name: str, *, excused: Mapping[str, str] = NONE) -> None:
    """Check a device. Where this machine has none, the test is skipped, with the device's reason.

    Args:
        plugin: What the entry point names: a module, a class, or an object.
        name: The device's name.
        excused: Rules that it need not keep, and why; each must really be broken.

    Raises:
        unittest.SkipTest: The device is not available; what could be checked without it was.
    """
    from imagine_core.testing.device_rules import ALWAYS, WHERE_AVAILABLE, Driven

    driven, subject = Driven(plugin, name), f"device {name!r}"
    hold(subject, ALWAYS, driven, excused={k: v for k, v in excused.items() if k in dict(ALWAYS)})
    problem = driven.device.unavailable()
    if problem is not None:
        raise SkipTest(f"{subject} is not available: {problem}")
    rest = {k: v for k, v in excused.items() if k not in dict(ALWAYS)}
    hold(subject, WHERE_AVAILABLE, driven, excused=rest)


def check_enhancer(
    enhancer: Enhancer,
    *,
    repeatable: bool = False,
    prompts: tuple[str, ...] = PROMPTS,
    patience: float = 1.0,
    excused: Mapping[str, str] = NONE,
) -> None:
    """Check a prompt enhancer. Whatever service it asks must be there, if only a fake one.

    Args:
        enhancer: The enhancer.
        repeatable: Whether the same seed must give the same prompt.
        prompts: What it is given.
        patience: Seconds that it may hold up the event loop, and take to stop when cancelled.
        excused: Rules that it need not keep, and why; each must really be broken.
    """
    from imagine_core.testing.enhancer_rules import RULES, Enhanced

    enhanced = Enhanced(enhancer, repeatable, prompts, patience)
    hold(f"enhancer {enhancer.name!r}", RULES, enhanced, excused=excused)
