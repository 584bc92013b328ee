from __future__ import annotations

import json

from programs import KEY, Imagine

README = ("ddim", "euler", "euler a", "heun", "lms", "dpm++ 2m", "dpm++ 2s", "dpm++ sde")


def test_the_table_names_every_sampler_of_the_readme(imagine: Imagine) -> None:
    ended = imagine("samplers")
    assert (ended.code, ended.err) == (0, "")
    names = [line.partition("  ")[0] for line in ended.out.splitlines()]
    assert names[0] == "NAME"
    assert set(names) >= {*README, "dpm2", "dpm2 a"}
    [row] = [line for line in ended.out.splitlines() if line.startswith("test euler")]
    assert row.split("  ")[-1] == "default"
    assert "Test Euler" in row
    assert "fake" in row


def test_json_has_aliases_too(imagine: Imagine) -> None:
    found = {each["name"]: each for each in json.loads(imagine("samplers", "--json").out)}
    assert found["test euler"] == {
        "name": "test euler",
        "label": "Test Euler",
        "aliases": [],
        "schedules": ["default"],
        "evaluations": 1,
        "stochastic": False,
        "plugin": "fake",
    }


def test_a_server_is_asked_for_its_samplers(imagine: Imagine, server: str) -> None:
    ended = imagine("samplers", "-a", server, "--api-key", KEY)
    assert (ended.code, ended.err) == (0, "")
    assert "Test Euler" in ended.out
