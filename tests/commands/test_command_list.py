from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagine_plugins.commands.shared import source
from imagine_plugins.commands.shared.output import file_size
from imagine_plugins.dialects.native.client import NativeClient
from programs import KEY, Imagine


def test_the_table_says_what_is_wrong_with_a_model(imagine: Imagine, models: str) -> None:
    (Path(models) / "broken.fake").write_bytes(bytes(2_130_000))
    ended = imagine("list", "--models", models)
    assert (ended.code, ended.err) == (0, "")
    header, *rows = [line.split("  ") for line in ended.out.splitlines()]
    assert [cell.strip() for cell in header if cell] == ["NAME", "FAMILY", "SIZE", "PROBLEM"]
    ours = [[cell.strip() for cell in row if cell] for row in rows]
    assert ["broken", "fake", "2 MB", "it is broken; get another one"] in ours
    assert ["tiny", "fake", "0 B"] in ours


def test_names_stand_alone_in_the_first_column(imagine: Imagine, models: str) -> None:
    (Path(models) / "a\x1b[31m\nb.fake").touch()
    lines = imagine("list", "--models", models).out.splitlines()
    assert any(line.startswith("a [31m b ") for line in lines)


def test_json_has_what_the_table_has(imagine: Imagine, models: str) -> None:
    found = json.loads(imagine("list", "--models", models, "--json").out)
    assert {"name": "tiny", "family": "fake", "size": 0, "problem": None} in found


def test_a_models_folder_that_is_missing_is_a_warning(imagine: Imagine, tmp_path: Path) -> None:
    ended = imagine("list", "--models", tmp_path / "missing")
    assert ended.code == 0
    assert ended.err == f"Warning: the models folder {tmp_path}/missing does not exist\n"
    assert ended.out.startswith("NAME")


def test_a_server_is_asked_for_its_models(imagine: Imagine, server: str) -> None:
    ended = imagine("list", "-a", server, "--api-key", KEY)
    assert (ended.code, ended.err) == (0, "")
    assert any(line.split()[:2] == ["tiny", "fake"] for line in ended.out.splitlines())
    found = json.loads(imagine("list", "-a", server, "--api-key", KEY, "--json").out)
    assert "tiny" in [model["name"] for model in found]


def test_the_key_may_be_in_the_environment(
    imagine: Imagine, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imagine("list", "-a", server).code == 1
    monkeypatch.setenv("IMAGINE_API_KEY", KEY)
    assert imagine("list", "-a", server).code == 0


def test_a_server_that_runs_here_is_asked_first(
    imagine: Imagine, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = server.removeprefix("http://").split(":")
    monkeypatch.setattr(source, "DEFAULT_ADDRESS", (host, int(port)))
    monkeypatch.setattr(source, "server_runs_here", lambda: True)
    assert "tiny" in imagine("list", "--api-key", KEY).out


@pytest.mark.parametrize(
    ("reply", "out"),
    [({"models": ["old"]}, "old   -       -\n"), ({"models": []}, "")],
)
def test_a_server_that_gives_names_alone_is_enough(
    imagine: Imagine, monkeypatch: pytest.MonkeyPatch, reply: object, out: str
) -> None:
    async def models(client: NativeClient, kind: str) -> object:
        return reply

    monkeypatch.setattr(NativeClient, "models", models)
    assert imagine("list", "-a", "example.com").out == "NAME  FAMILY  SIZE  PROBLEM\n" + out


def test_a_list_that_makes_no_sense_is_one_line(
    imagine: Imagine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def models(client: NativeClient, kind: str) -> object:
        return {"details": ["tiny", 5]}

    monkeypatch.setattr(NativeClient, "models", models)
    ended = imagine("list", "-a", "example.com")
    assert ended.code == 1
    assert ended.err == "Error: the server at example.com has no list of models that makes sense\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (2_130_000_000, "2.1 GB")],
)
def test_sizes_are_in_units_that_fit(size: int, text: str) -> None:
    assert file_size(size) == text
