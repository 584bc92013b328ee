"""diffusers folders load offline, in any size, and name missing files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, configs, inpainting, write_folder
from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.folder import FolderLoader
from reference import CPU, clip_tokenizer, load, picture

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SD1 folder, not to be changed."""
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", TINY_SD1)


def recognise(path: Path) -> ModelInfo:
    info = FolderLoader().recognise(path)
    assert info is not None
    return info


def write(path: Path, name: str, content: object) -> None:
    (path / name).write_text(json.dumps(content), "utf-8")


def change(path: Path, name: str, **values: object) -> None:
    write(path, name, {**json.loads((path / name).read_text("utf-8")), **values})


def predict(model: Any) -> torch.Tensor:
    latents = torch.randn(
        1, model.latent_channels, 16, 16, generator=torch.Generator().manual_seed(0)
    )
    row = model.encode_prompt("a cat", clip_skip=1, width=64, height=64)
    prediction: torch.Tensor = model.predict(latents, torch.tensor([500.0]), row)
    return prediction


@pytest.mark.parametrize(
    "kind", ["DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "SASolver", "LCM"]
)
def test_a_folder_saved_with_any_scheduler_has_the_noise_that_its_network_was_trained_on(
    tmp_path: Path, tiny: Path, kind: str
) -> None:
    """diffusers writes `-Infinity`, which JSON does not have, for lambda_min_clipped."""
    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    config = json.loads((tiny / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(config)
    scheduler.save_config(folder / "scheduler")
    assert recognise(folder).problem is None
    assert torch.equal(load(folder).noise.sigmas, load(tiny).noise.sigmas)


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        (TINY_SD1, "sd"),
        (TINY_SD2, "sd"),
        (TINY_SDXL, "sdxl"),
        (inpainting(TINY_SD1), "sd-inpaint"),
    ],
    ids=["sd1", "sd2", "sdxl", "inpaint"],
)
def test_a_folder_is_recognised_and_draws_as_diffusers_components_do(
    tmp_path: Path, layout: Layout, family: str
) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = write_folder(tmp_path / "my model", layout)
    info = recognise(folder)
    assert (info.name, info.family, info.problem) == ("my model", family, None)
    assert info.size == sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert info.recommended_size == (64, 64)
    model = load(folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    for ours, theirs in ((model.unet, unet), (model.autoencoder.model, vae)):
        expected = dict(theirs.named_parameters())
        found = dict(ours.named_parameters())
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert predict(model).isfinite().all()
    assert model.decode(torch.zeros(1, 4, 8, 8)).size == (32, 32)
    assert model.model_hash is None


def test_a_text_encoder_of_a_folder_equals_the_one_that_transformers_loads(tiny: Path) -> None:
    from transformers import CLIPTextModel

    theirs = CLIPTextModel.from_pretrained(tiny / "text_encoder", local_files_only=True)
    ids = clip_tokenizer()(
        "a cat", padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    row = load(tiny).encode_prompt("a cat", clip_skip=1, width=64, height=64)
    with torch.no_grad():
        assert torch.equal(row.context, theirs(ids).last_hidden_state)


@pytest.mark.parametrize(("dtype", "variant"), [("F16", "fp16"), ("BF16", "bf16")])
def test_half_precision_variants_are_found(tmp_path: Path, dtype: str, variant: str) -> None:
    folder = write_folder(tmp_path / "m", TINY_SD1, dtype=dtype, variant=variant)
    assert (folder / "unet" / f"diffusion_pytorch_model.{variant}.safetensors").is_file()
    assert predict(load(folder)).isfinite().all()


def test_shards_are_put_together(tmp_path: Path, tiny: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = tmp_path / "sharded"
    shutil.copytree(tiny, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet = UNet2DConditionModel.from_pretrained(tiny / "unet", local_files_only=True)
    unet.save_pretrained(folder / "unet", max_shard_size="200KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert torch.equal(predict(load(folder)), predict(load(tiny)))
    next((folder / "unet").glob("*-00001-*")).unlink()
    assert "missing" in (recognise(folder).problem or "")


def test_configurations_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", TINY_SD1)
    for file in [*folder.rglob("*.json"), *folder.rglob("*.txt")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert recognise(folder).problem is None
    assert predict(load(folder)).isfinite().all()


def test_the_shards_of_a_variant_are_found_in_both_spellings(tmp_path: Path, tiny: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = tmp_path / "sharded"
    shutil.copytree(tiny, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet = UNet2DConditionModel.from_pretrained(tiny / "unet", local_files_only=True)
    unet.save_pretrained(folder / "unet", max_shard_size="200KB", variant="fp16")
    shards = sorted((folder / "unet").glob("*.fp16-*-of-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(predict(load(folder)), predict(load(tiny)))
    for shard in shards:
        stem, _, number = shard.stem.partition(".fp16")
        shard.rename(shard.with_name(f"{stem}{number}.fp16.safetensors"))
    assert torch.equal(predict(load(folder)), predict(load(tiny)))
    (folder / "unet" / "diffusion_pytorch_model-00001-of-00001.safetensors").write_bytes(
        (tiny / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    assert recognise(folder).problem is None  # plain shards beside them are not mixed with them


def test_names_of_old_autoencoders_and_text_encoders_are_understood(
    tmp_path: Path, tiny: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "old"
    shutil.copytree(tiny, folder)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    old = {}
    for key, value in vae.items():
        for new, name in names.items():
            key = key.replace(f".{new}.", f".{name}.")  # noqa: PLW2901 - one renaming after another
        old[key] = value.clone()
    assert set(old) != set(vae)
    save_file(old, folder / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    wrapped = {
        f"text_model.{key.removeprefix('text_model.')}": v.clone() for key, v in text.items()
    }
    wrapped["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(wrapped, folder / "text_encoder/model.safetensors")
    one, two = load(folder), load(tiny)
    image = picture(32, 32)
    latents = [m.encode_image(image, torch.Generator().manual_seed(1)) for m in (one, two)]
    assert torch.equal(*latents)
    assert torch.equal(predict(one), predict(two))


def test_a_small_autoencoder_without_a_posterior_is_supported(tmp_path: Path, tiny: Path) -> None:
    from diffusers import AutoencoderTiny

    folder = tmp_path / "taesd"
    shutil.copytree(tiny, folder)
    shutil.rmtree(folder / "vae")
    widths = {"encoder_block_out_channels": (8,) * 5, "decoder_block_out_channels": (8,) * 5}
    blocks = {"num_encoder_blocks": (1,) * 5, "num_decoder_blocks": (1,) * 5}
    vae = AutoencoderTiny(**widths, **blocks, latent_channels=4)
    vae.save_pretrained(folder / "vae")
    change(folder, "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    model = load(folder)
    assert (model.latent_channels, model.downsampling) == (4, 16)
    image = picture(64, 32)
    latent = model.encode_image(image, torch.Generator())
    pixels = (
        torch.tensor(list(image.tobytes())).reshape(32, 64, 3).permute(2, 0, 1)[None] / 127.5 - 1
    )
    with torch.no_grad():
        torch.testing.assert_close(latent, vae.encode(pixels).latents, atol=1e-5, rtol=1e-4)
    assert model.decode(latent).size == (64, 32)
    assert model.preview(latent).size == (4, 2)
    file = next((folder / "vae").glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    held = {key: value.clone() for key, value in load_file(file).items()}
    held.pop("decoder.layers.0.weight")
    save_file(held, file)
    assert "'decoder.layers.0.weight' missing" in (recognise(folder).problem or "")


def test_statistics_of_latents_in_the_configuration_are_applied(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "stats"
    shutil.copytree(tiny, folder)
    mean, deviation = [0.5, -1.0, 0.0, 2.0], [2.0, 1.0, 0.5, 1.0]
    change(folder, "vae/config.json", latents_mean=mean, latents_std=deviation)
    plain, scaled = load(tiny), load(folder)
    latents = [
        m.encode_image(picture(32, 32), torch.Generator().manual_seed(0)) for m in (plain, scaled)
    ]
    columns = torch.tensor([mean, deviation]).view(2, 1, 4, 1, 1)
    own = latents[0] / 0.18215
    torch.testing.assert_close(latents[1], (own - columns[0]) * 0.18215 / columns[1])
    one, two = plain.decode(latents[0]), scaled.decode(latents[1])
    assert max(abs(a - b) for a, b in zip(one.tobytes(), two.tobytes(), strict=True)) <= 1


def test_a_folder_without_a_tokenizer_of_its_own_takes_clips(tiny: Path) -> None:
    assert not (tiny / "tokenizer").exists()
    assert load(tiny).text.tokenizer("cat").input_ids == [49406, 2368, 49407]


def test_other_folders_and_hidden_ones_are_not_its_business(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/model_index.json").write_text("{}", "utf-8")
    (tmp_path / "model_index.json").write_text("{}", "utf-8")
    for name in ("loras", ".cache", "model_index.json", "gone"):
        assert FolderLoader().recognise(tmp_path / name) is None


def remove(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def fill(name: str, text: str) -> Edit:
    return lambda folder: (folder / name).write_text(text, "utf-8")


def pickles(folder: Path) -> None:
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def cut(folder: Path) -> None:
    os.truncate(folder / "unet/diffusion_pytorch_model.safetensors", 100_000)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (fill("model_index.json", "{"), "model_index.json is damaged"),
        (fill("model_index.json", "[]"), "no JSON object"),
        (fill("model_index.json", "{}"), "does not say of what pipeline it is"),
        (
            fill("model_index.json", '{"_class_name": "KolorsPipeline"}'),
            "KolorsPipeline, which is not",
        ),
        (lambda f: change(f, "model_index.json", vae=[None, None]), "names no vae"),
        (lambda f: change(f, "model_index.json", vae=["diffusers", "VQModel"]), "is a VQModel"),
        (remove("unet/config.json"), "unet/config.json is missing"),
        (remove("vae/diffusion_pytorch_model.safetensors"), "vae has no weights"),
        (pickles, "unet has its weights in a pickle"),
        (cut, "unet/diffusion_pytorch_model.safetensors: the download is incomplete"),
        (lambda f: change(f, "unet/config.json", cross_attention_dim=48), "texts 48 wide"),
        (lambda f: change(f, "unet/config.json", layers_per_block=2), "architecture wants"),
        (lambda f: change(f, "unet/config.json", in_channels=8), "reads 8 channels"),
        (lambda f: change(f, "unet/config.json", down_block_types=3), "not understood"),
        (lambda f: change(f, "text_encoder/config.json", max_position_embeddings=2), "no room"),
        (
            lambda f: change(f, "scheduler/scheduler_config.json", _class_name="FlowMatchEuler"),
            "trained for FlowMatchEuler",
        ),
        (
            lambda f: change(f, "scheduler/scheduler_config.json", beta_start="low"),
            "beta_start is no number",
        ),
        (
            lambda f: change(f, "scheduler/scheduler_config.json", timestep_spacing="wide"),
            "timestep_spacing wide",
        ),
        (
            lambda f: change(f, "scheduler/scheduler_config.json", trained_betas=[0.1, 0.2]),
            "one beta a level",
        ),
        (lambda f: change(f, "unet/config.json", class_embed_type="timestep"), "class_embed_type"),
        (
            lambda f: change(f, "unet/config.json", addition_embed_type="image"),
            "nothing here makes",
        ),
        (lambda f: change(f, "vae/config.json", shift_factor=0.1), "shifts latents"),
        (lambda f: change(f, "vae/config.json", scaling_factor=0), "scaling_factor"),
        (
            lambda f: change(f, "scheduler/scheduler_config.json", prediction_type="flow"),
            "predicts flow",
        ),
    ],
)
def test_what_a_folder_lacks_is_told(tmp_path: Path, tiny: Path, edit: Edit, words: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    edit(folder)
    info = recognise(folder)
    assert words in (info.problem or "")
    with pytest.raises(UnusableModel, match="'m' cannot be used"):
        FolderLoader().load(info, device=CPU, full_precision=True)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda f: change(f, "model_index.json", text_encoder=[None, None]),
            "names no text_encoder",
        ),
        (
            lambda f: change(
                f,
                "model_index.json",
                _class_name="StableDiffusionXLImg2ImgPipeline",
                text_encoder=[None, None],
            ),
            "the SDXL refiner is not supported",
        ),
        (
            lambda f: change(f, "unet/config.json", projection_class_embeddings_input_dim=72),
            "as the refiner does",
        ),
        (lambda f: change(f, "unet/config.json", addition_embed_type=None), "do not belong"),
        (lambda f: change(f, "unet/config.json", addition_time_embed_dim=None), "whole number"),
        (lambda f: change(f, "text_encoder/config.json", hidden_size=32), "encoders make 64"),
    ],
)
def test_what_does_not_fit_together_in_sdxl_is_told(tmp_path: Path, edit: Edit, words: str) -> None:
    for name, content in configs(TINY_SDXL).items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "m", name, content)
    edit(tmp_path / "m")
    assert words in (recognise(tmp_path / "m").problem or "")


def test_a_missing_tensor_of_a_folder_is_named(tmp_path: Path, tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    held = {key: value.clone() for key, value in load_file(file).items()}
    held.pop("mid_block.resnets.0.conv1.weight")
    save_file(held, file)
    assert recognise(folder).problem == (
        "unet: tensor 'mid_block.resnets.0.conv1.weight' missing: "
        "the file is damaged or was cut down"
    )


def test_a_unet_of_unusual_build_is_checked_as_it_is_loaded(tmp_path: Path, tiny: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = tmp_path / "m"
    shutil.copytree(tiny, folder)
    change(folder, "unet/config.json", resnet_time_scale_shift="scale_shift")
    assert recognise(folder).problem is None
    info = recognise(folder)
    with pytest.raises(UnusableModel, match="architecture wants"):
        FolderLoader().load(info, device=CPU, full_precision=True)
    config = json.loads((folder / "unet/config.json").read_text("utf-8"))
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    assert predict(load(folder)).isfinite().all()
