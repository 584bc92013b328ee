"""The documents are true: every hook described, every example runs, every link leads somewhere."""

from __future__ import annotations

import importlib
import io
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine_core import GenerationRequest, hookspecs
from imagine_core.errors import ImagineError
from imagine_core.plugins import build_plugins
from imagine_core.testing import FakeModel, build_test_engine, draw_one

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def hook_signatures() -> dict[str, tuple[str, ...]]:
    hooks = build_plugins(found=[]).manager.hook
    specs = {name: getattr(hooks, name).spec for name in vars(hooks) if not name.startswith("_")}
    return {name: spec.argnames for name, spec in specs.items()}


def test_every_hook_is_documented_under_its_signature() -> None:
    text = (ROOT / "docs" / "hooks.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    expected = [f"{name}({', '.join(args)})" for name, args in hook_signatures().items()]
    assert sorted(headings) == sorted(expected)


def test_every_hook_has_a_builtin_plugin_that_needs_it() -> None:
    used = {hook for report in build_plugins().reports() for hook in report.hooks}
    assert used == set(hook_signatures())


def test_every_hook_has_a_docstring() -> None:
    for name in hook_signatures():
        assert getattr(hookspecs, name).__doc__


def test_every_error_is_drawn_in_the_tree() -> None:
    from imagine_core import errors

    assert errors.__doc__ is not None
    pending = [ImagineError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        if error.__module__ == errors.__name__:
            assert re.search(rf"\b{error.__name__}\b", errors.__doc__), error


def test_the_samplers_in_the_documents_draw(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "hooks.md").read_text()
    code = next(code for code in FENCE.findall(text) if "register_samplers" in code)
    written = types.ModuleType("written")
    exec(code, written.__dict__)  # noqa: S102
    sys.path.insert(0, str(ROOT / "docs" / "examples" / "imagine-sampler-rk4"))
    package = importlib.import_module("imagine_sampler_rk4")
    engine = build_test_engine(tmp_path, extra=[("written", written), ("package", package)])
    wanted = (np.array(FakeModel.colour("red")[:3]) + 1) * 127.5
    for sampler in ("ddim by hand", "rk4"):
        plain = GenerationRequest(prompt="red", sampler=sampler, steps=12, guidance_scale=1, seed=1)
        for request in (plain, replace(plain, init_image=png_of(wanted), strength=0.5)):
            picture = np.asarray(draw_one(engine, request).images[0].image)
            assert abs(picture.mean(axis=(0, 1)) - wanted).max() < 4, request
    engine.close()


def png_of(colour: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (512, 512), tuple(int(c) for c in colour)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_example_runs_as_it_stands(page: Path) -> None:
    for number, code in enumerate(FENCE.findall(page.read_text()), start=1):
        scope = {"__name__": "example", "__file__": str(page)}
        exec(compile(code, f"{page.name}, example {number}", "exec"), scope)  # noqa: S102


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target
