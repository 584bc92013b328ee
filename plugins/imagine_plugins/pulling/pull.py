"""Fetches a model or a LoRA into the models folder: complete and usable, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from imagine_core.errors import ImagineError, SettingsError, UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.models.folders import KINDS, folder_of
from imagine_plugins.pulling.download import Downloader, Remote, Watcher
from imagine_plugins.pulling.hub import SUFFIX, Plan

SPARE = 64 * 2**20
"""Bytes that a download leaves free on the disk."""

HIDDEN = ".imagine-pull-"
FORBIDDEN = set('/\\:*?"<>|')
LONGEST_NAME = 200

Judge = Callable[[Path], ModelInfo | None]


class PullWatcher(Watcher, Protocol):
    """Follows a pull."""

    def expect(self, total: int | None) -> None:
        """Expect `total` bytes in all; None if unknown."""


class Puller:
    """Pulls models into `folder`.

    Args:
        folder: The models folder; made if it is missing.
        downloader: Fetches files.
        judge: Recognises a model by its headers.
        watcher: Follows the pulls.
    """

    def __init__(
        self, folder: Path, *, downloader: Downloader, judge: Judge, watcher: PullWatcher
    ) -> None:
        self._folder = folder
        self._downloader = downloader
        self._judge = judge
        self._watcher = watcher

    def pull(self, plan: Plan, *, name: str | None = None) -> ModelInfo:
        """Fetch the files of `plan` as the model or the LoRA `name`.

        After an interruption, the files stay in a hidden folder, and the next pull uses them.

        Raises:
            UnusableModel: The files are neither a model that can make pictures nor change one.
            ServerFailed: A file cannot be fetched.
            OSError: A file cannot be written.
        """
        name = checked_name(name or plan.name)
        self._refuse_taken(name)
        with _created(self._folder), self._download_folder(plan) as work:
            fetched = work / (name if plan.folder else f"{name}{SUFFIX}")
            info = self._fetch(plan, fetched)
            self._refuse_taken(name)
            target = folder_of(self._folder, info.kind) / fetched.name
            _move(fetched, target)
        return self._judge(target) or info

    def _fetch(self, plan: Plan, fetched: Path) -> ModelInfo:
        """Fetch all files to `fetched`, and recognise the model."""
        self._watcher.expect(_total(plan))
        small = [remote for remote in plan.files if not remote.name.endswith(SUFFIX)]
        for remote in small:
            self._downloader.fetch(remote, _path(fetched, remote, plan))
        if plan.folder or not fetched.exists():
            plan = self._look_first(plan, fetched)
        self._watcher.expect(_total(plan))
        self._require_space(plan, fetched.parent)
        for remote in plan.files:
            if remote not in small:
                self._downloader.fetch(remote, _path(fetched, remote, plan))
        return self._judged(fetched, fetched.parent)

    def _look_first(self, plan: Plan, fetched: Path) -> Plan:
        """Refuse files whose headers show no model, before the rest of them is fetched.

        The headers are written to sparse files of the full size, which loaders judge like the
        real ones and which take no room on disk. Returns `plan` with those sizes.
        """
        files = []
        with tempfile.TemporaryDirectory(dir=fetched.parent, prefix="look-") as place:
            skeleton = Path(place) / fetched.name
            for remote in plan.files:
                path = _path(skeleton, remote, plan)
                path.parent.mkdir(parents=True, exist_ok=True)
                if remote.name.endswith(SUFFIX):
                    files.append(self._write_header(remote, path))
                else:
                    shutil.copyfile(_path(fetched, remote, plan), path)
                    files.append(remote)
            plan = replace(plan, files=files)
            if _total(plan) is not None:  # else the whole download is judged
                self._judged(skeleton, fetched.parent)
        return plan

    def _write_header(self, remote: Remote, path: Path) -> Remote:
        """Write the header of `remote` to `path`, a sparse file of the full size."""
        data, size = self._downloader.beginning(remote)
        path.write_bytes(data)
        size = size if remote.size is None else remote.size
        if size is not None:
            self._require_room(
                size - len(data), path.parent
            )  # a false size may exceed what a file can have
            os.truncate(path, size)
        return replace(remote, size=size)

    def _require_usable(self, path: Path) -> ModelInfo:
        info = self._judge(path)
        if info is None:
            raise UnusableModel(path.name, "it is no model that any loader knows")
        if info.problem is not None:
            raise UnusableModel(info.name, f"it is {info.family}: {info.problem}")
        return info

    def _judged(self, fetched: Path, work: Path) -> ModelInfo:
        try:
            return self._require_usable(fetched)
        except UnusableModel:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _require_space(self, plan: Plan, work: Path) -> None:
        there = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
        self._require_room((_total(plan) or 0) - there, work)

    def _require_room(self, missing: int, place: Path) -> None:
        free = shutil.disk_usage(place).free
        if missing + SPARE > free:
            raise OSError(
                errno.ENOSPC,
                f"there is no room for {missing / 1e9:.1f} GB more; "
                f"{free / 1e9:.1f} GB are free on that disk",
                str(self._folder),
            )

    def _refuse_taken(self, name: str) -> None:
        for kind in KINDS:
            folder = folder_of(self._folder, kind)
            if (folder / name).exists() or (folder / f"{name}{SUFFIX}").exists():
                raise SettingsError(
                    f"there is a {kind} {name!r} already; give this one another --name, "
                    f"or remove that one with 'imagine rm {name}'"
                )

    @contextmanager
    def _download_folder(self, plan: Plan) -> Iterator[Path]:
        """The hidden folder of this download; files of another version are removed from it."""
        digest = hashlib.sha256(plan.identity.encode()).hexdigest()[:16]
        work = self._folder / f"{HIDDEN}{digest}"
        work.mkdir(parents=True, exist_ok=True)  # another pull that failed may just have removed it
        with _locked(work / "lock"):
            version = work / "version"
            with suppress(OSError):
                if version.read_text("utf-8") != plan.version:
                    _empty(work)
            version.write_text(plan.version, "utf-8")
            try:
                yield work
            finally:
                if not any(
                    path.is_file() and path not in (work / "lock", version)
                    for path in work.rglob("*")
                ):
                    shutil.rmtree(work, ignore_errors=True)


def checked_name(name: str) -> str:
    """`name`, if a file can have it; raises `SettingsError` otherwise."""
    bad = FORBIDDEN & set(name)
    if bad or not name.strip() or name.startswith(".") or not name.isprintable():
        raise SettingsError(f"{name[:200]!r} is no name for a model; give it one with --name")
    if len(name.encode()) > LONGEST_NAME:
        raise SettingsError("that name is too long for a file; give it another one with --name")
    return name


def _path(root: Path, remote: Remote, plan: Plan) -> Path:
    return root.joinpath(*remote.name.split("/")) if plan.folder else root


def _total(plan: Plan) -> int | None:
    sizes = [remote.size for remote in plan.files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)


def _move(fetched: Path, target: Path) -> None:
    """Rename `fetched`; the folder of `target` may be a link to another disk."""
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=HIDDEN) as place:
        Path(shutil.move(fetched, place)).rename(target)


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create `folder` for the block; folders that were created and stay empty are removed."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for each in missing:
                each.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the download against other processes."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: files that are open cannot be replaced there anyway
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ImagineError("another 'imagine pull' is fetching the same model") from None
        yield
