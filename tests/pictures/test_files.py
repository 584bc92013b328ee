from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from imagine_core.errors import InvalidFile
from imagine_core.pictures.files import check_writable, read_all, reading, write_file


def test_a_written_file_has_the_content_and_the_permissions_of_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    before = os.umask(0o027)
    try:
        write_file(path, b"cat")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"cat"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_goes_through_a_link_and_leaves_it_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_taken_name_is_refused_and_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError) as caught:
        write_file(path, b"yours", replace=False)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_that_want_one_name_exactly_one_gets_it(tmp_path: Path) -> None:
    path, refused = tmp_path / "cat.png", []

    def take(number: int) -> None:
        try:
            write_file(path, bytes([number]) * 100_000, replace=False)
        except FileExistsError:
            refused.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert len(refused) == 7
    assert len(content) == 100_000
    assert set(content) == set(range(8)) - set(refused)


def test_a_file_system_without_links_still_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object, **folders: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "cat.png"
    write_file(path, b"mine", replace=False)
    with pytest.raises(FileExistsError):
        write_file(path, b"yours", replace=False)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_fault_of_the_disk_is_not_taken_for_missing_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: object, target: object, **folders: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OSError, match="cannot be written: Input/output error"):
        write_file(tmp_path / "cat.png", b"cat", replace=False)
    assert list(tmp_path.iterdir()) == []


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(descriptor: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fault", [full, interrupted])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]
) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises((OSError, KeyboardInterrupt)) as caught:
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)
        assert caught.value.strerror == "cannot be written: No space left on device"


def test_a_killed_writer_leaves_nothing_at_the_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from imagine_core.pictures.files import write_file\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_file(Path(sys.argv[1]), b'half')\n"
    )
    path = tmp_path / "cat.png"
    process = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert process.returncode == -9
    assert not path.exists()


def test_a_folder_that_takes_no_files_is_known_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError) as caught:
        check_writable(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    write_file(path, b"cat")
    assert path.read_bytes() == b"cat"


def test_reading_names_the_file_in_every_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    with (
        pytest.raises(InvalidFile, match=r"missing\.png: cannot be read: No such file"),
        reading(missing),
    ):
        pass
    with pytest.raises(InvalidFile, match="cannot be read: Is a directory"), reading(tmp_path):
        pass
    large = tmp_path / "large.json"
    large.write_bytes(b"x" * 11)
    with pytest.raises(InvalidFile, match=r"large\.json: it is too large"), reading(large) as file:
        read_all(file, limit=10)


def test_reading_stops_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "exact"
    path.write_bytes(b"x" * 10)
    with reading(path) as file:
        assert read_all(file, limit=10) == b"x" * 10
