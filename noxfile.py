"""The project's checks: `pip install nox && nox` runs them all."""

# /// script
# dependencies = ["nox"]
# ///

from __future__ import annotations

import pathlib

import nox

nox.needs_version = ">=2024.10"
# pip resolves a CPU build of torch where an index offers one; uv ignores local wheels.
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests", "third_party"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("--constraint", "constraints.txt")


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling and format."""
    session.install(*CONSTRAINTS, *groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy in strict mode."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("types", "test"), "nox")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test that a machine without an accelerator can run, docs among them."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test"))
    session.run("pytest", "-m", "not slow", *session.posargs)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """The tests on full-size checkpoints, and on every schedule with a thousand steps."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test"))
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def third_party(session: nox.Session) -> None:
    """A stranger's package beside our wheel, in an environment without the checkout."""
    session.install(*CONSTRAINTS, "build", "pytest")
    wheels = session.create_tmp()
    for package in (".", "docs/examples/imagine-sampler-rk4"):
        session.run("python", "-m", "build", "--wheel", "--outdir", wheels, package)
    session.install(*CONSTRAINTS, *map(str, pathlib.Path(wheels).glob("*.whl")))
    with session.chdir(wheels):  # so that nothing is imported from the checkout
        session.run("python", session.invoked_from + "/tests/third_party/main.py")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The figures of docs/performance.md."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test"))
    session.run("python", "tests/bench/main.py", *session.posargs, env={"PYTHONPATH": "tests"})
