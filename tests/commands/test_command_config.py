"""`imagine config`: the settings in force, and their sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagine_core.settings.file import VARIABLE
from programs import Ended, Imagine

FILE = """
models = "/from/file"
api-key = "hush"

[serve]
port = 6000
origins = ["https://a.example", "https://b.example"]

[run]
steps = 30
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file."""
    path = tmp_path / "settings.toml"
    path.write_text(FILE, "utf-8")
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def rows(ended: Ended) -> dict[str, list[str]]:
    """The columns behind each name that a run printed."""
    assert ended.code == 0, ended.err
    lines = (line.split(maxsplit=2) for line in ended.out.splitlines()[1:])
    return {name: rest for name, *rest in lines}


def test_it_shows_each_value_and_where_it_comes_from(
    imagine: Imagine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_KEEP_ALIVE", "1m")
    shown = imagine("config")
    found = rows(shown)
    assert found["keep-alive"] == ["1m", "IMAGINE_KEEP_ALIVE"]
    assert found["models"] == ["/from/file", f"models in {file}"]
    assert found["serve.port"] == ["6000", f"serve.port in {file}"]
    assert found["run.steps"] == ["30", f"run.steps in {file}"]
    assert found["host"] == ["0.0.0.0", "default"]  # noqa: S104 - the default
    assert "run.width" not in found
    assert shown.err == f"settings file: {file}\n"


def test_a_secret_is_masked(imagine: Imagine, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(imagine("config"))["api-key"] == ["********", f"api-key in {file}"]
    monkeypatch.setenv("IMAGINE_API_KEY", "hush too")
    for arguments in (["config"], ["config", "--json"], ["config", "run", "--api-key", "hush"]):
        shown = imagine(*arguments)
        assert shown.code == 0
        assert "hush" not in shown.out + shown.err


def test_of_one_command_it_shows_everything_with_the_flags_given(
    imagine: Imagine, file: Path
) -> None:
    found = rows(imagine("config", "serve", "-p", "7000", "--full-prec"))
    assert found["port"] == ["7000", "--port"]
    assert found["full_prec"] == ["true", "--full_prec"]
    assert found["serve.origins"][0] == "https://a.example,https://b.example"
    assert found["offline"] == ["true", "IMAGINE_OFFLINE"]
    assert "(the model's, or dpm++ 2m)" in imagine("config", "run").out


def test_a_flag_of_the_program_holds_for_every_command(
    imagine: Imagine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_OFFLINE", "")
    assert rows(imagine("config"))["offline"] == ["false", "default"]
    monkeypatch.setenv("IMAGINE_OFFLINE", "no")
    assert rows(imagine("config"))["offline"] == ["false", "IMAGINE_OFFLINE"]
    monkeypatch.setenv("IMAGINE_OFFLINE", "")
    file.write_text("offline = false")
    assert rows(imagine("config"))["offline"] == ["false", f"offline in {file}"]
    file.write_text("offline = true")
    assert rows(imagine("config"))["offline"] == ["true", f"offline in {file}"]
    assert rows(imagine("--offline", "config"))["offline"] == ["true", "--offline"]


def test_json_says_the_same_for_programs(imagine: Imagine, file: Path) -> None:
    found = {each["name"]: each for each in json.loads(imagine("config", "--json").out)}
    assert found["serve.port"] == {
        "name": "serve.port",
        "value": "6000",
        "source": "file",
        "origin": f"serve.port in {file}",
    }
    assert found["default-model"]["value"] is None
    assert found["host"]["source"] == "default"


def test_it_says_where_the_file_would_be(
    imagine: Imagine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = imagine("config", "--path").out.strip()
    assert Path(path).is_relative_to(tmp_path)
    assert imagine("config").err == f"settings file: {path} (there is none)\n"


def test_a_bad_value_anywhere_fails_and_names_itself(imagine: Imagine, file: Path) -> None:
    file.write_text("[serve]\nport = 70000")
    ended = imagine("config")
    assert ended.code == 2
    assert f"70000 is not in the range 0<=x<=65535 (from serve.port in {file})" in ended.err


def test_an_unknown_command_is_answered_with_the_nearest(imagine: Imagine) -> None:
    ended = imagine("config", "serv")
    assert ended.code == 2
    assert "unknown command 'serv'; did you mean 'serve'" in ended.err


def test_a_command_in_a_group_can_be_asked_about(imagine: Imagine) -> None:
    assert imagine("config", "service", "install").code == 0


# --------------------------------------------------------- what settings mean to the commands


def test_settings_say_how_pictures_are_made_here_and_only_flags_say_that_they_are(
    imagine: Imagine, file: Path, server: str, models: str
) -> None:
    file.write_text(f'models = "{models}"\ndevice = "cpu"\naddress = "{server}"\napi_key = "a key"')
    (Path(models) / "only-here.fake").touch()
    assert "only-here" not in imagine("list").out
    assert "only-here" in imagine("list", "--models", models).out
    asked = imagine("run", "red", "-n", "2", "-w", "64", "-h", "64", "-m", "tiny")
    assert asked.code == 0
    assert "in this process" not in asked.err
    here = imagine("run", "red", "-n", "2", "-w", "64", "-h", "64", "--device", "fake")
    assert here.code == 0
    assert "in this process" in here.err
