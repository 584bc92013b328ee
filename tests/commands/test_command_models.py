"""`imagine show`, `ps`, `stop` and `rm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkpoints import TINY_SD1, write_checkpoint
from imagine_plugins.dialects.native.client import NativeClient
from programs import KEY, Imagine


def draw(imagine: Imagine, server: str) -> None:
    small = ("-w", "64", "-h", "64", "-n", "2", "--sampler", "test euler")
    assert imagine("run", "red", "-a", server, "--api-key", KEY, *small).code == 0


# ---------------------------------------------------------------------------------------- show


def test_show_says_what_a_file_says_of_itself(imagine: Imagine, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    said = {"modelspec.license": "OpenRAIL\x1b[31m", "modelspec.title": "Mine"}
    write_checkpoint(path, TINY_SD1, dtype="F16", metadata=said)
    ended = imagine("show", "MINE", "--models", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    rows = {line[:18].strip(): line[18:] for line in ended.out.splitlines()}
    assert rows["name"] == "mine"
    assert rows["dtype"] == "float16"
    assert rows["license"] == "OpenRAIL [31m"
    assert rows["title"] == "Mine"
    assert rows["parameters"].endswith(" million")
    assert len(rows["hash"]) == 10
    found = json.loads(imagine("show", "mine", "--models", tmp_path, "--json").out)
    assert found["hash"] == rows["hash"]
    assert found["metadata"]["title"] == "Mine"
    assert str(tmp_path) not in json.dumps(found)


def test_show_says_what_is_wrong(imagine: Imagine, models: str) -> None:
    (Path(models) / "broken.fake").touch()
    assert "it is broken; get another one" in imagine("show", "broken", "--models", models).out
    assert "recommended size" not in imagine("show", "broken", "--models", models).out
    ended = imagine("show", "tinny", "--models", models)
    assert ended.code == 1
    assert "did you mean 'tiny'" in ended.err


def test_show_asks_a_server(imagine: Imagine, server: str) -> None:
    found = json.loads(imagine("show", "tiny", "-a", server, "--api-key", KEY, "--json").out)
    assert (found["name"], found["family"], found["format"]) == ("tiny", "fake", "fake")
    assert len(found["hash"]) == 10
    ended = imagine("show", "a/b ?", "-a", server, "--api-key", KEY)
    assert ended.code == 1
    assert ended.err.startswith("Error: ")


# --------------------------------------------------------------------------------- ps and stop


def test_ps_lists_what_is_loaded_until_stop_unloads_it(imagine: Imagine, server: str) -> None:
    draw(imagine, server)
    ended = imagine("ps", "-a", server, "--api-key", KEY)
    assert (ended.code, ended.err) == (0, "")
    header, row = ended.out.splitlines()
    assert header.split() == ["NAME", "KIND", "FAMILY", "MEMORY", "DTYPE", "UNTIL"]
    assert row.split()[:3] == ["tiny", "model", "fake"]
    assert row.endswith("from now")
    assert "float32" in row
    assert imagine("stop", "tiny", "-a", server, "--api-key", KEY).err == "tiny was unloaded\n"
    found = json.loads(imagine("ps", "-a", server, "--api-key", KEY, "--json").out)
    assert (found["models"], found["jobs"]) == ([], [])
    assert imagine("stop", "tiny", "-a", server, "--api-key", KEY).err == "tiny was not loaded\n"


def test_stop_of_an_unknown_model_names_the_nearest(imagine: Imagine, server: str) -> None:
    ended = imagine("stop", "tinny", "-a", server, "--api-key", KEY)
    assert ended.code == 1
    assert "did you mean 'tiny'" in ended.err


def test_ps_shows_where_every_job_stands(imagine: Imagine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"model": "big", "sampler": "euler", "width": 512, "height": 768, "steps": 25}
    reply = {
        "dtype": "bfloat16",
        "models": [
            {"name": "big", "family": "sd1", "memory": 2_100_000_000, "in_use": 2},
            {
                "name": "small",
                "kind": "lora",
                "family": "sd1",
                "memory": 7_000_000,
                "size": 1,
                "expires_in": None,
            },
            {"name": "old", "family": "sd1", "size": 7_000_000, "expires_in": 60},
        ],
        "jobs": [
            {**job, "id": "a", "phase": "denoising", "step": 7},
            {**job, "id": "b", "phase": "loading", "step": 0, "fraction": 0.42},
            {**job, "id": "c", "phase": "queued", "step": 0, "position": 3},
        ],
    }

    async def ps(client: NativeClient) -> object:
        return reply

    monkeypatch.setattr(NativeClient, "ps", ps)
    lines = [line.split("  ") for line in imagine("ps", "-a", "example.com").out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows[1] == ["big", "model", "sd1", "2.1 GB", "bfloat16", "in use"]
    assert rows[2] == ["small", "lora", "sd1", "7 MB", "bfloat16", "forever"]
    assert rows[3][:5] == ["old", "model", "sd1", "-", "bfloat16"]
    assert rows[6] == ["a", "big", "512x768", "euler", "7/25", "denoising"]
    assert rows[7][-2:] == ["0/25", "loading 42%"]
    assert rows[8][-2:] == ["0/25", "queued, 3 ahead"]


@pytest.mark.parametrize("command", [["ps"], ["stop", "tiny"]])
def test_without_a_server_there_is_nothing_to_ask(imagine: Imagine, command: list[str]) -> None:
    ended = imagine(*command)
    assert ended.code == 1
    assert "start one with 'imagine serve'" in ended.err


# ------------------------------------------------------------------------------------------ rm


def test_rm_asks_and_then_deletes_the_model_and_what_is_beside_it(
    imagine: Imagine, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(models)
    (folder / "tiny.json").write_text("{}")
    (folder / "other.fake").touch()
    monkeypatch.setattr("click.confirm", refuse)
    ended = imagine("rm", "tiny", "--models", models)
    assert (ended.code, ended.err) == (0, "kept tiny\n")
    assert (folder / "tiny.fake").exists()
    ended = imagine("rm", "tiny", "--yes", "--models", models)
    assert (ended.code, ended.err) == (0, "deleted tiny (fake, 0 B)\n")
    assert [path.name for path in folder.iterdir()] == ["other.fake"]


def refuse(question: str, **options: object) -> bool:
    assert question.startswith("Delete tiny (fake, 0 B) from ")
    return False


def test_rm_deletes_nothing_if_one_name_is_wrong(imagine: Imagine, models: str) -> None:
    ended = imagine("rm", "tiny", "tinny", "--yes", "--models", models)
    assert ended.code == 1
    assert "did you mean 'tiny'" in ended.err
    assert (Path(models) / "tiny.fake").exists()


def test_rm_deletes_a_folder_with_all_that_is_in_it(imagine: Imagine, tmp_path: Path) -> None:
    (tmp_path / "m" / "broken").mkdir(parents=True)
    (tmp_path / "m" / "broken" / "model_index.json").write_text("{}")
    assert imagine("rm", "broken", "-y", "--models", tmp_path / "m").code == 0
    assert list((tmp_path / "m").iterdir()) == []


def test_rm_of_a_link_leaves_what_it_leads_to(
    imagine: Imagine, models: str, tmp_path: Path
) -> None:
    (tmp_path / "real.fake").touch()
    (Path(models) / "link.fake").symlink_to(tmp_path / "real.fake")
    assert imagine("rm", "link", "-y", "--models", models).code == 0
    assert (tmp_path / "real.fake").exists()


def test_rm_of_a_pickle_leaves_the_sidecar_of_its_conversion(
    imagine: Imagine, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    write_checkpoint(folder / "mine.safetensors", TINY_SD1)
    for name in ("mine.ckpt", "mine.json"):
        (folder / name).write_text("{}")
    assert imagine("rm", "mine.ckpt", "-y", "--models", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["mine.json", "mine.safetensors"]
    assert imagine("rm", "mine", "-y", "--models", folder).code == 0
    assert list(folder.iterdir()) == []


def test_rm_of_a_model_that_is_named_twice_deletes_it_once(imagine: Imagine, models: str) -> None:
    ended = imagine("rm", "tiny", "TINY", "-y", "--models", models)
    assert (ended.code, ended.err) == (0, "deleted tiny (fake, 0 B)\n")


def test_rm_refuses_what_came_with_a_plugin(
    imagine: Imagine, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    (bundled / "ours.fake").touch()
    monkeypatch.setattr("imagine_core.plugins.Plugins.model_folders", lambda _: [bundled])
    ended = imagine("rm", "ours", "-y", "--models", models)
    assert ended.code == 2
    assert "'ours' came with a plugin and cannot be removed" in ended.err
    assert (bundled / "ours.fake").exists()
