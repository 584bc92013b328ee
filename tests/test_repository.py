"""What the repository says of itself in several places agrees: Pythons, versions, addresses."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
REPOSITORY = PROJECT["urls"]["Source"]


def jobs(name: str) -> dict[str, Any]:
    """The jobs of a workflow."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in found}


def test_the_package_claims_the_pythons_that_ci_tests() -> None:
    tested = jobs("ci")["tests"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    claimed = [text for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert claimed == [f"Programming Language :: Python :: {version}" for version in tested]
    assert PROJECT["requires-python"] == f">={tested[0]}"


def test_ci_runs_the_sessions_that_nox_runs() -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    listed = re.search(r"nox\.options\.sessions = \[(.*)\]", noxfile)
    assert listed is not None
    steps = [step for job in jobs("ci").values() for step in job["steps"]]
    named = [step["run"].removeprefix("nox -s ") for step in steps if "nox -s" in str(step)]
    named += jobs("ci")["checks"]["strategy"]["matrix"]["session"]
    assert {*named} - {"${{ matrix.session }}"} == {*re.findall(r'"(\w+)"', listed[1])}


def test_nothing_is_published_that_was_not_tested() -> None:
    release = jobs("release")
    assert release["checks"]["uses"] == "./.github/workflows/ci.yml"
    assert [release[job]["needs"] for job in ("build", "pypi", "github")] == [
        "checks",
        "build",
        "pypi",
    ]


def test_only_the_job_that_publishes_on_pypi_may_ask_for_its_token() -> None:
    """The job that attests asks for a token too, but in no environment that PyPI trusts."""
    asks = {
        name: job.get("environment")
        for name, job in jobs("release").items()
        if job["permissions"].get("id-token") == "write"
    }
    assert asks["build"] is None
    assert asks["pypi"]["name"] == "pypi"
    assert set(asks) == {"build", "pypi"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_scripts_that_a_workflow_runs_are_there(path: Path) -> None:
    for script in re.findall(r"(?<![\w/])\.ci/\w+", path.read_text("utf-8")):
        assert os.access(ROOT / script, os.X_OK), script


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_a_dependency_is_pinned_within_its_bounds(dependency: Requirement) -> None:
    assert dependency.specifier, "a dependency without a lower bound admits everything"
    assert dependency.specifier.contains(pins()[canonicalize_name(dependency.name)])


@pytest.mark.parametrize("group", ["lint", "types", "test", "node"])
def test_a_tool_is_pinned(group: str) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    names = {canonicalize_name(Requirement(text).name) for text in groups[group]}
    assert names <= set(pins())


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"]
)
def test_a_page_points_to_the_repository_of_the_package(page: str) -> None:
    found = re.findall(r"https://github\.com/[\w-]+/[\w-]+", (ROOT / page).read_text("utf-8"))
    assert found
    assert set(found) == {REPOSITORY}


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()


def test_contributors_are_sent_to_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"(?<![\w/])(?:[\w.]+/)+(?:\w+\.(?:py|md))?(?!\w)", text)
    assert "imagine_core/fields.py" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
