"""Writes what plugins may import into docs/api.md: `python tests/support/api_reference.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# What plugins may import

The names on this page are Imagine's public interface: they change only with a line in the
[changelog](../CHANGELOG.md). Each module lists them in its `__all__`; whatever is on no such list
may change at any time. Imagine's own plugins import nothing else, and a test holds them to it.
`imagine_core` itself has the names that most plugins need.
"""


def public() -> Iterator[tuple[str, ast.Module, list[str]]]:
    """Each module of the core that has an `__all__`, its syntax tree, and the names."""
    for path in sorted((ROOT / "imagine_core").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        names = exported(tree)
        if names:
            yield module_name(path), tree, names


def module_name(path: Path) -> str:
    """The name that the file of a module is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exported(tree: ast.Module) -> list[str]:
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(ast.literal_eval(each)) for each in getattr(node.value, "elts", ())]
    return []


def page() -> str:
    """The page, made of the docstrings."""
    return HEAD + "".join(_section(*each) for each in public())


def _section(module: str, tree: ast.Module, names: list[str]) -> str:
    lines = ["", f"## {module}", "", ast.get_docstring(tree, clean=True) or ""]
    lines[-1] = lines[-1].partition("\n")[0]
    lines += ["", "| name | |", "|---|---|"]
    said = _docstrings(tree)
    lines += [f"| `{name}` | {said.get(name) or _elsewhere(tree, name)} |" for name in names]
    return "\n".join(lines) + "\n"


def _docstrings(tree: ast.Module) -> dict[str, str]:
    """The first line on each class, function and constant of a module."""
    found: dict[str, str] = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            text = after.value.value if _is_text(after) else ""  # type: ignore[union-attr]
            found[ast.unparse(target)] = " ".join(str(text).split("\n\n")[0].split())
    return {name: text.replace("|", "\\|") for name, text in found.items()}


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _elsewhere(tree: ast.Module, name: str) -> str:
    """The module that a name comes from, and what is said of it there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}:
            path = ROOT.joinpath(*(node.module or "").split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if path.exists():
                return _docstrings(ast.parse(path.read_text("utf-8"))).get(name, "")
    return ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
