"""`imagine serve`: its flags, its startup messages, and its end."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

import calls
from calls import app_of, live_server
from imagine_core import HttpApi, hookimpl
from imagine_core.cli import build_cli, main
from imagine_core.engine import Engine, build_engine
from imagine_core.errors import SettingsError, UnknownName
from imagine_core.plugins import build_plugins
from imagine_core.service import Service
from imagine_core.settings import DEFAULT_HOST, Limits, ServerSettings, Settings
from imagine_core.testing import FakePlugin, build_test_plugins
from imagine_plugins.commands import serve
from imagine_plugins.commands.serve import Options, command
from imagine_plugins.commands.shared.values import Duration
from imagine_plugins.server.serving import listen, shown_address
from slow_server import wait_until

SMALL = {**calls.SMALL, "sampler": "test euler"}  # for which no server has to import diffusers

FAKE = """
import os, sys, time
from imagine_core.cli import build_cli, main
from imagine_core.testing import FakePlugin, build_test_plugins
fake = FakePlugin()
fake.loader.before = lambda rows: time.sleep(0.05)
if seconds := float(os.environ.get("TEST_DEVICE_SECONDS", "0")):
    fake.device.unavailable = lambda: time.sleep(seconds)
sys.exit(main(program=build_cli(lambda: build_test_plugins(fake))))
"""


class Process:
    """An `imagine serve` with the fake plugin."""

    def __init__(self, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKE, "serve", *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "IMAGINE_API_KEY": "", **environment},
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    @property
    def text(self) -> str:
        """What it has said so far."""
        return "".join(self.said)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""

        def found_or_ended() -> object:
            ended = self.process.poll() is not None and not self._reader.is_alive()
            return re.search(pattern, self.text) or ended

        wait_until(found_or_ended)
        found = re.search(pattern, self.text)
        assert found is not None, self.text
        return found

    def url(self) -> str:
        """Where it listens, once it says so."""
        return self.wait_for(r"listening on (\S+),")[1]

    def end(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(60)
        self._reader.join(60)
        return code

    def close(self) -> None:
        """Make sure of its end."""
        self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers on free ports of the loopback, over one fake model."""
    (tmp_path / "tiny.fake").write_bytes(b"fake")
    processes = []

    def start(*options: str, **environment: str) -> Process:
        usual = ("--models", str(tmp_path), "--host", "127.0.0.1", "--port", "0")
        processes.append(Process(*usual, *options, **environment))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server for everybody, that listens beyond this machine and has a key."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.fake").write_bytes(b"fake")
    options = ("--port", "0", "--models", str(folder), "--default-model", "tiny")
    process = Process(*options, "--max-queue", "7", IMAGINE_API_KEY="secret")
    yield process
    process.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


KEY = {"Authorization": "Bearer secret"}


# ------------------------------------------------------------------------------------- the start


def test_it_says_in_one_line_where_and_on_what(server: Process) -> None:
    server.url()
    pattern = r"listening on http://0\.0\.0\.0:\d+, device fake \(float32\), \d+ models?\n"
    assert re.fullmatch(pattern, server.said[0])


def test_it_makes_pictures_and_logs_a_line_for_each(server: Process) -> None:
    url = server.url().replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    answer = httpx.post(url + "/generate", json=SMALL, headers=KEY, timeout=60)
    assert answer.json()["model"] == "tiny"
    server.wait_for(
        r"INFO [0-9a-f]{24} done: tiny, 1 x 64x64, test euler, 4 steps; queued [0-9.]+ s"
    )


def test_as_json_every_line_of_the_log_is_an_object(run: Callable[..., Process]) -> None:
    process = run("--log-format", "json", "--host", "0.0.0.0")  # noqa: S104
    address = process.wait_for(r"listening on http://[0-9.]+:(\d+),")
    url = f"http://127.0.0.1:{address[1]}"
    httpx.post(url + "/generate", json=SMALL, timeout=60)
    httpx.post(url + "/generate", json={"steps": 0})
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0
    lines = [json.loads(line) for line in process.said]
    assert [line.get("outcome") for line in lines[-2:]] == ["done", "refused"]
    said = [line["message"].partition(":")[0] for line in lines[:-2]]
    assert said == [
        "warning",
        "listening on http",
        *(api.name for api in build_test_plugins().apis),
    ]
    assert all(line["time"] and line["level"] and line["message"] for line in lines)


def test_the_key_may_come_from_the_environment_and_is_never_said(server: Process) -> None:
    url = server.url().replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert httpx.get(url + "/models").status_code == 401
    assert httpx.get(url + "/models", headers=KEY).status_code == 200
    assert "secret" not in server.text


def test_the_queue_is_as_long_as_it_was_told(server: Process) -> None:
    url = server.url().replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert httpx.get(url + "/version", headers=KEY).json()["limits"]["queue"] == 7


def test_health_answers_before_the_device_is_known(run: Callable[..., Process]) -> None:
    port = free_port()
    server = run("--port", str(port), TEST_DEVICE_SECONDS="600")
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
    # Within a second, that is, on a machine that does nothing else: `nox -s bench` measures it.
    assert server.text == ""
    server.process.send_signal(signal.SIGINT)
    assert server.end() == 0  # and does not wait for the device
    assert server.text == ""


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


# ------------------------------------------------------------------------- what to enter elsewhere


class Counts:
    """A plugin with an API that other programs know."""

    @hookimpl
    def register_apis(self, register: Callable[[HttpApi], None]) -> None:
        register(
            HttpApi(
                name="Counting API",
                path="/count",
                programs=("Abacus", "Tally"),
                key="the server's key",
                no_key="any key",
            )
        )


def lines(
    folder: Path, address: str, *, block: Sequence[str] | None = None, **settings: Any
) -> list[str]:
    """What is said of the APIs of a server over the models in `folder`."""
    fake = ("fake", FakePlugin())
    plugins = build_plugins(
        block=APIS if block is None else block, extra=[fake, ("count", Counts())]
    )
    default = settings.pop("default_model", None)
    engine = build_engine(Settings(models=folder, default_model=default), plugins)
    served = ServerSettings(**settings)
    return list(serve.api_lines(Service(engine=engine, plugins=plugins, settings=served), address))


BUILT_IN = build_plugins()
APIS = tuple({BUILT_IN.apis.plugin_of(api.name) for api in BUILT_IN.apis})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.fake").write_bytes(b"fake")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://0.0.0.0:5000", "http://localhost:5000"),
        ("http://[::]:5000", "http://localhost:5000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://192.0.2.7:5000", "http://192.0.2.7:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_of_each_api_it_says_what_to_enter(folder: Path, address: str, shown: str) -> None:
    said = f"Counting API: {shown}/count, any key, model tiny (Abacus, Tally)"
    assert lines(folder, address) == [said]


def test_with_a_key_it_says_to_enter_that_and_does_not_say_it(folder: Path) -> None:
    (line,) = lines(folder, "http://127.0.0.1:5000", api_key="secret")
    assert ", the server's key, model tiny" in line
    assert "secret" not in line


def test_without_a_model_it_says_nothing_of_apis(folder: Path) -> None:
    assert lines(folder, "http://127.0.0.1:5000", default_model="gone") == []


def test_the_apis_of_blocked_plugins_are_not_there(folder: Path) -> None:
    said = "\n".join(lines(folder, "http://127.0.0.1:5000", block=()))
    blocked = "\n".join(lines(folder, "http://127.0.0.1:5000", block=APIS))
    for api in BUILT_IN.apis:
        assert f"{api.name}: http://127.0.0.1:5000{api.path}, {api.no_key}, model tiny" in said
        assert api.name not in blocked


def test_it_says_what_to_enter_after_its_address(server: Process) -> None:
    server.wait_for(r"OpenAI API: http://localhost:\d+/v1, the server's key, model tiny \(.*\)\n")
    assert server.said[0].startswith("listening on ")
    names = [line.partition(":")[0] for line in server.said[1 : 1 + len(BUILT_IN.apis)]]
    assert names == [api.name for api in BUILT_IN.apis]


# ------------------------------------------------------------------------- starts that cannot be


def fail(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """The exit code and the lines on stderr of a start that fails."""
    program = build_cli(build_test_plugins)
    code = main(["serve", "--host", "127.0.0.1", "--port", "0", *options], program=program)
    return code, capsys.readouterr().err.splitlines()


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = fail(capsys, "--port", str(port))
    assert (code, said) == (1, [f"Error: port {port} is taken; choose another one with --port"])


def test_an_unknown_device_is_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = fail(capsys, "--device", "cuad")
    assert (code, said) == (1, ["Error: unknown device 'cuad'; did you mean 'cuda'?"])


def test_an_unknown_default_model_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "tiny.fake").write_bytes(b"fake")
    code, said = fail(capsys, "-m", str(tmp_path), "--default-model", "tinny")
    assert (code, said) == (1, ["Error: unknown model 'tinny'; did you mean 'tiny'?"])


def test_an_origin_that_cannot_be_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, (line,) = fail(capsys, "--origins", "https://fine.example,example.com")
    assert code == 2
    assert line.startswith("Error: origin 'example.com' must look like")


@pytest.mark.skipif(sys.platform == "darwin", reason="this may be a machine with MPS")
def test_a_device_that_this_machine_lacks_ends_it_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, (line,) = fail(capsys, "-m", str(tmp_path), "--device", "mps")
    assert code == 1
    assert line.startswith("Error: device 'mps' cannot be used: ")


@pytest.mark.skipif(sys.platform == "darwin", reason="this may be a machine with MPS")
def test_what_may_not_be_meant_is_a_warning_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    everywhere = "0.0.0.0"  # noqa: S104 - what the warning is about
    code, said = fail(capsys, "-m", str(nowhere), "--host", everywhere, "--device", "mps")
    assert code == 1
    assert said[0] == f"warning: the models folder {nowhere} does not exist"
    assert said[1].startswith("warning: everybody on this network may use this server")
    assert len(said) == 3


# --------------------------------------------------------------------------------------- the end


def test_sigterm_finishes_what_runs_and_is_no_failure(
    run: Callable[..., Process],
) -> None:
    server = run("--grace", "5m")
    url = server.url()
    body = {**SMALL, "steps": 30, "stream": 1}
    with (
        httpx.Client() as idle,  # which keeps its connection open
        httpx.stream("POST", url + "/generate", json=body, timeout=60) as answer,
    ):
        idle.get(url + "/health")
        lines = answer.iter_lines()
        next(lines)
        server.process.terminate()
        seen = [json.loads(line)["status"] for line in lines]
        assert seen == ["intermediate"] * 28 + ["final"]
        assert server.end() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")
    assert "Traceback" not in server.text


def test_what_goes_on_without_its_client_is_finished_too(run: Callable[..., Process]) -> None:
    server = run("--grace", "60s")
    body = {**SMALL, "steps": 40, "stream": 1, "on_disconnect": "finish"}
    with httpx.stream("POST", server.url() + "/generate", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    server.process.terminate()
    assert server.end() == 0
    assert " done: tiny, 1 x 64x64, test euler, 40 steps;" in server.text


def test_what_goes_on_without_its_client_has_no_more_time_than_others(
    run: Callable[..., Process],
) -> None:
    server = run("--grace", "0")
    body = {**SMALL, "steps": 1000, "stream": 1, "on_disconnect": "finish", "n": 4}
    with httpx.stream("POST", server.url() + "/generate", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    server.process.terminate()
    assert server.end() == 0
    assert "failed (shutting_down): tiny" in server.text


def test_whoever_comes_while_it_stops_is_told_so(engine: Engine, fake: FakePlugin) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold(rows: int) -> None:
        begun.set()
        gate.wait(60)

    fake.loader.before = hold
    stop = partial(engine.close, grace=60)
    body = {**SMALL, "stream": 1}
    with (
        live_server(app_of(engine), on_stop=stop, grace=60) as (url, server),
        httpx.stream("POST", url + "/generate", json={**body, "progress": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        assert begun.wait(30)  # one that is still queued would not be finished
        server.should_exit = True
        stopping = {"status": "stopping", "ready": False}
        wait_until(lambda: httpx.get(url + "/health").json() == stopping)
        for path in ("/generate", "/enhance"):
            late = httpx.post(url + path, json=SMALL)
            assert late.status_code == 503
            assert int(late.headers["Retry-After"]) > 0
            assert late.json()["error"]["type"] == "shutting_down"
        gate.set()
        *_, last = lines
        assert json.loads(last)["status"] == "final"


def test_a_server_that_does_nothing_stops_at_once(engine: Engine) -> None:
    stop = partial(engine.close, grace=60)
    with live_server(app_of(engine), on_stop=stop, grace=60) as (url, _):
        httpx.get(url + "/health")
    # `live_server` waits for its end, and not as long as the grace time.


def test_a_second_signal_ends_it_at_once(run: Callable[..., Process]) -> None:
    server = run("--grace", "60s")
    body = {**SMALL, "steps": 1000, "stream": 1}
    with httpx.stream("POST", server.url() + "/generate", json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # garbage collection closes the connection
        next(lines)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: httpx.get(server.url() + "/health").json()["status"] == "stopping")
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 130  # what had ended by itself would say 0


def test_what_is_not_finished_in_the_grace_time_gets_a_last_line(
    engine: Engine, fake: FakePlugin
) -> None:
    fake.loader.before = lambda rows: time.sleep(0.05)
    stop = partial(engine.close, grace=0.3)
    body = {**SMALL, "steps": 900, "stream": 1}
    with (
        live_server(app_of(engine), on_stop=stop, grace=0.3) as (url, server),
        httpx.stream("POST", url + "/generate", json=body, timeout=60) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        server.should_exit = True
        *_, last = lines
    assert json.loads(last)["error"]["type"] == "shutting_down"


# --------------------------------------------------------------------------------------- in here


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("0", 0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("-1", -1),
        ("-5m", -1),
        (" 5M ", 300),
    ],
)
def test_a_duration_may_have_units(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "five", "5x", "5 m", "m", "1h-5m", "1e3", "nan", "--1"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must look like"):
        Duration().convert(text, None, None)


def parsed(*arguments: str) -> Options:
    """What the flags make of themselves."""
    with command.make_context("serve", list(arguments)) as context:
        return Options(**context.params)


def test_without_flags_it_is_what_the_readme_says() -> None:
    options = parsed()
    assert options.server == ServerSettings(host="0.0.0.0", port=5000)  # noqa: S104
    assert options.engine == Settings(models=Path.home() / ".imagine" / "models")


def test_every_flag_reaches_its_setting() -> None:
    options = parsed(
        *("--host", "::1", "-p", "8000", "-m", "~/m", "-d", "cpu", "--full_prec"),
        *("--default-model", "tiny", "--max-queue", "3", "--max-rows", "4", "--keep-alive", "30s"),
        *("--origins", "https://a.example, https://b.example", "--hosts", "a.lan"),
        *("--api-key", "secret", "--keep-results", "1h", "--strict-models"),
    )
    assert options.engine == Settings(
        models=Path.home() / "m",
        device="cpu",
        full_precision=True,
        default_model="tiny",
        keep_alive=30.0,
        max_rows=4,
        limits=Limits(queue=3),
    )
    assert options.server == ServerSettings(
        host="::1",
        port=8000,
        api_key="secret",
        origins=("https://a.example", "https://b.example"),
        hosts=("a.lan",),
        keep_results=3600.0,
        strict_models=True,
    )


@pytest.mark.parametrize("flag", ["-f", "--full_prec", "--full-prec"])
def test_full_precision_has_three_spellings(flag: str) -> None:
    assert parsed(flag).engine.full_precision


def test_help_names_every_flag_of_the_readme_and_its_default() -> None:
    result = CliRunner().invoke(build_cli(build_test_plugins), ["serve", "--help"])
    assert result.exit_code == 0
    for flag in ("--host", "-m, --models", "-p, --port", "-d, --device", "-f, --full_prec"):
        assert flag in result.output
    for default in (DEFAULT_HOST, "5000", "~/.imagine/models", "IMAGINE_API_KEY"):
        assert default in result.output


@pytest.mark.parametrize("arguments", [("-p", "70000"), ("-p", "x"), ("--max-rows", "0")])
def test_a_number_that_cannot_be_one_is_refused_by_its_flag(arguments: tuple[str, str]) -> None:
    result = CliRunner().invoke(build_cli(build_test_plugins), ["serve", *arguments])
    assert result.exit_code == 2
    assert arguments[0] in result.output


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_at_names_and_at_both_kinds_of_address(host: str) -> None:
    if ":" in host and not has_ipv6():
        with pytest.raises(SettingsError, match="is no address of this machine"):
            listen(host, 0)
        return
    with listen(host, 0) as sock:
        assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):\d+", shown_address(sock))


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("getaddrinfo", socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
        ("bind", OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")),
    ],
)
def test_a_host_that_is_not_this_machine_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, function: str, error: OSError
) -> None:
    fail_in(monkeypatch, function, error)
    with pytest.raises(SettingsError, match=f"--host 'localhost' .*: {error.strerror}"):
        listen("localhost", 0)


def test_a_privileged_port_says_which_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_in(monkeypatch, "bind", OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(SettingsError, match="above 1023"):
        listen("127.0.0.1", 80)


def fail_in(monkeypatch: pytest.MonkeyPatch, function: str, error: OSError) -> None:
    """Let the operating system refuse something."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket if function == "getaddrinfo" else socket.socket, function, refuse)


def test_an_unknown_name_is_found_before_anything_is_opened(tmp_path: Path) -> None:
    port = free_port()
    options = parsed("-d", "fakee", "-p", str(port), "--host", "127.0.0.1", "-m", str(tmp_path))
    with pytest.raises(UnknownName):
        serve.serve(options, build_test_plugins())
    listen("127.0.0.1", port).close()
