"""`imagine list`, `show` and `rm` of LoRAs, embeddings and ControlNets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkpoints import write_hollow
from imagine_core.testing import FakePlugin
from imagine_plugins.loaders.architectures import SDXL
from imagine_plugins.loaders.control_slots import control_slots
from programs import KEY as KEY_OF_SERVER
from programs import Imagine, serving

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
STYLE = {f"{KEY}.lora_down.weight": (4, 768), f"{KEY}.lora_up.weight": (320, 4)}
TOLD = {"modelspec.license": "OpenRAIL", "ss_trigger_words": "in my style, ink\x1b[31m"}


@pytest.fixture
def loras(models: str) -> Path:
    """The folder of LoRAs: one that is whole, one that is not."""
    folder = Path(models) / "loras"
    folder.mkdir()
    write_hollow(folder / "style.safetensors", STYLE, metadata=TOLD)
    (folder / "half.safetensors").touch()
    return folder


def test_loras_are_listed_apart_from_the_models(imagine: Imagine, models: str, loras: Path) -> None:
    ended = imagine("list", "--kind", "lora", "--models", models)
    assert (ended.code, ended.err) == (0, "")
    header, *rows = ended.out.splitlines()
    assert header.split() == ["NAME", "FAMILY", "SIZE", "PROBLEM"]
    assert [row.split()[:2] for row in rows] == [["half", "broken"], ["style", "sd1"]]
    assert "the file is empty" in rows[0]
    assert rows[1].split()[2:] == ["9", "kB"]
    assert "style" not in imagine("list", "--models", models).out
    found = json.loads(imagine("list", "--kind", "lora", "--models", models, "--json").out)
    assert [(each["name"], bool(each["problem"])) for each in found] == [
        ("half", True),
        ("style", False),
    ]


def test_controlnets_are_listed_apart_from_the_models(imagine: Imagine, models: str) -> None:
    folder = Path(models) / "controlnet"
    folder.mkdir()
    table = {slot.key: slot.shape for slot in control_slots(SDXL.unet) or []}
    write_hollow(folder / "canny.safetensors", table)
    write_hollow(folder / "union.safetensors", {**table, "task_embedding": (6, 320)})
    ended = imagine("list", "--kind", "controlnet", "--models", models)
    assert (ended.code, ended.err) == (0, "")
    _, canny, doodle, union = ended.out.splitlines()
    assert doodle.split() == ["doodle-canny", "sd", "8", "MB"]
    assert canny.split() == ["canny", "sdxl", "2.5", "GB"]
    assert union.split()[:4] == ["union", "controlnet", "2.5", "GB"]
    assert "several kinds of hints at once (union, ProMax)" in union
    assert "canny" not in imagine("list", "--models", models).out


def test_a_folder_of_loras_that_cannot_be_listed_is_a_warning(
    imagine: Imagine, models: str
) -> None:
    empty = imagine("list", "--kind", "lora", "--models", models)
    assert (empty.out, empty.err) == ("NAME  FAMILY  SIZE  PROBLEM\n", "")
    (Path(models) / "loras").touch()
    ended = imagine("list", "--kind", "lora", "--models", models)
    assert ended.err == f"Warning: the models folder {models}/loras is a file\n"


def test_an_unknown_kind_is_a_usage_error(imagine: Imagine, models: str) -> None:
    ended = imagine("list", "--kind", "poem", "--models", models)
    assert ended.code == 2
    assert "'model', 'lora'" in ended.err


def test_a_lora_is_shown_with_what_it_is_for_and_what_calls_it(
    imagine: Imagine, models: str, loras: Path
) -> None:
    ended = imagine("show", "Style", "--models", models)
    assert (ended.code, ended.err) == (0, "")
    rows = {line[:18].strip(): line[18:] for line in ended.out.splitlines()}
    digits = rows.pop("hash")
    assert rows == {
        "name": "style",
        "family": "sd1",
        "parameters": "0.0 million",
        "dtype": "float16",
        "format": "lora",
        "size": "9 kB",
        "kind": "lora",
        "for models of": "sd1",
        "trigger words": "in my style, ink [31m",
        "forms": "LoRA",
        "ranks": "4",
        "modules": "1",
        "components": "unet",
        "license": "OpenRAIL",
    }
    found = json.loads(imagine("show", "style", "--models", models, "--json").out)
    assert (found["kind"], found["fits"], found["hash"]) == ("lora", ["sd1"], digits)
    assert found["details"]["triggers"] == ["in my style", "ink [31m"]
    assert found["recommended_size"] is None
    assert "the file is empty" in imagine("show", "half", "--models", models).out


def test_a_model_is_meant_where_a_lora_has_its_name_and_no_kind_is_given(
    imagine: Imagine, models: str, loras: Path
) -> None:
    write_hollow(loras / "tiny.safetensors", STYLE)

    def shown(*kind: str) -> str:
        return str(
            json.loads(imagine("show", "tiny", *kind, "--models", models, "--json").out)["kind"]
        )

    assert (shown(), shown("--kind", "lora"), shown("--kind", "model")) == (
        "model",
        "lora",
        "model",
    )
    assert imagine("rm", "tiny", "--yes", "--kind", "lora", "--models", models).code == 0
    assert not (loras / "tiny.safetensors").exists()
    assert (Path(models) / "tiny.fake").exists()


def test_a_lora_is_removed_with_the_json_beside_it(
    imagine: Imagine, models: str, loras: Path
) -> None:
    (loras / "style.json").write_text("{}")
    (Path(models) / "style.json").write_text("{}")
    ended = imagine("rm", "style", "half", "--yes", "--models", models)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "deleted style (sd1, 9 kB)\ndeleted half (broken, 0 B)\n"
    assert list(loras.iterdir()) == []
    assert (Path(models) / "style.json").exists()


def test_embeddings_are_listed_shown_and_removed(imagine: Imagine, models: str) -> None:
    folder = Path(models) / "embeddings"
    folder.mkdir()
    write_hollow(folder / "EasyNegative.safetensors", {"emb_params": (8, 768)})
    (folder / "old.pt").write_bytes(b"PK")
    listed = imagine("list", "--kind", "embedding", "--models", models)
    assert (listed.code, listed.err) == (0, "")
    rows = [row.split()[:2] for row in listed.out.splitlines()[1:]]
    assert rows == [["EasyNegative", "sd1"], ["old.pt", "pickle"]]
    assert "weights_only=True" in listed.out
    shown = imagine("show", "easynegative", "--models", models).out
    lines = {line[:18].strip(): line[18:] for line in shown.splitlines()}
    del lines["hash"]
    assert lines == {
        "name": "EasyNegative",
        "family": "sd1",
        "parameters": "0.0 million",
        "dtype": "float16",
        "format": "embedding",
        "size": "12 kB",
        "kind": "embedding",
        "for models of": "sd1",
        "trigger words": "EasyNegative",
        "vectors": "8",
        "width": "768",
        "components": "text_encoder",
    }
    assert imagine("rm", "easynegative", "old.pt", "--yes", "--models", models).code == 0
    assert list(folder.iterdir()) == []


def test_a_lora_is_refused_as_a_model_by_its_name(
    imagine: Imagine, models: str, loras: Path
) -> None:
    ended = imagine("run", "a fox", "-m", "style", "--models", models)
    assert ended.code == 1
    assert "'style' cannot be used: this is a LoRA" in ended.err
    assert "it is for models of sd1" in ended.err


def test_a_server_is_asked_for_its_loras(
    imagine: Imagine, tmp_path: Path, fake: FakePlugin
) -> None:
    (tmp_path / "served" / "loras").mkdir(parents=True)
    write_hollow(tmp_path / "served" / "loras" / "style.safetensors", STYLE, metadata=TOLD)
    with serving(tmp_path / "served", step=0.0) as (address, _):
        options = ("-a", address, "--api-key", KEY_OF_SERVER)
        listed = imagine("list", "--kind", "lora", *options)
        assert [row.split()[0] for row in listed.out.splitlines()] == ["NAME", "style"]
        assert "style" not in imagine("list", *options).out
        shown = imagine("show", "style", "--kind", "lora", *options).out
    assert "trigger words     in my style, ink [31m\n" in shown
