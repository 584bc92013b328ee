"""How long the largest inputs take to read: headers of models, prompts, and what is counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from measure import median, row, timed

from checkpoint_keys import shapes
from checkpoints import write_hollow
from doodle.tokenizer import load_tokenizer
from imagine_core import Generation
from imagine_core.plugins import build_plugins
from imagine_core.prompting import parse
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.header import HeaderError, read_header
from imagine_plugins.metrics import Counts, Metrics
from layouts import SDXL

HEADERS = {
    "objects": b"{" + b'"a":{},' * 12_000_000 + b'"b":{}}',
    "escapes": b'{"__metadata__":{"a":"' + b"\\u0041" * 14_000_000 + b'"}}',
    "nesting": b'{"a":' + b"[" * 90_000_000,
    "text": b'{"__metadata__":{"a":"' + b"x" * 90_000_000 + b'"}}',
}
PROMPTS = ("(a" * 10_000, "[(" * 10_000, "(a)" * 6_666, "\\" * 20_000, " " * 20_000)
WORDS = ("a ", ",", " ,", "z", "cats ", "es", "the by at ", "hand drawn ")
GENERATION = Generation(
    id="x",
    model="m",
    sampler="s",
    schedule="d",
    steps=1,
    width=8,
    height=8,
    images=1,
    outcome="done",
    timings={"queued": 0.1, "denoising": 2.0},
)


def reading() -> None:
    """Headers of SDXL's size and of 90 MB, prompts of 20,000 and 100,000 characters."""
    row("what is read", "median s", "slowest s")
    row("---", "---", "---")
    with tempfile.TemporaryDirectory() as folder:
        path = write_hollow(Path(folder, "xl.safetensors"), shapes(SDXL))
        show("recognise a checkpoint of SDXL", [lambda: CheckpointLoader().recognise(path)] * 9)
        show(
            "refuse or read a header of 90 MB", [header(Path(folder), t) for t in HEADERS.values()]
        )
    show("parse a prompt of 20,000 characters", [partial(parse, text) for text in PROMPTS])
    read = doodles_tokenizer()
    texts = [part * (100_000 // len(part)) for part in WORDS]
    show("tokenize 100,000 characters for doodle", [partial(read, text) for text in texts])
    told = Metrics()
    told._counts = Counts()
    show("count a generation", [lambda: told.generation_finished(GENERATION)] * 1000)


def show(name: str, works: list[Callable[[], object]]) -> None:
    """A row for the seconds that each of `works` takes."""
    times = [timed(work) for work in works]
    row(name, f"{median(times):.6f}", f"{max(times):.6f}")


def header(folder: Path, text: bytes) -> Callable[[], object]:
    """Reads a file that begins with the header `text`."""
    path = folder / f"{len(text)}.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)

    def read() -> None:
        with suppress(HeaderError):
            read_header(path)

    return read


def doodles_tokenizer() -> Callable[[str], object]:
    """What reads prompts for the bundled model."""
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    tokenize: Callable[[str], object] = load_tokenizer(folder / "doodle" / "tokenizer").tokenize
    return tokenize
