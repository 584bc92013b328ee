"""For tests of plugins and of applications: everything real but the weights, and suites to pass.

    engine = build_test_engine(folder)          # a models folder with one fake model in it
    result = draw_one(engine, GenerationRequest(prompt="red", sampler="test euler"))

    def test_my_sampler_does_what_samplers_do():
        check_sampler(my_plugin, "my sampler")

The fake model is an exact denoiser of a Gaussian whose mean depends on the prompt, so that every
sampler that is right ends at a picture that can be foretold. The suites raise `BrokenRule`, which
says which rule is broken and how; docs/conformance.md has them all.
"""

from __future__ import annotations

from imagine_core.testing.engine_building import (
    build_test_app,
    build_test_engine,
    build_test_plugins,
    collect,
    draw_one,
)
from imagine_core.testing.fakes import (
    NOISE,
    SPREAD,
    FakeClock,
    FakeDevice,
    FakeLoader,
    FakeModel,
    FakePlugin,
    euler,
)
from imagine_core.testing.rules import BrokenRule
from imagine_core.testing.suites import (
    check_device,
    check_enhancer,
    check_loader,
    check_lora,
    check_preprocessor,
    check_sampler,
    check_upscaler,
    check_upscaler_loader,
)

__all__ = [
    "NOISE",
    "SPREAD",
    "BrokenRule",
    "FakeClock",
    "FakeDevice",
    "FakeLoader",
    "FakeModel",
    "FakePlugin",
    "build_test_app",
    "build_test_engine",
    "build_test_plugins",
    "check_device",
    "check_enhancer",
    "check_loader",
    "check_lora",
    "check_preprocessor",
    "check_sampler",
    "check_upscaler",
    "check_upscaler_loader",
    "collect",
    "draw_one",
    "euler",
]
