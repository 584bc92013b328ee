"""The rules of devices, each with the check that raises if it is broken."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from imagine_core.hookspecs import hookimpl
from imagine_core.interfaces import Device, ModelLoader, SamplerSpec
from imagine_core.plugins import Plugins
from imagine_core.settings import Settings
from imagine_core.testing.engine_building import draw_one
from imagine_core.testing.fakes import FakeLoader, FakeModel, euler
from imagine_core.testing.plugin_registration import beside_the_installed
from imagine_core.types import GenerationRequest

EPSILON = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""How far a small network may be off in each dtype, next to outputs of about one."""


@dataclass
class Driven:
    """A device under test.

    Attributes:
        plugin: The plugin that registers it.
        name: Its name.
    """

    plugin: object
    name: str

    @cached_property
    def plugins(self) -> Plugins:
        """The installed plugins, this one, and what the suite draws with."""
        return beside_the_installed(self.plugin, extra=[(SUITE, Draws)])

    @cached_property
    def device(self) -> Device:
        """The device."""
        return self.plugins.devices.get(self.name)

    @property
    def dtypes(self) -> list[torch.dtype]:
        """What UNets and autoencoders compute in, by default and in full precision."""
        usual, full = self.device.dtype(), torch.float32
        every = [usual, self.device.vae_dtype(usual), full, self.device.vae_dtype(full)]
        return list(dict.fromkeys(every))


def registered(driven: Driven) -> None:
    """It is registered under a name that `--device` takes."""
    device = driven.device
    name = device.name
    assert name == "".join(name.lower().split()), f"its name {name!r} is not one in lower case"
    assert name != "auto", 'the name "auto" stands for the best device there is'
    label: object = getattr(device, "label", None)
    assert isinstance(label, str), f"its label is {label!r}"
    assert label.strip(), "its label is empty"
    assert isinstance(device.priority, int), f"its priority is {device.priority!r}"


def availability(driven: Driven) -> None:
    """It says whether it is available, and why not, without raising."""
    said: object = driven.device.unavailable()
    assert said is None or isinstance(said, str), f"`unavailable` answers {said!r}"
    assert said is None or said.strip(), "it is unavailable without a reason"
    assert driven.device.unavailable() == said, "it says something else when it is asked again"


def tensors(driven: Driven) -> None:
    """Torch knows the device, and tensors come back from it as they went."""
    place: object = driven.device.torch_device()
    assert isinstance(place, str), f"`torch_device` answers {place!r}"
    for sent in (torch.randn(3, 5), torch.arange(7)):
        assert torch.equal(sent.to(place).cpu(), sent), "tensors do not come back as they went"


def dtypes(driven: Driven) -> None:
    """Its dtypes hold fractions."""
    said: list[object] = [driven.device.dtype(), driven.device.vae_dtype(torch.float32)]
    for dtype in said:
        assert isinstance(dtype, torch.dtype), f"{dtype!r} is no dtype"
        assert dtype.is_floating_point, f"{dtype} holds no fractions"


def memory(driven: Driven) -> None:
    """What it says of its memory makes sense; None says that it cannot tell."""
    for _ in range(2):
        free: object = driven.device.free_memory()
        assert free is None or (isinstance(free, int) and free >= 0), f"free memory is {free!r}"
        watching: object = driven.device.watch_memory()
        assert callable(watching), "`watch_memory` answers nothing that can be called"
        held = torch.ones(2**20, device=driven.device.torch_device()) * 2
        most = watching()
        assert most is None or (isinstance(most, int) and most >= 0), f"its peak is {most!r}"
        del held
        driven.device.empty_cache()


def fence(driven: Driven) -> None:
    """Work can be waited for, at once or later, and more than once."""
    matrix = torch.ones(256, 256, device=driven.device.torch_device())
    first = driven.device.fence()
    product = matrix @ matrix
    for wait in (driven.device.fence(), first):
        assert callable(wait), "`fence` answers nothing that can be called"
        wait()
    assert float(product[0, 0]) == 256, "a product is wrong"


def network(driven: Driven) -> None:
    """What diffusion models are made of computes in each dtype what it does on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Network().requires_grad_(requires_grad=False), torch.randn(2, 4, 16, 16)
    expected = net(x)
    for dtype in driven.dtypes:
        there = Network().requires_grad_(requires_grad=False)
        there.load_state_dict(net.state_dict())
        place = driven.device.torch_device()
        found = there.to(place, dtype)(x.to(place, dtype)).float().cpu()
        away = float((found - expected).abs().max())
        limit = EPSILON.get(dtype, max(EPSILON.values()))
        assert away < limit, f"a small network in {dtype} is {away:.2g} away from the CPU's"


class Network(torch.nn.Module):
    """Convolution, normalisation and attention, as in a UNet and in an autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.into = torch.nn.Conv2d(4, 32, 3, padding=1)
        self.norm = torch.nn.GroupNorm(8, 32)
        self.mixes = torch.nn.Linear(32, 96)
        self.down = torch.nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.out = torch.nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same size as x."""
        functional = torch.nn.functional
        x = self.down(functional.silu(self.norm(self.into(x))))
        rows = x.flatten(2).transpose(1, 2)
        query, key, value = self.mixes(rows).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x = x + seen.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.out(x)  # type: ignore[no-any-return]


SUITE = "the suite"
RED = GenerationRequest(
    prompt="red",
    model="tiny",
    sampler=SUITE,
    steps=8,
    guidance_scale=1,
    width=64,
    height=64,
    seed=1,
)


class Draws:
    """The fake model and a sampler, under names of their own."""

    @hookimpl
    def register_model_loaders(self, register: Callable[[ModelLoader], None]) -> None:
        """Register the fake loader."""
        loader = FakeLoader()
        loader.name = SUITE
        register(loader)

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        """Register the plainest sampler."""
        register(SamplerSpec(name=SUITE, label="The suite's", sample=euler))


def picture(driven: Driven) -> None:
    """The engine draws on it, and the picture has the colour that was asked for."""
    import numpy as np

    from imagine_core.engine import build_engine

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.fake").touch()
        engine = build_engine(Settings(models=Path(folder), device=driven.name), driven.plugins)
        try:
            drawn = np.asarray(draw_one(engine, RED).images[0].image)
        finally:
            engine.close(grace=0)
    wanted = (np.array(FakeModel.colour("red")[:3]) + 1) * 127.5
    away = abs(drawn.mean(axis=(0, 1)) - wanted).max()
    assert away < 8, f"a picture's colour is {away:.0f} of 255 away from what was asked for"


ALWAYS: tuple[tuple[str, Callable[[Driven], None]], ...] = (
    ("device-registered", registered),
    ("device-availability", availability),
)
WHERE_AVAILABLE: tuple[tuple[str, Callable[[Driven], None]], ...] = (
    ("device-tensors", tensors),
    ("device-dtypes", dtypes),
    ("device-memory", memory),
    ("device-fence", fence),
    ("device-network", network),
    ("device-picture", picture),
)
