"""Tests of imagine_plugins.loaders.embedding."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import TINY_SD1, write_checkpoint, write_hollow
from imagine_core.errors import UnusableModel
from imagine_core.models.catalogue import Catalogue
from imagine_core.plugins import build_plugins
from imagine_core.testing import FakeDevice

ROOT = Path(__file__).parents[2]
Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the embeddings."""
    (tmp_path / "embeddings").mkdir()
    return tmp_path / "embeddings"


def catalogue(folder: Path) -> Catalogue:
    return Catalogue(folder.parent, loaders=build_plugins().loaders)


def load(folder: Path, name: str) -> Any:
    info = catalogue(folder).find(name, "embedding")
    loader = build_plugins().loaders.get(info.loader)
    return loader.load(info, device=FakeDevice(), full_precision=False)


LAYOUTS: list[tuple[Shapes, tuple[str, ...], int]] = [
    ({"emb_params": (8, 768)}, ("sd1",), 8),
    ({"emb_params": (768,)}, ("sd1",), 1),
    ({"emb_params": (4, 1024)}, ("sd2",), 4),
    ({"<cat-toy>": (768,)}, ("sd1",), 1),
    ({"*": (2, 1024)}, ("sd2",), 2),
    ({"clip_l": (2, 768), "clip_g": (2, 1280)}, ("sdxl",), 2),
    ({"clip_g": (1280,), "clip_l": (768,)}, ("sdxl",), 1),
    ({"clip_l": (8, 768), "clip_g": (6, 1280)}, ("sdxl",), 8),
    ({"text_encoders_0": (2, 768), "text_encoders_1": (2, 1280)}, ("sdxl",), 2),
    ({"clip_g": (3, 1280)}, ("sdxl",), 3),
    ({"<cat>": (3, 1280)}, ("sdxl",), 3),
    ({"clip_l": (3, 768)}, ("sd1", "sdxl"), 3),
]
ENCODERS = {768: "text_encoder", 1024: "text_encoder", 1280: "text_encoder_2"}


@pytest.mark.parametrize(("tensors", "fits", "vectors"), LAYOUTS)
def test_an_embedding_is_described_from_its_header_alone(
    folder: Path, tensors: Shapes, fits: tuple[str, ...], vectors: int
) -> None:
    said = {"modelspec.title": "Bad"}
    path = write_hollow(folder / "EasyNegative.safetensors", tensors, metadata=said)
    info = catalogue(folder).find("easynegative")
    assert (info.kind, info.loader, info.problem) == ("embedding", "embedding", None)
    assert (info.family, info.fits) == (fits[0], fits)
    assert (info.size, info.dtype) == (path.stat().st_size, "float16")
    assert info.metadata == {"title": "Bad"}
    components = sorted(ENCODERS[shape[-1]] for shape in tensors.values())
    assert info.details == {
        "triggers": ["EasyNegative"],
        "vectors": vectors,
        "width": sum(shape[-1] for shape in tensors.values()),
        "components": components,
    }
    loaded = load(folder, "EasyNegative")
    assert {name: tuple(each.shape) for name, each in loaded.vectors.items()} == {
        ENCODERS[shape[-1]]: shape if len(shape) == 2 else (1, *shape) for shape in tensors.values()
    }
    assert loaded.hash == hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def test_what_of_a_file_nothing_reads_is_said(folder: Path) -> None:
    tensors = {"clip_l": (2, 768), "clip_g": (2, 1280), "clip_l_out": (2, 768)}
    write_hollow(folder / "x.safetensors", tensors)
    assert catalogue(folder).find("x").details["left_out"] == ["clip_l_out: nothing reads it"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_vectors_are_loaded_as_the_file_has_them(folder: Path, dtype: str) -> None:
    torch.manual_seed(0)
    tensors = {"clip_l": torch.randn(3, 768), "clip_g": torch.randn(2, 1280)}
    stored = {key: value.to(getattr(torch, dtype)) for key, value in tensors.items()}
    save_file(stored, folder / "x.safetensors")
    embedding = load(folder, "x")
    assert torch.equal(embedding.vectors["text_encoder"], stored["clip_l"].float())
    assert torch.equal(embedding.vectors["text_encoder_2"], stored["clip_g"].float())
    embedding.close()
    assert embedding.vectors == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_vectors_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    vectors = torch.zeros(2, 768)
    vectors[1, 5] = value
    save_file({"emb_params": vectors}, folder / "x.safetensors")
    with pytest.raises(UnusableModel, match="'x' cannot be used: its vectors are not all numbers"):
        load(folder, "x")


def test_a_file_that_was_replaced_meanwhile_is_refused(folder: Path) -> None:
    path = write_hollow(folder / "x.safetensors", {"emb_params": (4, 768)})
    info = catalogue(folder).find("x", "embedding")
    loader = build_plugins().loaders.get(info.loader)
    for tensors, says in (({"mystery": (4, 4)}, "no embedding"), ({"emb_params": (4, 7)}, "7")):
        write_hollow(path, tensors)
        with pytest.raises(UnusableModel, match=says):
            loader.load(info, device=FakeDevice(), full_precision=False)


def _hollow(tensors: Shapes, dtype: str = "F16") -> Callable[[Path], object]:
    return lambda folder: write_hollow(folder / "x.safetensors", tensors, dtype=dtype)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda folder: (folder / "x.pt").write_bytes(b"PK"), "a pickle, .* weights_only=True"),
        (lambda folder: (folder / "x.BIN").write_bytes(b"PK"), "a pickle, .*string_to_param"),
        (lambda folder: (folder / "x.safetensors").touch(), "the file is empty"),
        (lambda folder: (folder / "x.safetensors").write_text("<html>"), "a web page"),
        (lambda folder: (folder / "x.part").write_bytes(b"x"), "unfinished download"),
        (_hollow({"emb_params": (4, 640)}), "another model, whose vectors have 640 numbers"),
        (_hollow({"emb_params": (4, 4096)}), "Flux or Stable Diffusion 3, .*; SD1, SD2, SDXL are"),
        (
            _hollow({"clip_l": (4, 768), "clip_g": (4, 1280), "t5xxl": (4, 4096)}),
            "Flux or Stable Diffusion 3",
        ),
        (_hollow({"clip_l": (4, 1280), "clip_g": (4, 768)}), "1280 and 768 numbers"),
        (_hollow({"emb_params": (5000, 768)}), "whose emb_params is 5000x768"),
        (_hollow({"emb_params": (0, 768)}), "whose emb_params is 0x768"),
        (_hollow({"emb_params": (1, 4, 768)}), "whose emb_params is 1x4x768"),
        (_hollow({"emb_params": ()}), "whose emb_params is a single number"),
        (_hollow({"emb_params": (4, 768)}, "I8"), "holds I8: quantised vectors"),
        (_hollow({"norm.weight": (768,)}), "no Stable Diffusion checkpoint"),
        (_hollow({"cat": (129, 768)}), "no Stable Diffusion checkpoint"),
        (_hollow({"one": (4, 768), "two": (4, 768)}), "no Stable Diffusion checkpoint"),
        (_hollow({"decoder.conv_in.weight": (4, 4, 3, 3)}), "a VAE, .* folder vae/"),
        (
            _hollow({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)}),
            "LoRA",
        ),
        (
            lambda folder: write_checkpoint(folder / "x.safetensors", TINY_SD1),
            "this is a model; it belongs in the models folder itself",
        ),
    ],
)
def test_a_bad_file_among_the_embeddings_says_what_is_wrong(
    folder: Path, write: Callable[[Path], object], says: str
) -> None:
    write_hollow(folder / "good.safetensors", {"emb_params": (4, 768)})
    write(folder)
    models = catalogue(folder)
    good, bad = models.models("embedding")
    assert (good.name, good.problem) == ("good", None)
    assert bad.kind == "embedding"
    assert re.search(says, bad.problem or "")
    assert models.usable("embedding") == [good]


@pytest.mark.parametrize("place", ["", "loras"])
def test_elsewhere_an_embedding_is_said_to_belong_among_the_embeddings(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "loras").mkdir()
    write_hollow(tmp_path / place / "x.safetensors", {"clip_l": (2, 768), "clip_g": (2, 1280)})
    (tmp_path / place / "y.pt").write_bytes(b"PK")
    models = Catalogue(tmp_path, loaders=build_plugins().loaders)
    x, y = models.models("lora" if place else "model")
    assert x.family == "embedding"
    assert "it belongs in the folder embeddings/ beside the checkpoints" in (x.problem or "")
    assert (y.name, y.family) == ("y.pt", "pickle")
    assert (y.problem or "").endswith("convert it to safetensors")


def test_what_is_hidden_and_what_is_no_file_is_passed_over(folder: Path) -> None:
    write_hollow(folder / ".x.safetensors", {"emb_params": (4, 768)})
    (folder / ".y.pt").touch()
    (folder / "preview.png").touch()
    (folder / "folder").mkdir()
    assert catalogue(folder).models("embedding") == []


PICKLES: dict[str, tuple[Any, dict[str, str]]] = {
    "A1111": (
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": torch.randn(4, 768, requires_grad=True)},
            "name": "x",
            "step": 1500,
            "sd_checkpoint": "cc6cb27103",
            "sd_checkpoint_name": "v1-5",
        },
        {"text_encoder": "*"},
    ),
    "diffusers": ({"<cat>": torch.nn.Parameter(torch.randn(768))}, {"text_encoder": "<cat>"}),
    "SDXL": (
        {"clip_g": torch.randn(2, 1280), "clip_l": torch.randn(2, 768)},
        {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    ),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_the_way_to_convert_a_pickle_makes_a_file_that_can_be_loaded(
    folder: Path, kind: str
) -> None:
    content, keys = PICKLES[kind]
    torch.save(content, folder / "x.pt")
    problem = catalogue(folder).find("x.pt", "embedding").problem
    assert problem is not None
    command = problem[problem.index("python -c ") :]
    assert command in (ROOT / "docs" / "prompts.md").read_text("utf-8")
    _, *words = shlex.split(command.replace("FILE", "x.pt"))
    subprocess.run([sys.executable, *words], cwd=folder, check=True, timeout=120)
    loaded = load(folder, "x")
    tensors = content.get("string_to_param", content)
    assert set(loaded.vectors) == set(keys)
    for component, key in keys.items():
        expected = tensors[key].detach()
        assert torch.equal(loaded.vectors[component], expected.view(-1, expected.shape[-1]))
