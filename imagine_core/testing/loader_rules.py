"""The rules of model loaders, each with the check that raises if it is broken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelLoader
from imagine_core.testing.loader_under_test import Loaded
from imagine_core.testing.plugin_registration import beside_the_installed

HEADER = 2**20
"""Bytes that a loader may read to recognise a model, beside an eighth of it."""

PROBE = """
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from imagine_core.plugins import build_plugins
point = EntryPoint(name="probe", value=sys.argv[1], group="imagine")
loaders = build_plugins(found=[point]).loaders
assert any([loader.recognise(Path(sys.argv[2])) for loader in loaders])
print(*sorted({"diffusers", "torch", "transformers"} & {*sys.modules}), sep=", ")
"""

FOREIGN = {
    "an empty file": b"",
    "a web page": b"<!DOCTYPE html><html><body>404 not found</body></html>" * 40,
    "zeros": bytes(4096),
    "noise": bytes((i * i * 7919 + i) % 251 for i in range(4096)),
}


# ---------------------------------------------------------------------------------- recognising


def registered(loaded: Loaded) -> None:
    """It is registered, under a name in lower case."""
    beside_the_installed(loaded.plugin)
    name = loaded.loader.name
    assert name == "".join(name.lower().split()), f"its name {name!r} is not one in lower case"


def described(loaded: Loaded) -> None:
    """What it says of the model is true, as far as one can tell, and the same each time."""
    info, path = loaded.info, loaded.path
    assert info.problem is None, f"it says that the model cannot serve: {info.problem}"
    assert info == loaded.loader.recognise(path), "it says something else the second time"
    assert info.path == path, f"it says that the model lies at {info.path}"
    assert info.loader == loaded.loader.name, f"it says that the loader is {info.loader!r}"
    assert info.name in (path.stem, path.name), f"it calls the model {info.name!r}"
    assert info.family.strip(), "it says no family"
    size = sum(file.stat().st_size for file in _files(path))
    least = size if path.is_file() else 1
    assert least <= info.size <= size, f"it says {info.size} bytes, of {size} on disk"
    for field in ("parameters", "clip_layers"):
        count: object = getattr(info, field)
        assert count is None or (isinstance(count, int) and count > 0), f"{field} is {count!r}"
    sides = info.recommended_size
    assert len(sides) == 2, f"the recommended size is {sides}"
    assert all(side > 0 and side % 8 == 0 for side in sides), f"the recommended size is {sides}"
    texts = [text for pair in info.metadata.items() for text in pair]
    assert all(isinstance(text, str) for text in texts), "its metadata are not all texts"


def quick(loaded: Loaded) -> None:
    """It reads the header alone."""
    taken = []
    for _ in range(3):
        before = time.perf_counter()
        loaded.loader.recognise(loaded.path)
        taken.append(time.perf_counter() - before)
    said = f"recognising takes {min(taken):.1f} s; thousands of files may lie in a folder"
    assert min(taken) < loaded.patience, said
    before_it = _bytes_read()
    loaded.loader.recognise(loaded.path)
    read, limit = _bytes_read() - before_it, HEADER + loaded.info.size // 8
    assert read <= limit, f"recognising reads {read} bytes of a model of {loaded.info.size}"


def light(loaded: Loaded) -> None:
    """Neither importing the plugin nor recognising a model imports torch."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROBE, _importable(loaded.plugin), str(loaded.path)]
    done = subprocess.run(  # noqa: S603 - our own program
        command, env=environment, check=False, capture_output=True, text=True
    )
    last = done.stderr.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"it does not recognise the model in a fresh process: {last}"
    assert not done.stdout.strip(), f"recognising a model imports {done.stdout.strip()}"


def _importable(plugin: object) -> str:
    """What an entry point would name."""
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    kind = plugin if isinstance(plugin, type) else type(plugin)
    assert "<locals>" not in kind.__qualname__, "only a module, or a class in one, can be imported"
    return f"{kind.__module__}:{kind.__qualname__}"


def others(loaded: Loaded) -> None:
    """What is no model is none of its business: no claim, and no exception."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notes.txt").write_text("Notes.\n", "utf-8")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "boat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        for path in (folder / "notes.txt", folder / "pictures", folder / "pictures" / "boat.png"):
            assert loaded.loader.recognise(path) is None, f"it takes {path.name} for a model"
        loaded.loader.recognise(folder / loaded.path.name)  # gone since the folder was listed


def foreign(loaded: Loaded) -> None:
    """Another file under the model's name is not taken for it."""
    for what, content in FOREIGN.items():
        with _damaged(loaded, partial(Path.write_bytes, data=content)) as path:
            _refusal(loaded, path, f"{what} in place of the model")


def truncated(loaded: Loaded) -> None:
    """Half a download is said to be damaged; it neither vanishes nor loads."""
    for part in (0.9, 0.5):
        with _damaged(loaded, partial(_cut, part=part)) as path:
            said = _refusal(loaded, path, f"a copy cut to {part:.0%}")
            assert said is not None, f"a copy cut to {part:.0%} vanishes without a word"


def _cut(file: Path, *, part: float) -> None:
    os.truncate(file, int(file.stat().st_size * part))


@contextmanager
def _damaged(loaded: Loaded, damage: Callable[[Path], object]) -> Iterator[Path]:
    """A copy of the model whose largest file has been damaged."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / loaded.path.name
        if loaded.path.is_dir():
            shutil.copytree(loaded.path, copy)
        else:
            shutil.copyfile(loaded.path, copy)
        damage(max(_files(copy), key=lambda file: file.stat().st_size))
        yield copy


def _refusal(loaded: Loaded, path: Path, what: str) -> str | None:
    """Why the plugin refuses a file, in words that help; None if it does not know it at all."""
    refusals = [_refused(loaded, loader, path, what) for loader in loaded.loaders]
    return next(filter(None, refusals), None)


def _refused(loaded: Loaded, loader: ModelLoader, path: Path, what: str) -> str | None:
    info = loader.recognise(path)
    if info is None:
        return None
    said = info.problem
    if said is None:
        try:
            loaded.load(info, loader=loader).close()
        except UnusableModel as error:
            said = error.problem
    assert said is not None, f"it loads {what}"
    helpful(said, what)
    assert str(path.parent) not in said, f"it tells clients where the model lies: {said!r}"
    return said


def helpful(said: str, what: str) -> None:
    """What it says of a file is a sentence."""
    helps = len(said.split()) > 2 and "\n" not in said
    assert helps, f"of {what} it says {said!r}, which helps nobody"


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _bytes_read() -> int:
    """Bytes that this process has read so far; 0 where the system does not count them."""
    try:
        text = Path("/proc/self/io").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^rchar: (\d+)", text)
    return 0 if found is None else int(found[1])


# -------------------------------------------------------------------------------------- loading


def progress(loaded: Loaded) -> None:
    """Loading tells how far it is, from 0 to 1, or nothing."""
    told: list[Any] = []
    loaded.load(loaded.info, told.append).close()
    assert all(0 <= fraction <= 1 for fraction in told), f"it says that it is at {told}"
    assert told == sorted(told), f"it goes back: {told}"


RULES: tuple[tuple[str, Callable[[Loaded], None]], ...] = (
    ("loader-registered", registered),
    ("loader-described", described),
    ("loader-quick", quick),
    ("loader-light", light),
    ("loader-others", others),
    ("loader-foreign", foreign),
    ("loader-truncated", truncated),
    ("loader-progress", progress),
)
