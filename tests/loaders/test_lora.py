"""Tests of imagine_plugins.loaders.lora."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from checkpoints import SDXL, TINY_SD1, shapes, write_checkpoint, write_folder, write_hollow
from imagine_core.errors import UnusableModel
from imagine_core.models.catalogue import Catalogue
from imagine_core.plugins import build_plugins
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.lora import LoraLoader

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
STYLE = {
    f"{UNET}attn2_to_k.lora_down.weight": (4, 768),
    f"{UNET}attn2_to_k.lora_up.weight": (320, 4),
    f"{UNET}attn2_to_q.lora_down.weight": (8, 320),
    f"{UNET}attn2_to_q.lora_up.weight": (320, 8),
    f"{TEXT}.lora_down.weight": (4, 768),
    f"{TEXT}.lora_up.weight": (3072, 4),
    "lora_unet_nowhere.lora_down.weight": (4, 4),
    "lora_unet_nowhere.lora_up.weight": (4, 4),
}
FLUX = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}
TOLD = {"modelspec.title": "Style", "ss_trigger_words": "in my style, ink"}


def catalogue(models: Path) -> Catalogue:
    (models / "loras").mkdir(parents=True, exist_ok=True)
    return Catalogue(models, loaders=build_plugins().loaders)


def test_a_lora_is_described_from_its_header_alone(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    path = write_hollow(tmp_path / "loras" / "style.safetensors", STYLE, metadata=TOLD)
    info = models.find("style")
    assert (info.kind, info.loader, info.family, info.fits) == ("lora", "lora", "sd1", ("sd1",))
    assert (info.problem, info.size) == (None, path.stat().st_size)
    assert info.parameters == 4 * (768 + 320) + 8 * 640 + 4 * (768 + 3072) + 32
    assert info.metadata == {"title": "Style"}
    left_out = info.details["left_out"]
    assert isinstance(left_out, list)
    assert "nowhere" in left_out[0]
    assert {**info.details, "left_out": 1} == {
        "triggers": ["in my style", "ink"],
        "forms": ["LoRA"],
        "ranks": [4, 8],
        "modules": 3,
        "components": ["unet", "text_encoder"],
        "left_out": 1,
    }


def test_a_lora_that_went_bad_meanwhile_is_refused_by_name(tmp_path: Path) -> None:
    path = write_hollow(tmp_path / "style.safetensors", STYLE)
    loader = LoraLoader()
    info = loader.recognise(path)
    assert info is not None
    os.truncate(path, 99)
    with pytest.raises(UnusableModel, match=r"^LoRA 'style' cannot be used: the download is incom"):
        loader.load(info, device=FakeDevice(), full_precision=False)
    path.unlink()
    with pytest.raises(UnusableModel, match=r"^LoRA 'style' cannot be used: it cannot be read"):
        loader.load(info, device=FakeDevice(), full_precision=False)


def test_among_the_models_a_lora_is_said_to_belong_elsewhere(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "style.safetensors", STYLE)
    info = models.find("style")
    assert (info.kind, info.family) == ("model", "lora")
    assert "LoRA for SD1" in (info.problem or "")
    assert "folder loras/ beside the checkpoints" in (info.problem or "")
    assert models.models("lora") == []


def _truncated(folder: Path) -> None:
    os.truncate(write_hollow(folder / "x.safetensors", STYLE), 20)


def _unreadable(folder: Path) -> None:
    (folder / "x.safetensors").mkdir()


def _dangling(folder: Path) -> None:
    (folder / "x.safetensors").symlink_to(folder / "unplugged")


def _checkpoint(folder: Path) -> None:
    write_checkpoint(folder / "x.safetensors", TINY_SD1)


def _pipeline(folder: Path) -> None:
    write_folder(folder / "x", TINY_SD1)


def _hollow(tensors: Mapping[str, tuple[int, ...]]) -> Callable[[Path], object]:
    return lambda folder: write_hollow(folder / "x.safetensors", tensors)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_truncated, "download"),
        (lambda folder: (folder / "x.safetensors").touch(), "the file is empty"),
        (lambda folder: (folder / "x.safetensors").write_bytes(bytes(99)), "only zeros"),
        (lambda folder: (folder / "x.safetensors").write_text("<!doctype html>"), "a web page"),
        (lambda folder: (folder / "x.pt").write_bytes(b"PK"), "this is a pickle"),
        (lambda folder: (folder / "x.part").write_bytes(b"x"), "unfinished download"),
        (_dangling, "a link that points to nothing"),
        (_hollow(FLUX), "LoRA for Flux, which is not supported; SD1, SD2, SDXL are"),
        (_hollow({f"{UNET}attn2_to_k.oft_blocks": (8, 8)}), "nothing can be applied"),
        (
            _hollow({"emb_params": (4, 768)}),
            "this is an embedding, a word for prompts, .* folder embeddings/",
        ),
        (_hollow({"decoder.conv_in.weight": (4, 4, 3, 3)}), "a VAE, .* folder vae/"),
        (_hollow(shapes(SDXL)), "this is a model; it belongs in the models folder itself"),
        (_checkpoint, "this is a model; it belongs in the models folder itself"),
        (_pipeline, "this is a model; it belongs in the models folder itself"),
        (_hollow({"mystery": (4, 4)}), "no Stable Diffusion checkpoint"),
    ],
)
def test_a_bad_file_among_the_loras_says_what_is_wrong(
    tmp_path: Path, write: Callable[[Path], object], says: str
) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "loras" / "good.safetensors", STYLE)
    write(tmp_path / "loras")
    good, bad = models.models("lora")
    assert (good.name, good.problem) == ("good", None)
    assert bad.kind == "lora"
    assert re.search(says, bad.problem or "")
    assert models.models() == []


def test_a_lora_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    models = catalogue(tmp_path)
    assert models.models("lora") == []
    write_hollow(tmp_path / "loras" / "x.safetensors", STYLE)
    monkeypatch.setattr("imagine_core.models.remembered.version", lambda: "1")
    monkeypatch.setattr(Path, "open", refuse)
    problem = models.find("x", "lora").problem
    assert problem == "the file cannot be read: Permission denied"


def test_what_is_no_file_and_what_is_hidden_is_passed_over(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "loras" / ".hidden.safetensors", STYLE)
    (tmp_path / "loras" / "folder").mkdir()
    (tmp_path / "loras" / "notes.txt").touch()
    (tmp_path / "loras" / "preview.png").touch()
    assert models.models("lora") == []
