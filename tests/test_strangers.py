"""Third-party packages, good and bad, in a server: each fails alone and by name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from calls import error_of
from programs import KEY, command, serving
from strangers import install, install_example

SAMPLER = """
from imagine_core import Evaluation, SamplerSpec, hookimpl
from imagine_core.testing import euler

{sample}

@hookimpl
def register_samplers(register):
    register(SamplerSpec(name="{name}", label="Stranger's", sample=sample))
"""
ENHANCER = """
from imagine_core import Enhancer, hookimpl

class Bad(Enhancer):
    name, label, priority = "bad", "Bad", -100

    async def enhance(self, task):
        yield 7

@hookimpl
def register_enhancers(register):
    register(Bad())
"""
SEVEN = """
def sample(task):
    inner = euler(task)
    wanted = next(inner)
    for _ in range(7):
        wanted = inner.send((yield wanted))
    raise ZeroDivisionError("x")
"""
NONSENSE = """
def sample(task):
    yield "an evaluation"
"""
NOTHING = """
def sample(task):
    yield Evaluation(task.noise, 999.0, 0)
"""
PACKAGES = {
    "lost": "raise RuntimeError('no licence found')",
    "half": "import a_module_that_nobody_has",
    "taker": SAMPLER.format(name="euler", sample=SEVEN),
    "seven": SAMPLER.format(name="raises at seven", sample=SEVEN),
    "prose": SAMPLER.format(name="talks", sample=NONSENSE),
    "mute": SAMPLER.format(name="returns none", sample=NOTHING),
    "enhancer": ENHANCER,
}
GOOD = {"prompt": "red", "width": 64, "height": 64, "steps": 12, "seed": 1}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that they are installed in."""
    folder = tmp_path_factory.mktemp("packages")
    for name, source in PACKAGES.items():
        install(folder, f"strange-{name}", entry=name, module=f"strange_{name}", source=source)
    install_example(folder, "imagine-sampler-rk4")
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[httpx.Client]:
    """A client of a server that has them all."""
    models = tmp_path_factory.mktemp("models")
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        serving(models, step=0.02, PYTHONPATH=str(packages)) as (url, _),
        httpx.Client(base_url=url, headers=headers, timeout=120) as client,
    ):
        yield client


def test_each_is_reported_by_name_with_what_is_wrong(packages: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        command("plugins", "--json"), env=environment, check=True, capture_output=True, text=True
    )
    reports = {report["name"]: report for report in json.loads(done.stdout)}
    problems = {name: report["problem"] for name, report in reports.items() if report["problem"]}
    assert problems == {
        "lost": "import failed: RuntimeError: no licence found",
        "half": "import failed: ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
        "taker": "plugin 'taker': the sampler name 'euler' is taken by plugin "
        "'imagine-samplers-diffusers'",
    }
    assert reports["taker"]["distribution"] == "strange-taker"
    assert reports["sampler-rk4"]["hooks"] == ["register_samplers"]


def test_the_good_ones_are_there_and_draw(client: httpx.Client) -> None:
    details = client.get("/samplers").json()["details"]
    owners = {each["name"]: each["plugin"] for each in details}
    assert owners["rk4"] == "sampler-rk4"
    assert owners["euler"] == "imagine-samplers-diffusers"
    for sampler in ("rk4", "euler"):
        reply = client.post("/generate", json={**GOOD, "sampler": sampler, "steps": 3})
        assert reply.json()["sampler"] == sampler, reply.text


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (
            "raises at seven",
            "sampler 'raises at seven' of plugin 'seven' failed at step 7: ZeroDivisionError: x",
        ),
        (
            "talks",
            "sampler 'talks' of plugin 'prose' must yield Evaluation(latent, timestep, step) ",
        ),
        ("returns none", "sampler 'returns none' of plugin 'mute' returned no latent"),
    ],
)
def test_a_request_fails_by_name_and_the_one_beside_it_goes_on(
    client: httpx.Client, sampler: str, message: str
) -> None:
    with beside(client) as steps:
        reply = client.post("/generate", json={**GOOD, "sampler": sampler})
        assert reply.status_code == 500
        assert error_of(reply)["type"] == "generation_failed"
        assert error_of(reply)["message"].startswith(message)
        (job,) = client.get("/ps").json()["jobs"]
        assert any(step > job["step"] for step in steps)
    again = client.post("/generate", json=GOOD)
    assert again.status_code == 200, again.text


@contextmanager
def beside(client: httpx.Client) -> Iterator[Iterator[int]]:
    """The steps of a good request, the first of which is done; it is left at the end."""
    request = {**GOOD, "steps": 1000, "sampler": "euler", "progress": True}
    with client.stream("POST", "/generate", json=request) as reply:
        steps = (line["step"] for line in map(json.loads, reply.iter_lines()) if "step" in line)
        assert next(steps) == 1
        yield steps


def test_an_enhancer_that_yields_nonsense_is_named(client: httpx.Client) -> None:
    reply = client.post("/enhance", json={"prompt": "a fox", "enhancer": "bad"})
    assert reply.status_code == 502
    assert "enhancer 'bad': it yielded 7" in error_of(reply)["message"]
