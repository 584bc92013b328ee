"""What is built for users: the wheel holds what runs, the sdist what makes and checks it too."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = {"imagine_core": "imagine_core", "plugins/imagine_plugins": "imagine_plugins"}
SHIPPED |= {"ui": "imagine_plugins/ui"}
TRAINS = ("torch.optim", ".backward()", "ImageDraw")


def built(kind: str, folder: Path) -> Path:
    """The distribution that hatchling makes of this checkout."""
    code = f"import sys, hatchling.build as b; print(b.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of each file in the wheel, without its metadata."""
    with zipfile.ZipFile(built("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: archive.read(name) for name in names}


def files(folder: str) -> set[str]:
    """The paths below a folder of this checkout, without what Python compiled."""
    found = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.*"))
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_core_the_plugins_and_the_page_and_nothing_else(
    wheel: dict[str, bytes],
) -> None:
    expected = {f"{to}/{file}" for folder, to in SHIPPED.items() for file in files(folder)}
    assert set(wheel) == expected


def test_the_wheel_has_doodle_but_nothing_that_paints_or_trains(wheel: dict[str, bytes]) -> None:
    doodle = [PurePosixPath(name) for name in wheel if name.startswith("imagine_plugins/doodle/")]
    assert {path.name for path in doodle if path.suffix == ".py"} == {"__init__.py", "plugin.py"}
    assert {path.parts[2] for path in doodle} == {"__init__.py", "plugin.py", "models"}
    assert sum(path.suffix == ".safetensors" for path in doodle) == 4  # one is its ControlNet
    trains = {
        name
        for name, content in wheel.items()
        if name.endswith(".py") and any(word.encode() in content for word in TRAINS)
    }
    assert trains == set()


def test_what_trains_doodle_would_be_noticed_in_the_wheel() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "training").rglob("*.py")]
    assert all(any(word in text for text in texts) for word in TRAINS)


def test_the_sdist_trains_and_tests_as_a_checkout_does(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    needed = {"training/doodle/train.py", "tests/conftest.py", "packaging/binary/pack.py"}
    needed |= {"docs/doodle.md", "noxfile.py", "constraints.txt", "CHANGELOG.md", "LICENSE"}
    assert names >= needed
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pt")]
