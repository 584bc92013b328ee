"""Installs third-party plugin packages as pip would: modules with entry points.

install(folder, "imagine-sampler-x", entry="sampler-x", module="sampler_x", source="...")
environment = {"PYTHONPATH": str(folder)}      # for a program that loads them
"""

from __future__ import annotations

import tomllib
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def install(folder: Path, distribution: str, *, entry: str, module: str, source: str) -> None:
    """Put a package into `folder`, as an installer would."""
    (folder / f"{module}.py").write_text(source, "utf-8")
    info = folder / f"{distribution.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n"
    (info / "METADATA").write_text(metadata, "utf-8")
    (info / "entry_points.txt").write_text(f"[imagine]\n{entry} = {module}\n", "utf-8")


def install_example(folder: Path, name: str) -> None:
    """Put a package of docs/examples into `folder`."""
    project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text("utf-8"))["project"]
    ((entry, module),) = project["entry-points"]["imagine"].items()
    source = (EXAMPLES / name / f"{module}.py").read_text("utf-8")
    install(folder, project["name"], entry=entry, module=module, source=source)
