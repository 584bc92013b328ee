"""Tests the plugin system as users get it: wheels in a fresh environment, no checkout.

`nox -s third_party` builds the wheels of Imagine and of the packages in docs/examples, installs
them, and runs this: it draws with the sampler, the enhancer, the device and a LoRA of the examples
through the command line, over HTTP, in the dialect of the examples and, where there is a Chromium,
on the page; runs the examples' tests; and uninstalls them again.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))

from ui.browsing import FLAGS, draw, find_chromium, ready  # noqa: E402 - found by the line above

EXAMPLES = TESTS.parent / "docs" / "examples"
PLUGINS = {
    "dialect-paint": "register_routes",
    "device-cpu32": "register_devices",
    "enhancer-seasons": "register_enhancers",
    "lora-npz": "register_model_loaders",
    "sampler-rk4": "register_samplers",
}
SMALL = {"prompt": "a red house", "width": 128, "height": 128, "steps": 3, "seed": 2}
SIZE = ("-w", "128", "-h", "128", "-n", "3", "--seed", "2")


def run(*arguments: str, code: int = 0) -> str:
    """What `imagine` prints on both its outputs, ending as it should."""
    done = subprocess.run([program(), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def program() -> str:
    """The command of this environment."""
    found = shutil.which("imagine", path=str(Path(sys.executable).parent))
    assert found is not None
    return found


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """The address of a running `imagine serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ("--host", "127.0.0.1", "--port", str(port))
    process = subprocess.Popen([program(), "serve", *where, *arguments])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                fetch(f"{address}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that a route answers with."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=300) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def lists_show_them() -> None:
    """`imagine plugins` knows the packages; samplers and enhancers are where people look."""
    reports = {report["name"]: report for report in json.loads(run("plugins", "--json"))}
    assert [name for name, report in reports.items() if report["problem"]] == []
    for name, hook in PLUGINS.items():
        assert reports[name]["distribution"] == f"imagine-{name}"
        assert reports[name]["hooks"] == [hook]
    assert "rk4" in run("samplers")
    assert "seasons" in run("enhance", "--list")


def the_command_line_draws() -> None:
    """With the sampler, the enhancer and the device, each named in the picture's metadata."""
    assert "in autumn" in run("enhance", "-e", "seasons", "--seed", "2", "a red house")
    with tempfile.TemporaryDirectory() as folder:
        picture = f"{folder}/a.png"
        names = ("--sampler", "rk4", "--enhance", "-e", "seasons", "--device", "cpu32")
        run("run", "a red house", *names, *SIZE, "-o", picture)
        noted = run("info", picture)
    assert '"sampler": "rk4"' in noted
    assert "a red house, in autumn" in noted


def the_lora_draws() -> None:
    """It is listed with its words, changes the picture as much as is asked for, and no other."""
    with tempfile.TemporaryDirectory() as folder:
        write_lora(Path(folder))
        listed = json.loads(run("list", "--kind", "lora", "--models", folder, "--json"))
        assert [(each["name"], each["problem"]) for each in listed] == [("dusk", None)]
        assert "at dusk" in run("show", "dusk", "--models", folder)
        pixels = {
            tag: drawn(f"a red house{tag}", folder)
            for tag in ("", "<lora:dusk:0>", "<lora:dusk:0.5>", "<lora:dusk:1>")
        }
    plain, none, half, whole = pixels.values()
    assert none == plain
    assert len({plain, half, whole}) == 3


def write_lora(models: Path) -> None:
    """A LoRA for the model that comes with Imagine, in the format of the example."""
    chance = np.random.default_rng(1)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    (models / "loras").mkdir()
    arrays: dict[str, Any] = {
        "about": np.array(json.dumps({"family": "sd", "triggers": ["at dusk"]})),
        f"{layer}.down": chance.normal(size=(4, 128)).astype(np.float16),
        f"{layer}.up": chance.normal(size=(160, 4)).astype(np.float16),
    }
    np.savez(models / "loras" / "dusk.npz", **arrays)


def drawn(prompt: str, models: str) -> bytes:
    """The pixels of the picture for a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        run("run", prompt, "--models", models, *SIZE, "-o", f"{folder}/a.png")
        with Image.open(f"{folder}/a.png") as picture:
            return picture.tobytes()


def the_server_draws() -> None:
    """On the device, over HTTP and on the page."""
    with server("-d", "cpu32") as address:
        assert fetch(f"{address}/generate", {**SMALL, "sampler": "rk4"})["sampler"] == "rk4"
        assert fetch(f"{address}/ps")["device"] == "cpu32"
        enhanced = fetch(f"{address}/generate", {**SMALL, "enhance": "seasons"})
        assert "in autumn" in json.dumps(enhanced)
        the_dialect_is_spoken(address)
        the_page_draws(address)


def the_dialect_is_spoken(address: str) -> None:
    """Its events come one by one, and the last has the picture."""
    url = f"{address}/paint?width=128&height=128&steps=3&seed=2"
    with urllib.request.urlopen(url, b"a red house", timeout=300) as answer:  # noqa: S310
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = [line for line in answer.read().decode().split("\n") if line.startswith("event")]
    assert events == ["event: step"] * 3 + ["event: picture"]


def the_page_draws(address: str) -> None:
    """The sampler can be chosen there, and makes a picture."""
    chromium = find_chromium()
    if chromium is None:
        print("there is no Chromium here: nobody looked at the page")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        ready(page)
        page.select_option("#sampler", "rk4")
        for field, value in (("#width", "128"), ("#height", "128"), ("#steps", "3")):
            page.fill(field, value)
        draw(page, "a red house")
        browser.close()


def their_own_tests_pass() -> None:
    """Those that the packages bring, conformance suites among them."""
    for name in PLUGINS:
        example = EXAMPLES / f"imagine-{name}"
        settings = str(example / "pyproject.toml")  # not ours, which lies further up
        command = [sys.executable, "-m", "pytest", "-q", "-c", settings, str(example)]
        subprocess.run(command, check=True)


def nothing_stays() -> None:
    """Uninstalled, they are gone without a trace."""
    packages = [f"imagine-{name}" for name in PLUGINS]
    pip = [sys.executable, "-m", "pip", "uninstall", "-y", "-q", *packages]
    subprocess.run(pip, check=True)
    assert not {*PLUGINS} & {report["name"] for report in json.loads(run("plugins", "--json"))}
    assert "rk4" not in run("samplers")
    assert "seasons" not in run("enhance", "--list")
    assert "unknown device 'cpu32'" in run("run", "a red house", "--device", "cpu32", code=1)


def main() -> None:
    """Use the examples, then take them away."""
    steps = (
        lists_show_them,
        the_command_line_draws,
        the_lora_draws,
        the_server_draws,
        their_own_tests_pass,
        nothing_stays,
    )
    for step in steps:
        started = time.monotonic()
        step()
        print(f"{step.__name__.replace('_', ' ')}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
