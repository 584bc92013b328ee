"""Pictures by VAEs of their own files, against diffusers' over the same weights, in float32."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import (
    SD1,
    TINY_SD1,
    TINY_SDXL,
    Layout,
    inpainting,
    shapes,
    write_checkpoint,
    write_hollow,
)
from imagine_core.engine import build_engine
from imagine_core.engine.bringing import bring
from imagine_core.errors import RequestError, UnusableModel
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.hashing import file_hash
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.types import GenerationResult, ResolvedRequest
from imagine_plugins.loaders.vae import VaeLoader
from reference import CPU, Half, load, picture, single_file_pipeline
from vaes import authors_names, diffusers_shapes, tiny_autoencoder, vae_shapes, write_vae

DEEP = (8, 8, 16, 16)  # widths of a VAE with 8 pixels a cell, as TAESD has
LAYOUTS = {"sd1": replace(TINY_SD1, vae=DEEP), "sdxl": replace(TINY_SDXL, vae=DEEP)}


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of ours, diffusers' pipeline over its weights, and the scale of its latents."""
    layout: Layout = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    path = write_checkpoint(folder / "tiny.safetensors", layout)
    return SimpleNamespace(
        folder=folder,
        ours=load(path),
        theirs=single_file_pipeline(path, layout, folder / "configs"),
        scale={"sd1": 0.18215, "sdxl": 0.13025}[request.param],
    )


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_autoencoder()


def load_vae(path: Path, **options: Any) -> Any:
    loader = VaeLoader()
    info = loader.recognise(path)
    assert info is not None
    assert info.problem is None, info.problem
    return loader.load(info, **{"device": CPU, "full_precision": False, **options})


def save(path: Path, tensors: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    save_file({name: value.clone() for name, value in tensors.items()}, path)
    return path


def codec_of(pipeline: Any, vae: Any) -> Any:
    """The same pipeline with another VAE."""
    changed = type(pipeline)(**{**pipeline.components, "vae": vae})
    changed.set_progress_bar_config(disable=True)
    return changed


def preprocessed(image: Image.Image) -> torch.Tensor:
    from diffusers.image_processor import VaeImageProcessor

    pixels: torch.Tensor = VaeImageProcessor(vae_scale_factor=8).preprocess(image)
    return pixels


def pictures_of(pipeline: Any) -> tuple[torch.Tensor, Image.Image]:
    """A latent that a pipeline ends with, and the picture that it makes of it."""
    made = [
        pipeline(
            "a cat",
            num_inference_steps=2,
            width=128,
            height=64,
            output_type=kind,
            generator=torch.Generator().manual_seed(5),
        ).images[0]
        for kind in ("latent", "pil")
    ]
    return made[0][None].detach(), made[1]


def assert_same_picture(one: Image.Image, other: Image.Image) -> None:
    assert (one.mode, one.size) == (other.mode, other.size) == ("RGB", one.size)
    assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
    assert np.asarray(one).std() > 1


# ---------------------------------------------------------------------------- VAEs of full size


@pytest.mark.parametrize("written", ["original", "diffusers", "folder"])
def test_a_vae_draws_in_the_scale_of_the_model_whatever_its_own(pair: Any, written: str) -> None:
    # The file's configuration says SD1's scale, the model may be an SDXL.
    path = write_vae(pair.folder / f"{written}.safetensors", LAYOUTS["sd1"])
    theirs = reference_vae(pair, path)
    if written != "original":
        folder = pair.folder / written
        theirs.save_pretrained(folder)
        if written == "diffusers":
            held = json.dumps({"vae/config.json": json.loads((folder / "config.json").read_text())})
            from safetensors.torch import save_file

            save_file(theirs.state_dict(), path, metadata={"imagine.config": held})
        else:
            path = folder
    codec = pair.ours.codec(load_vae(path))
    assert (codec.latent_channels, codec.downsampling) == (4, 8)

    theirs.register_to_config(scaling_factor=pair.scale)
    latent, expected = pictures_of(codec_of(pair.theirs, theirs))
    assert_same_picture(codec.decode(latent), expected)
    other = np.asarray(pair.ours.decode(latent), int) - np.asarray(expected, int)
    assert np.abs(other).max() > 20

    image = picture(64, 32)
    with torch.no_grad():
        posterior = theirs.encode(preprocessed(image)).latent_dist
    drawn = posterior.sample(torch.Generator().manual_seed(3)) * pair.scale
    ours = codec.encode_image(image, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, drawn, atol=1e-4, rtol=1e-4)


def reference_vae(pair: Any, path: Path) -> Any:
    """diffusers' network of the VAE at `path`."""
    import diffusers

    theirs = diffusers.AutoencoderKL.from_single_file(
        path, config=str(pair.folder / "configs" / "vae"), local_files_only=True
    )
    theirs.register_to_config(force_upcast=False, scaling_factor=0.18215)
    return theirs.eval()


def test_the_statistics_of_latents_are_the_models(pair: Any) -> None:
    vae = load_vae(write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"]))
    own, config = pair.ours.autoencoder, pair.ours.autoencoder.model.config
    mean, deviation = [0.5, -1.0, 0.0, 2.0], [2.0, 1.0, 0.5, 1.0]
    changed = {"scaling_factor": 0.5, "latents_mean": mean, "latents_std": deviation}
    image, plain = picture(32, 32), pair.ours.codec(vae)
    scaled = type(own)(own.network, {**config, **changed}).replaced(vae)
    latents = [
        each.encode_image(image, torch.Generator().manual_seed(0)) for each in (plain, scaled)
    ]
    columns = torch.tensor([mean, deviation]).view(2, 1, 4, 1, 1)
    expected = (latents[0] / pair.scale - columns[0]) * 0.5 / columns[1]
    torch.testing.assert_close(latents[1], expected, atol=1e-5, rtol=1e-5)
    assert_same_picture(plain.decode(latents[0]), scaled.decode(latents[1]))


def test_a_preview_is_fitted_on_the_vae_that_draws(pair: Any) -> None:
    codec = pair.ours.codec(load_vae(write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"])))
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert codec.preview(latent).tobytes() != pair.ours.preview(latent).tobytes()
    assert codec.preview(latent).size == (8, 8)


def test_the_models_own_vae_stays_as_it_is_bit_by_bit(pair: Any, tiny: Any) -> None:
    weights = {k: v.clone() for k, v in pair.ours.autoencoder.model.state_dict().items()}
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def drawn() -> tuple[bytes, bytes, torch.Tensor]:
        return (
            pair.ours.decode(latent).tobytes(),
            pair.ours.preview(latent).tobytes(),
            pair.ours.encode_image(picture(32, 32), torch.Generator().manual_seed(0)),
        )

    before = drawn()
    for path in (
        write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"]),
        save(pair.folder / "t.safetensors", tiny.state_dict()),
    ):
        vae = load_vae(path)
        codec = pair.ours.codec(vae)
        codec.decode(latent)
        codec.preview(latent)
        codec.encode_image(picture(32, 32), torch.Generator().manual_seed(0))
        vae.close()
    after = drawn()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    now = pair.ours.autoencoder.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())


def test_a_vae_is_fitted_to_a_model_once_and_not_kept_by_it(pair: Any) -> None:
    vae = load_vae(write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"]))
    assert pair.ours.codec(vae) is pair.ours.codec(vae)
    network = weakref.ref(vae.network)
    vae.close()
    del vae
    gc.collect()
    assert network() is None


def test_one_vae_serves_models_of_different_scales(tmp_path: Path) -> None:
    vae = load_vae(write_vae(tmp_path / "v.safetensors", LAYOUTS["sd1"]))
    latents = []
    for name, layout in LAYOUTS.items():
        model = load(write_checkpoint(tmp_path / f"{name}.safetensors", layout))
        codec = model.codec(vae)
        latents.append(codec.encode_image(picture(32, 32), torch.Generator().manual_seed(0)))
    torch.testing.assert_close(latents[0] / 0.18215, latents[1] / 0.13025)


def test_a_vae_of_other_latents_is_refused(pair: Any) -> None:
    vae = load_vae(write_vae(pair.folder / "v.safetensors", TINY_SD1))
    says = "vae: is for latents of 4 channels, 4 pixels a cell; those of this model have 4 .* 8"
    with pytest.raises(RequestError, match=says):
        pair.ours.codec(vae)


def test_a_strangers_vae_is_refused(pair: Any) -> None:
    stranger: Any = SimpleNamespace(hash=None, close=lambda: None)
    with pytest.raises(RequestError, match="vae: is of a format that this model cannot use"):
        pair.ours.codec(stranger)


def test_an_inpainting_model_reads_the_grey_of_its_own_vae(tmp_path: Path) -> None:
    layout = inpainting(LAYOUTS["sd1"])
    model = load(write_checkpoint(tmp_path / "m.safetensors", layout))

    def read() -> torch.Tensor:
        model._inpainting._whole.clear()
        row = model.encode_prompt("a cat", clip_skip=1, width=64, height=64)
        grey: torch.Tensor = row.extras["inpaint"]
        return grey

    before = read()
    other = load_vae(write_vae(tmp_path / "v.safetensors", LAYOUTS["sd1"]))
    model.codec(other).decode(torch.randn(1, 4, 8, 8))
    assert torch.equal(read(), before)


@pytest.mark.parametrize("full_precision", [False, True])
def test_a_vae_computes_in_the_dtype_of_the_device(pair: Any, *, full_precision: bool) -> None:
    path = write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"])
    vae = load_vae(path, device=Half(torch.bfloat16), full_precision=full_precision)
    assert vae.network.dtype == (torch.float32 if full_precision else torch.bfloat16)


def test_a_vae_that_overflows_goes_on_in_float32(pair: Any) -> None:
    vae = load_vae(
        write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"]), device=Half(torch.float16)
    )
    with torch.no_grad():
        vae.network.decoder.mid_block.resnets[0].conv2.weight.mul_(1e5).clamp_(-6e4, 6e4)
    drawn = pair.ours.codec(vae).decode(torch.randn(1, 4, 8, 8))
    assert vae.network.dtype == torch.float32
    assert np.asarray(drawn).std() > 1


def test_its_hash_is_that_of_its_file(pair: Any) -> None:
    path = write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"])
    digits = file_hash(path)
    assert digits is not None
    vae = load_vae(path)
    vae._hash.wait()
    assert vae.hash == digits
    vae.close()


def test_a_file_that_is_no_vae_any_more_is_told(tmp_path: Path) -> None:
    path = write_vae(tmp_path / "v.safetensors", LAYOUTS["sd1"])
    loader = VaeLoader()
    info = loader.recognise(path)
    assert info is not None
    write_hollow(path, {"mystery": (4, 4)})
    with pytest.raises(UnusableModel, match="'v' cannot be used: it is no VAE any more"):
        loader.load(info, device=CPU, full_precision=False)


def test_progress_ends_at_one(pair: Any) -> None:
    seen: list[float] = []
    path = write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"])
    load_vae(path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


# -------------------------------------------------------------------------------------- TAESD


@pytest.mark.parametrize("written", ["diffusers", "author", "folder"])
def test_a_taesd_draws_as_diffusers_pipeline_with_it(pair: Any, tiny: Any, written: str) -> None:
    state = tiny.state_dict()
    path = pair.folder / f"tiny-{written}.safetensors"
    if written == "folder":
        path = pair.folder / "tiny-folder"
        tiny.save_pretrained(path)
    elif written == "author":
        save(path, authors_names(state, encoder=None))
    else:
        save(path, state)
    codec = pair.ours.codec(load_vae(path))
    latent, expected = pictures_of(codec_of(pair.theirs, tiny))
    assert_same_picture(codec.decode(latent), expected)

    image = picture(64, 32)
    ours = codec.encode_image(image, torch.Generator().manual_seed(3))
    if written == "author":  # which has no encoder
        full = pair.ours.encode_image(image, torch.Generator().manual_seed(3))
        assert torch.equal(ours, full)
    else:
        with torch.no_grad():
            theirs = tiny.encode(preprocessed(image)).latents * tiny.config.scaling_factor
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert codec.preview(latent).tobytes() == pair.ours.preview(latent).tobytes()


def test_a_full_vae_serves_a_model_whose_own_is_a_taesd(pair: Any, tiny: Any) -> None:
    from imagine_plugins.loaders.autoencoder import Autoencoder
    from imagine_plugins.loaders.network import Network

    vae = load_vae(write_vae(pair.folder / "v.safetensors", LAYOUTS["sd1"]))
    codec = Autoencoder(Network(model=tiny)).replaced(vae)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert_same_picture(
        codec.decode(latent), Autoencoder(Network(model=vae.network)).decode(latent)
    )


# --------------------------------------------------------------------------- in the models folder


def catalogue(models: Path) -> Catalogue:
    (models / "vae").mkdir(parents=True, exist_ok=True)
    return Catalogue(models, loaders=build_plugins().loaders)


def test_vaes_are_listed_in_their_folder_and_are_no_models(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "vae" / "mine.safetensors", vae_shapes())
    (tmp_path / "vae" / "old.pt").write_bytes(b"PK\3\4")
    (tmp_path / "vae" / "older.vae.ckpt").write_bytes(b"PK\3\4")
    write_hollow(tmp_path / "vae" / "odd.safetensors", diffusers_shapes(latent_channels=12))
    listed = {info.name: info.problem or "" for info in models.models("vae")}
    assert list(listed) == ["mine", "odd", "old.pt", "older.vae.ckpt"]
    assert "12 channels" in listed["odd"]
    assert listed["mine"] == ""
    assert "this is a pickle" in listed["old.pt"]
    assert "this is a pickle" in listed["older.vae.ckpt"]
    assert models.models() == []
    with pytest.raises(UnusableModel, match=r"'mine' cannot be used: this is a VAE, .* sd1, sd2"):
        models.get("mine")


def test_a_vae_among_the_models_says_where_it_belongs(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "a.safetensors", vae_shapes())
    write_hollow(tmp_path / "b.safetensors", diffusers_shapes("AutoencoderTiny"))
    write_hollow(tmp_path / "c.safetensors", diffusers_shapes(latent_channels=12))
    problems = [info.problem or "" for info in models.models()]
    assert [info.family for info in models.models()] == ["vae"] * 3
    assert "a VAE, " in problems[0]
    assert "TAESD" in problems[1]
    assert all("it belongs in the folder vae/" in each for each in problems[:2])
    assert "12 channels" in problems[2]


def test_a_vae_whose_files_lie_in_the_folder_itself_is_no_model_that_lies_wrong(
    tmp_path: Path,
) -> None:
    models = catalogue(tmp_path)
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    write_hollow(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", diffusers_shapes())
    assert models.models() == []
    assert [info.name for info in models.usable("vae")] == ["diffusion_pytorch_model"]


def test_models_take_vaes_and_their_sidecars_name_one(tmp_path: Path) -> None:
    from checkpoints import write_folder

    models = catalogue(tmp_path)
    write_checkpoint(tmp_path / "file.safetensors", TINY_SD1)
    write_folder(tmp_path / "folder", TINY_SD1)
    assert [("vae" in i.takes, i.vae) for i in models.models()] == [(True, None)] * 2
    for name in ("file", "folder"):
        (tmp_path / f"{name}.json").write_text('{"vae": " mine "}')
    assert [i.vae for i in models.models()] == ["mine"] * 2
    (tmp_path / "file.json").write_text('{"vae": 3}')
    problem = models.find("file").problem
    assert problem == 'file.json: vae must be a name, as "imagine list" has it'


def test_an_inpainting_model_takes_what_fits_its_family(tmp_path: Path) -> None:
    models = catalogue(tmp_path)
    write_hollow(tmp_path / "paint.safetensors", shapes(inpainting(SD1)))
    write_hollow(tmp_path / "vae" / "taesd.safetensors", diffusers_shapes("AutoencoderTiny"))
    write_hollow(tmp_path / "vae" / "sdxl.safetensors", vae_shapes())
    model = models.get("paint")
    assert model.family == "sd1-inpaint"
    request = ResolvedRequest(prompt="a cat", decoder="fast", vae="taesd")
    brought = bring(request, model, models)
    assert [info and info.name for info in (brought.vae, brought.decoder)] == ["taesd", "taesd"]
    with pytest.raises(RequestError, match="vae: 'sdxl' is for sdxl, and the model 'paint' is sd1"):
        bring(replace(request, vae="sdxl"), model, models)


def test_requests_draw_with_the_vae_that_they_or_a_sidecar_name(tmp_path: Path, tiny: Any) -> None:
    catalogue(tmp_path)
    write_checkpoint(tmp_path / "tiny.safetensors", LAYOUTS["sd1"])
    write_vae(tmp_path / "vae" / "soft.safetensors", LAYOUTS["sd1"])
    save(tmp_path / "vae" / "taesd.safetensors", tiny.state_dict())
    settings = Settings(models=tmp_path, default_model="tiny", device="cpu")
    engine = build_engine(settings, build_plugins())

    def drawn(**fields: Any) -> bytes:
        return asyncio.run(generated(**fields))

    async def generated(**fields: Any) -> bytes:
        request = ResolvedRequest(prompt="a cat", width=64, height=64, steps=2, seed=1, **fields)
        *_, result = [event async for event in engine.generate(request)]
        assert isinstance(result, GenerationResult)
        return result.images[0].image.tobytes()

    try:
        own, soft, fast = drawn(), drawn(vae="soft"), drawn(decoder="fast")
        assert len({own, soft, fast}) == 3
        assert drawn(vae="taesd") == drawn(vae="soft", decoder="fast") == fast
        assert drawn() == own
        (tmp_path / "tiny.json").write_text('{"vae": "soft"}')
        assert drawn() == soft
        assert drawn(vae="none") == own
    finally:
        engine.close(grace=0)
