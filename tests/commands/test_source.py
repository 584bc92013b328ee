from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from imagine_core import GenerationRequest
from imagine_core.errors import (
    FieldError,
    InvalidFile,
    RequestError,
    ServerFailed,
    Unauthorized,
)
from imagine_core.settings import Settings
from imagine_core.testing import build_test_plugins, draw_one
from imagine_plugins.commands.shared import source
from imagine_plugins.commands.shared.source import choose, in_flags, local_engine, server_runs_here


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> Iterator[list[bytes]]:
    """Something at the default address that gives `answer`, or none; what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(source, "DEFAULT_ADDRESS", listener.getsockname())
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                if answer is not None:
                    connection.sendall(answer)
                else:
                    done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        done.set()
        thread.join()


OURS = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"status": "starting"}'
AIRPLAY = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nServer: AirTunes/760.20.1\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "runs"),
    [(OURS, True), (AIRPLAY, False), (b"SSH-2.0-OpenSSH_9.6\r\n", False), (b"", False)],
)
def test_only_what_answers_as_ours_does_is_a_server(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, *, runs: bool
) -> None:
    with listening(monkeypatch, answer) as asked:
        assert server_runs_here() is runs
    assert asked[0].startswith(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n")


def test_a_server_too_busy_to_answer_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ANSWER", 0.1)
    with listening(monkeypatch, None):
        assert server_runs_here()


def test_where_nothing_listens_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    monkeypatch.setattr(source, "DEFAULT_ADDRESS", address)
    assert not server_runs_here()


def never() -> bool:
    raise AssertionError


def test_an_address_that_was_given_is_taken_without_a_look() -> None:
    where = choose(address="example.com:80", api_key="secret", here=False, probe=never)
    assert (where.address, where.api_key) == ("example.com:80", "secret")
    assert "secret" not in repr(where)


def test_options_of_this_process_ask_no_server() -> None:
    assert not choose(address=None, api_key=None, here=True, probe=never).remote
    with pytest.raises(click.UsageError, match="-a asks a server"):
        choose(address="example.com", api_key=None, here=True, probe=never)


@pytest.mark.parametrize("runs", [True, False])
def test_a_server_on_this_machine_is_asked_if_it_runs(*, runs: bool) -> None:
    where = choose(address=None, api_key=None, here=False, probe=lambda: runs)
    assert where.address == ("127.0.0.1:5000" if runs else None)
    assert runs or where.reason.startswith("no server at 127.0.0.1:5000")


def test_errors_are_in_the_words_of_the_command_line() -> None:
    fields = [FieldError("clip_skip", "too many"), FieldError("width", "too wide")]
    with pytest.raises(RequestError, match=r"^--clip: too many; --width: too wide$"), in_flags():
        raise RequestError(fields)
    with pytest.raises(ServerFailed, match="--api-key or in IMAGINE_API_KEY"), in_flags():
        raise Unauthorized
    with pytest.raises(InvalidFile, match=r"^as it is$"), in_flags():
        raise InvalidFile("as it is")


def test_an_interrupted_engine_is_closed(models: str) -> None:
    def interrupt() -> None:
        with local_engine(Settings(models=Path(models)), build_test_plugins()) as engine:
            draw_one(engine, GenerationRequest(prompt="cat", sampler="test euler", steps=1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not [thread for thread in threading.enumerate() if thread.name == "imagine-engine"]
