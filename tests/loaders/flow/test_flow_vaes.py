"""VAEs of flow models: their configurations, and latents that are shifted as well as scaled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import write_hollow
from flow_keys import expanded, sd3
from imagine_plugins.loaders.autoencoder import Autoencoder
from imagine_plugins.loaders.flow.recognition import FAMILIES, flow_in_file
from imagine_plugins.loaders.flow.vaes import VAES
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.network import Network
from imagine_plugins.loaders.vae import VaeLoader
from reference import CPU
from vaes import vae_shapes

TINY = {
    "block_out_channels": (16, 16),
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}


def tiny(name: str) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    config = {key: value for key, value in VAES[name].config.items() if not key.startswith("_")}
    return AutoencoderKL(**{**config, **TINY}).eval()


def test_each_family_names_a_vae_that_fits_it() -> None:
    for family in FAMILIES:
        assert family.name in VAES[family.vae].fits


@pytest.mark.parametrize("name", VAES)
def test_configurations_build_diffusers_class(name: str) -> None:
    import diffusers

    config = dict(VAES[name].config)
    kind = getattr(diffusers, config.pop("_class_name"))
    with torch.device("meta"):
        network = kind(**config)
    for key, value in config.items():
        assert network.config[key] == value
    parameters = sum(value.numel() for value in network.parameters())
    millions = {"flux": 83.8, "sd3": 83.8, "flux2": 84.0, "qwen-image": 126.9}[name]
    assert parameters / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_latents_are_shifted_and_scaled_as_diffusers_pipelines_do(name: str) -> None:
    vae = tiny(name)
    ours = Autoencoder(Network(model=vae))
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    with torch.no_grad():
        drawn = vae.encode(picture).latent_dist.sample(torch.Generator().manual_seed(2))
        latent = ours.encode_pixels(picture, torch.Generator().manual_seed(2))
        assert torch.allclose(latent, (drawn - shift) * scale, atol=1e-5)
        decoded = vae.decode(latent / scale + shift).sample
    pixels = torch.frombuffer(bytearray(ours.decode(latent).tobytes()), dtype=torch.uint8)
    wanted = ((decoded[0] / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0)
    assert (pixels.view(wanted.shape).float() - wanted).abs().max() <= 0.51


def test_the_latent_of_grey_is_shifted_too() -> None:
    vae = tiny("flux")
    with torch.no_grad():
        mean = vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean
    assert torch.allclose(Autoencoder(Network(model=vae)).grey(8, 8), (mean - 0.1159) * 0.3611)


def test_a_vae_of_a_flow_model_loads_from_its_folder(tmp_path: Path) -> None:
    vae = tiny("sd3")
    vae.save_pretrained(tmp_path / "soft")
    info = VaeLoader().recognise(tmp_path / "soft")
    assert info is not None
    assert (info.problem, info.fits) == (None, ("sd3",))
    loaded: Any = VaeLoader().load(info, device=CPU, full_precision=True)
    for name, value in vae.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    assert loaded.network.config.shift_factor == 0.0609


def test_a_vae_that_cannot_be_used_yet_is_not_loaded(tmp_path: Path) -> None:
    from imagine_core.errors import UnusableModel

    config = {"_class_name": "AutoencoderKLFlux2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {"decoder.conv_in.weight": (512, 32, 3, 3)}
    write_hollow(tmp_path / "diffusion_pytorch_model.safetensors", tensors)
    info = VaeLoader().recognise(tmp_path)
    assert info is not None
    with pytest.raises(UnusableModel, match=r"the VAE of FLUX\.2"):
        VaeLoader().load(info, device=CPU, full_precision=True)


@pytest.mark.parametrize("root", ["first_stage_model.", "vae."])
def test_an_all_in_one_file_gives_its_own_vae(tmp_path: Path, root: str) -> None:
    vae = {
        key: (shape[0], 16, *shape[2:]) if key.endswith("decoder.conv_in.weight") else shape
        for key, shape in vae_shapes(root=root).items()
        if "quant_conv" not in key
    }
    vae[f"{root}encoder.conv_out.weight"] = (32, 512, 3, 3)
    vae[f"{root}encoder.conv_out.bias"] = (32,)
    tensors = {**expanded(sd3(2, 8), prefix="model.diffusion_model."), **vae}
    path = write_hollow(tmp_path / "mine.safetensors", tensors)
    found = flow_in_file(path, read_header(path))
    assert found is not None
    own = found.own_vae()
    assert own.fits == ("sd3",)
    assert own.config["scaling_factor"] == 1.5305
    assert own.component.problem is None
    assert len(own.component.read) == len(vae)
