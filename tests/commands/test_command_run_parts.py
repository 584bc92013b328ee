"""`imagine run` with LoRAs, VAEs and fast decoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagine_core.pictures.metadata import read_meta
from programs import Imagine

TAGS = "<lora:ink:0.5><lora:wool:0.25:-1>"
OURS = [{"name": "ink", "weight": 0.5}, {"name": "wool", "weight": -1.0, "text_weight": 0.25}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with two LoRAs and a VAE."""
    folder = tmp_path / "stocked"
    for name in ("tiny.fake", "loras/ink.fake", "loras/wool.fake", "vae/negative.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


RUN = ("-w", "64", "-h", "64", "-n", "4", "-g", "2", "--seed", "1", "--sampler", "test euler")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "red", "--lora", "ink:0.5", "--lora", "wool:te=0.25:unet=-1"),
        ("run", f"red{TAGS}"),
    ],
    ids=["flags", "tags"],
)
def test_imagine_run_takes_flags_and_tags(
    imagine: Imagine, folder: Path, arguments: tuple[str, ...]
) -> None:
    ended = imagine(*arguments, *RUN, "--neg", "", "--models", folder, "-o", "out.png")
    assert (ended.code, ended.err) == (0, "generating in this process\n")
    meta = read_meta(Path("out.png"))
    assert (meta["prompt"], meta["loras"]) == ("red", OURS)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("ink:much", "'much' is no number from -100 to 100"),
        ("", "is no NAME or NAME:WEIGHT"),
        ("a>b", "is no NAME or NAME:WEIGHT"),
        (" :1", "it has no name"),
    ],
)
def test_a_flag_that_cannot_be_read_is_told(imagine: Imagine, flag: str, said: str) -> None:
    ended = imagine("run", "red", "--lora", flag)
    assert ended.code == 2
    assert said in ended.err


def test_a_vae_and_a_decoder_are_asked_for(imagine: Imagine, folder: Path) -> None:
    ended = imagine("run", "red", *RUN, "--models", folder, "-o", "a.png", "--vae", "negative")
    assert ended.code == 0
    assert read_meta(Path("a.png"))["vae"] == "negative"
    ended = imagine("run", "red", *RUN, "--models", folder, "--decoder", "fast")
    assert (ended.code, ended.out) == (2, "")
    assert "--decoder: there is no fast decoder for fake" in ended.err
    assert "vae/ beside the checkpoints" in ended.err
