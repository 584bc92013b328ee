from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest

from imagine_core.cli import build_cli, main
from imagine_core.plugins import GROUP, Plugins, build_plugins
from imagine_core.testing import FakePlugin
from imagine_plugins.commands import plugins as command
from programs import Imagine


def test_the_table_shows_what_each_plugin_brings(imagine: Imagine) -> None:
    ended = imagine("plugins")
    assert (ended.code, ended.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()}
    assert rows["NAME"] == ["DISTRIBUTION", "VERSION", "BRINGS", "PROBLEM"]
    assert rows["imagine-command-run"][0] == "imagine-sd"
    assert rows["imagine-command-run"][2:] == ["commands"]
    assert rows["fake"] == ["-", "-", "devices,", "model_loaders,", "samplers"]


def test_what_failed_to_load_is_shown_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load() -> Plugins:
        missing = EntryPoint("missing", "no_such_module", GROUP)
        extra = [("fake", FakePlugin()), ("taken", FakePlugin()), ("command", command)]
        return build_plugins(found=[missing], extra=extra)

    assert main(["plugins", "--json"], program=build_cli(load)) == 0
    shown = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert "No module named 'no_such_module'" in shown["missing"]["problem"]
    assert "is taken by plugin 'fake'" in shown["taken"]["problem"]
    assert shown["fake"]["problem"] is None
    assert shown["fake"]["hooks"] == [
        "register_devices",
        "register_model_loaders",
        "register_samplers",
    ]
    assert main(["plugins"], program=build_cli(load)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert any(line.startswith("missing") and "no_such_module" in line for line in lines)


def test_every_builtin_plugin_is_loaded(imagine: Imagine) -> None:
    reports = json.loads(imagine("plugins", "--json").out)
    assert [report for report in reports if report["problem"]] == []
