"""Single-file checkpoints load whole, equal diffusers' own loading, and outlive their file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, inpainting, write_checkpoint
from imagine_core.errors import UnusableModel
from imagine_plugins.loaders import weights
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.components import Component
from imagine_plugins.loaders.recognition import recognise_checkpoint
from imagine_plugins.loaders.weights import WeightsError, build
from reference import CPU, Half, load, single_file_pipeline

WHOLE = [TINY_SD1, TINY_SD2, TINY_SDXL]
LAYOUTS = [*WHOLE, *map(inpainting, WHOLE)]
NAMES = ["sd1", "sd2", "sdxl", "sd1-inpaint", "sd2-inpaint", "sdxl-inpaint"]
BF16 = Half(torch.bfloat16)


def parameters(model: Any) -> dict[str, torch.Tensor]:
    parts = {
        "unet": model.unet,
        "vae": model.autoencoder.model,
        "text": model.text.model,
    }
    if hasattr(model, "second"):
        parts["second"] = model.second.model
    return {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.named_parameters()
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
def test_every_parameter_equals_what_diffusers_converter_makes_of_the_file(
    tmp_path: Path, layout: Layout
) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", layout)
    theirs = single_file_pipeline(path, layout, tmp_path / "configs")
    ours = load(path)
    expected = {
        "unet": theirs.unet,
        "vae": theirs.vae,
        "text": theirs.text_encoder,
        "second": getattr(theirs, "text_encoder_2", None),
    }
    flat = {
        f"{part}.{name}": value
        for part, module in expected.items()
        if module is not None
        for name, value in module.named_parameters()
    }
    found = parameters(ours)
    assert set(found) == set(flat)
    assert all(torch.equal(found[name], flat[name]) for name in flat)


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F64"])
def test_weights_of_any_precision_are_cast_to_the_devices(tmp_path: Path, stored: str) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1, dtype=stored)
    model = load(path, device=BF16)
    assert {value.dtype for value in parameters(model).values()} == {torch.bfloat16}
    conditioning = model.encode_prompt("a cat", clip_skip=1, width=64, height=64)
    prediction = model.predict(torch.randn(1, 4, 16, 16), torch.tensor([500.0]), conditioning)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()


@pytest.mark.parametrize("device", ["bfloat16", "float32"])
@pytest.mark.parametrize("stored", ["F32", "F16", "BF16", "F8_E4M3"])
def test_what_is_read_in_pieces_is_what_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, device: str
) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1, dtype=stored)
    target = Half(getattr(torch, device))
    whole = parameters(load(path, device=target))
    monkeypatch.setattr(weights, "PIECE", 104)
    pieces = parameters(load(path, device=target))
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    key = "model.diffusion_model.time_embed.0.weight"
    expected = load_file(path)[key].to(target.dtype())
    found = [value for name, value in whole.items() if "time_embedding.linear_1.weight" in name]
    assert [torch.equal(value, expected) for value in found] == [True]


def test_full_precision_is_float32_whatever_the_device_prefers(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    model = load(path, device=BF16, full_precision=True)
    assert {value.dtype for value in parameters(model).values()} == {torch.float32}


def test_the_autoencoder_computes_in_the_dtype_that_the_device_wants_for_it(tmp_path: Path) -> None:
    class Mixed(Half):
        def vae_dtype(self, dtype: Any) -> Any:
            assert dtype == torch.bfloat16
            return torch.float32

    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    model = load(path, device=Mixed(torch.bfloat16))
    assert (model.unet.dtype, model.autoencoder.model.dtype) == (torch.bfloat16, torch.float32)
    weight = model.autoencoder.model.decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [(TINY_SD1, torch.float16), (TINY_SDXL, torch.float32)],
    ids=["sd1", "sdxl"],
)
def test_an_autoencoder_that_overflows_in_half_precision_is_kept_in_float32(
    tmp_path: Path, layout: Layout, dtype: torch.dtype
) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", layout)
    assert load(path, device=Half(torch.float16)).autoencoder.model.dtype == dtype


def test_a_file_that_is_cut_and_overwritten_after_loading_harms_nothing(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1, dtype="F32")
    model = load(path)
    before = model.encode_prompt("a cat", clip_skip=1, width=64, height=64).context
    os.truncate(path, 100)  # a mapped file would end this process with SIGBUS
    model.text._cache.clear()
    assert torch.equal(
        model.encode_prompt("a cat", clip_skip=1, width=64, height=64).context, before
    )


def test_a_file_replaced_since_it_was_listed_is_recognised_anew_or_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    info = CheckpointLoader().recognise(path)
    assert info is not None
    write_checkpoint(path, TINY_SDXL)
    assert type(CheckpointLoader().load(info, device=CPU, full_precision=True)).__name__ == (
        "StableDiffusionXL"
    )
    path.write_text("<html>", "utf-8")
    with pytest.raises(UnusableModel, match="web page"):
        CheckpointLoader().load(info, device=CPU, full_precision=True)
    path.unlink()
    with pytest.raises(UnusableModel, match="tiny"):
        CheckpointLoader().load(info, device=CPU, full_precision=True)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    unet = recognise_checkpoint(path).components["unet"]
    os.truncate(path, path.stat().st_size // 8)
    with pytest.raises(WeightsError, match="became shorter"):
        build(lambda: torch.nn.Linear(3, 3), unet, dtype=torch.float32, device="cpu")


def test_a_parameter_that_nothing_fills_is_named_at_load_not_at_the_first_picture() -> None:
    nothing = Component(title="nothing", slots=[], weights={})
    with pytest.raises(WeightsError, match=r"no weights for 'weight' and 1 more"):
        build(lambda: torch.nn.Linear(3, 3), nothing, dtype=torch.float32, device="cpu")


def test_a_configuration_that_the_library_refuses_is_an_unusable_model(tmp_path: Path) -> None:
    import json

    from checkpoints import configs

    files = configs(TINY_SD1)
    files["unet/config.json"]["norm_num_groups"] = 7
    path = write_checkpoint(
        tmp_path / "a.safetensors",
        TINY_SD1,
        embed=False,
        metadata={"imagine.config": json.dumps(files)},
    )
    with pytest.raises(UnusableModel, match=r"'a' cannot be used: .*cannot be built"):
        load(path)


def test_the_hash_is_the_beginning_of_the_files_sha256(tmp_path: Path) -> None:
    import hashlib

    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    model = load(path)
    assert model._hash.wait(10) == hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    assert model.model_hash == model._hash.value


def test_a_closed_model_has_let_go_of_everything(tmp_path: Path) -> None:
    import gc
    import weakref

    model = load(write_checkpoint(tmp_path / "tiny.safetensors", TINY_SDXL))
    weights = [weakref.ref(value) for value in parameters(model).values()]
    model.close()
    model.close()
    gc.collect()
    assert not any(ref() is not None for ref in weights)
