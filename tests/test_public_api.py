"""What plugins may import is said, and the built-in plugins import nothing else."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import api_reference

ROOT = api_reference.ROOT
PUBLIC = {module: names for module, _, names in api_reference.public()}
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
EXAMPLES = sorted((ROOT / "docs" / "examples").rglob("*.py"))
PAGES = sorted((ROOT / "docs").glob("*.md"))


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Each module of the core that is imported from, and the name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imagine_core"):
            for each in node.names:
                yield str(node.module), each.name
        elif isinstance(node, ast.Import):
            for each in node.names:
                assert not each.name.startswith("imagine_core"), "import names, not modules"


def hidden(source: str) -> list[str]:
    """What is imported and is on no list; a public module may be imported as a whole."""
    return [
        f"{module}.{name}"
        for module, name in imports(source)
        if name not in PUBLIC.get(module, ()) and f"{module}.{name}" not in PUBLIC
    ]


@pytest.mark.parametrize(
    "path", [*PLUGINS, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_plugins_import_public_names_only(path: Path) -> None:
    assert hidden(path.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_import_public_names_only(page: Path) -> None:
    for block in re.findall(
        r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        assert hidden(block) == []


def test_a_name_on_no_list_is_found() -> None:
    assert hidden("from imagine_core.engine.worker import Worker") == [
        "imagine_core.engine.worker.Worker"
    ]
    assert hidden("from imagine_core.errors import FAULTY") == ["imagine_core.errors.FAULTY"]
    assert hidden("from imagine_core import hookimpl, network") == []


@pytest.mark.parametrize("module", PUBLIC)
def test_a_list_is_sorted_and_its_names_are_there(module: str) -> None:
    assert PUBLIC[module] == sorted(PUBLIC[module], key=_order)
    assert len(set(PUBLIC[module])) == len(PUBLIC[module])
    loaded = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []


def test_the_page_is_what_the_modules_say() -> None:
    assert api_reference.PAGE.read_text("utf-8") == api_reference.page(), (
        "run python tests/support/api_reference.py"
    )


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions: as ruff sorts `__all__`."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name
