"""The head of the single executable: its files, its folder, and its refusals."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parent.parent / "packaging" / "binary"
PROGRAM = """\
#!/bin/sh
echo "$0 $* $IMAGINE_EXECUTABLE"
exit 3
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the launcher is for Linux")


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    """The script that puts the parts together."""
    pytest.importorskip("zstandard", reason="needs zstandard: pip install zstandard")
    spec = importlib.util.spec_from_file_location("pack", SOURCE / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled launcher."""
    path = tmp_path_factory.mktemp("launcher") / "launcher"
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    command = ["gcc", "-static", "-Wall", "-Wextra", "-Werror", "-o", str(path)]
    done = subprocess.run(
        [*command, str(SOURCE / "launcher.c"), "-l:libzstd.a"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "libzstd" in done.stderr or "zstd.h" in done.stderr:
        pytest.skip("needs libzstd: apt install libzstd-dev")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def build(launcher: Path, pack: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Makes an executable of a small tree that says how it was started."""

    def make(mark: str = "", *, bulk: int = 0) -> Path:
        tree = tmp_path / f"tree{mark}"
        (tree / "bin").mkdir(parents=True)
        (tree / "lib" / "empty").mkdir(parents=True)
        (tree / "bin" / "python3").write_text(PROGRAM)
        (tree / "bin" / "python3").chmod(0o755)
        (tree / "bin" / "python").symlink_to("python3")
        (tree / "lib" / "data").write_bytes(os.urandom(300_000 + bulk) + mark.encode())
        executable = tmp_path / f"imagine{mark}"
        with executable.open("wb") as file:
            pack.pack(launcher, tree, file, level=1)
        executable.chmod(0o755)
        return executable

    return make


def start(executable: Path, **environment: object) -> subprocess.CompletedProcess[str]:
    """A run with nothing in the environment but this."""
    return subprocess.run(
        [executable, "a", "b c"],
        env={name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )


def trees(cache: Path) -> list[Path]:
    """The trees in a cache."""
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_it_unpacks_once_and_becomes_what_is_inside(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    executable = build()
    first, second = start(executable, HOME=tmp_path), start(executable, HOME=tmp_path)
    cache = tmp_path / ".cache" / "imagine" / "runtime"
    (tree,) = trees(cache)
    expected = f"{tree}/bin/python3 -I -m imagine_core a b c {executable}\n"
    assert (first.stdout, first.returncode) == (expected, 3)
    assert (second.stdout, second.returncode, second.stderr) == (expected, 3, "")
    assert first.stderr == f"imagine: unpacking into {cache}, this once\n"


def test_the_tree_is_what_was_packed(build: Callable[..., Path], tmp_path: Path) -> None:
    start(build(), IMAGINE_RUNTIME_DIR=tmp_path / "runtime")
    (tree,) = trees(tmp_path / "runtime")
    original = tmp_path / "tree"
    assert (tree / "lib" / "data").read_bytes() == (original / "lib" / "data").read_bytes()
    assert (tree / "bin" / "python").readlink() == Path("python3")
    names = [sorted(p.relative_to(top) for p in top.rglob("*")) for top in (tree, original)]
    assert names[0] == names[1]
    assert not os.access(tree / "lib" / "data", os.X_OK)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"IMAGINE_RUNTIME_DIR": "here", "XDG_CACHE_HOME": "cache", "HOME": "home"}, "here"),
        ({"XDG_CACHE_HOME": "cache", "HOME": "home"}, "cache/imagine/runtime"),
        ({"HOME": "home"}, "home/.cache/imagine/runtime"),
    ],
)
def test_where_it_unpacks_to(
    build: Callable[..., Path], tmp_path: Path, variables: dict[str, str], folder: str
) -> None:
    ended = start(build(), **{name: tmp_path / value for name, value in variables.items()})
    assert ended.returncode == 3
    assert len(trees(tmp_path / folder)) == 1


def test_two_first_starts_at_once_unpack_one_tree(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    executable = build(bulk=30_000_000)
    environment = {"HOME": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [executable],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [3] * 4
    assert len(set(said)) == 1


def test_one_that_was_killed_while_it_unpacked_is_no_obstacle(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    executable = build(bulk=100_000_000)
    cache = tmp_path / "runtime"
    environment = {"IMAGINE_RUNTIME_DIR": str(cache)}
    with subprocess.Popen([executable], env=environment, stderr=subprocess.PIPE) as process:
        while not any(cache.glob("*.part/lib/data")):
            assert process.poll() is None, "it was done before it could be killed"
            time.sleep(0.001)
        process.kill()
    assert not any(path.suffix == "" for path in trees(cache))
    assert start(executable, **environment).returncode == 3
    assert [path.suffix for path in trees(cache)] == [""]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_file_that_is_not_whole_says_so(
    build: Callable[..., Path], launcher: Path, tmp_path: Path, damage: str
) -> None:
    executable = build()
    content = bytearray(executable.read_bytes())
    if damage == "cut":
        del content[-1000:]
    else:
        content[launcher.stat().st_size + 100_000] ^= 0xFF
    executable.write_bytes(content)
    ended = start(executable, HOME=tmp_path)
    assert ended.returncode == 127
    assert "download it again" in ended.stderr


def test_a_folder_that_others_may_write_to_is_not_trusted(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    cache = tmp_path / "shared"
    cache.mkdir()
    cache.chmod(0o777)
    ended = start(build(), IMAGINE_RUNTIME_DIR=cache)
    assert ended.returncode == 127
    assert "only you can write to" in ended.stderr
    assert list(cache.iterdir()) == []


def test_programs_can_be_forbidden_where_it_would_unpack_to(build: Callable[..., Path]) -> None:
    if not os.path.ismount("/proc"):
        pytest.skip("needs /proc")
    ended = start(build(), IMAGINE_RUNTIME_DIR="/proc/imagine")
    assert ended.returncode == 127
    assert "cannot unpack to where IMAGINE_RUNTIME_DIR says: /proc/imagine: " in ended.stderr


def test_a_tree_that_nobody_has_used_for_a_month_goes_when_a_new_one_comes(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    cache = tmp_path / "runtime"
    for mark in ("old", "recent"):
        assert start(build(mark), IMAGINE_RUNTIME_DIR=cache).returncode == 3
    old = next(tree for tree in trees(cache) if (tree / "lib/data").read_bytes().endswith(b"old"))
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(f"{old}.lock", (month_ago, month_ago))
    assert start(build("new"), IMAGINE_RUNTIME_DIR=cache).returncode == 3
    assert old not in trees(cache)
    assert len(trees(cache)) == 2
