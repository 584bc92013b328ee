"""`imagine pull`, from the command line to the models folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hub_server import FileServer, files_under
from imagine_core.cli import main
from imagine_plugins.commands.pull import Transfer
from imagine_plugins.commands.shared.progress import Progress


@pytest.fixture(autouse=True)
def _hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is our server."""
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    monkeypatch.setenv("HF_TOKEN", "a token")


def test_a_pulled_model_is_listed(
    server: FileServer, folder: Path, checkpoint: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    assert main(["pull", "me/tiny", "--models", str(folder), "--name", "mine"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "mine\n"
    assert shown.err == f"sd, 4 MB, in {folder}\n"
    assert files_under(folder) == {"mine.safetensors": checkpoint}
    assert main(["list", "--models", str(folder)]) == 0
    assert "\nmine " in capsys.readouterr().out
    hub = [asked for asked in server.asked if asked.path.startswith(("/api", "/me"))]
    assert all(asked.headers["Authorization"] == "Bearer a token" for asked in hub)


def test_what_cannot_be_pulled_is_one_line_and_an_exit_code(
    server: FileServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, code, says in (
        ("nonsense", 2, "is neither OWNER/NAME"),
        ("me/missing", 1, "there is nothing at"),
        ("http://models.example/a.safetensors", 2, "unencrypted"),
        ("https://[", 2, "is no https URL"),
        (f"{server.url}/a.ckpt", 1, "this is a pickle"),
    ):
        assert main(["pull", source, "--models", str(folder)]) == code
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert says in error
        assert error.count("\n") == 1


def test_a_hub_address_that_is_none_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://[")
    assert main(["pull", "me/tiny", "--models", str(folder)]) == 2
    assert capsys.readouterr().err == "Error: 'https://[' is no https URL\n"


@pytest.mark.parametrize("flag", [["--offline", "pull"], ["pull", "--offline"]])
def test_offline_asks_nobody_elsewhere(
    folder: Path,
    flag: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IMAGINE_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    assert main([*flag, "me/tiny", "--models", str(folder)]) == 1
    assert "forbids a connection to 'hub.example'" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Is one."""

    def isatty(self) -> bool:
        return True


def test_a_transfer_shows_share_speed_and_time_left() -> None:
    now = [0.0]
    terminal = Terminal()
    transfer = Transfer(Progress(terminal), clock=lambda: now[0])
    transfer.expect(1_000_000_000)
    transfer.advance(100_000_000)  # an earlier run's, which says nothing of the speed
    now[0] = 10.0
    transfer.advance(100_000_000)
    line = terminal.getvalue().rpartition("\r")[2]
    assert line.strip() == "[####--------------------] 200 MB of 1.0 GB  10 MB/s  1:20 left"


def test_a_transfer_of_unknown_length_shows_what_is_there() -> None:
    terminal = Terminal()
    transfer = Transfer(Progress(terminal))
    transfer.advance(5_000_000)
    assert terminal.getvalue().strip() == "5 MB"
