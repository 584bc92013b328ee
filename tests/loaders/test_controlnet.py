"""ControlNets of files and folders: recognised by their headers, loaded in every layout."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagine_core.interfaces import ModelInfo
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.control_layouts import FAMILIES, control_slots
from imagine_plugins.loaders.controlnet import ControlNetLoader, LoadedControl

LOADER = ControlNetLoader()
SMALL = {
    "in_channels": 4,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "conditioning_embedding_out_channels": [8, 8, 16],
}


def network(**options: Any) -> Any:
    from diffusers import ControlNetModel

    torch.manual_seed(0)
    net = ControlNetModel(**{**SMALL, **options})
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape) * 0.05
    return net.eval()


def folder_of(path: Path, net: Any) -> Path:
    net.save_pretrained(path)
    return path


def original(net: Any) -> dict[str, torch.Tensor]:
    """The tensors of a network in the original layout."""
    state, found = net.state_dict(), {}
    for slot in control_slots(net.config):
        parts = [state[target] for target in slot.targets]
        found[slot.key] = torch.cat(parts)
    return found


def info_of(path: Path) -> ModelInfo:
    info = LOADER.recognise(path)
    assert info is not None
    return info


def loaded(path: Path) -> LoadedControl:
    info = info_of(path)
    assert info.problem is None, info.problem
    return LOADER.load(info, device=FakeDevice(), full_precision=True)


def outputs(net: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        down, middle = net(
            draw(1, 4, 8, 8),
            torch.tensor([500]),
            encoder_hidden_states=draw(1, 5, net.config.cross_attention_dim),
            controlnet_cond=draw(1, 3, 32, 32),
            return_dict=False,
        )
    return [*down, middle]


def same(one: Any, other: Any) -> bool:
    pairs = zip(outputs(one), outputs(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_diffusers_folder_of_any_sizes_is_loaded(tmp_path: Path) -> None:
    net = network()
    path = folder_of(tmp_path / "edges", net)
    info = info_of(path)
    assert (info.name, info.kind, info.family, info.fits) == ("edges", "controlnet", "sd", ("sd",))
    assert info.parameters == sum(weight.numel() for weight in net.parameters())
    assert same(loaded(path).network, net)


@pytest.mark.parametrize("family", [plan.family for plan in FAMILIES])
@pytest.mark.parametrize("layout", ["original", "prefixed", "diffusers"])
def test_every_tensor_of_the_full_sizes_finds_its_place(
    tmp_path: Path, family: str, layout: str
) -> None:
    import diffusers

    plan = next(plan for plan in FAMILIES if plan.family == family)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(dict(plan.unet))
        net = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    slots = list(control_slots({**plan.unet, "in_channels": 4}))
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    assert {target for slot in slots for target in slot.targets} == set(shapes)
    if layout != "diffusers":
        shapes = {slot.key: slot.shape for slot in slots}
    prefix = "control_model." if layout == "prefixed" else ""
    path = tmp_path / "full.safetensors"
    sparse_file(path, {f"{prefix}{name}": shape for name, shape in shapes.items()})
    started = time.perf_counter()
    info = info_of(path)
    assert time.perf_counter() - started < 1
    assert (info.problem, info.family, info.fits) == (None, family, (family,))


def sparse_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file with these tensors in float16, of which nothing but the header is written."""
    import json
    from math import prod

    header, position = {}, 0
    for name, shape in shapes.items():
        size = 2 * prod(shape)
        header[name] = {
            "dtype": "F16",
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)


def test_the_original_layout_loads_into_the_same_network(tmp_path: Path) -> None:
    from imagine_plugins.loaders.components import Stored
    from imagine_plugins.loaders.control_layouts import control_of
    from imagine_plugins.loaders.header import read_header
    from imagine_plugins.loaders.weights import build

    net = network()
    path = tmp_path / "x.safetensors"
    save_file(original(net), path)
    weights = {name: Stored(path, t) for name, t in read_header(path).tensors.items()}
    found = control_of(weights, config=dict(net.config))
    made = build(lambda: type(net)(**SMALL), found.component, dtype=torch.float32, device="cpu")
    assert same(made, net)


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_of_torch_is_read_without_running_it(tmp_path: Path, nested: bool) -> None:  # noqa: FBT001
    from imagine_plugins.loaders.control_layouts import control_in_file, root_of
    from imagine_plugins.loaders.torch_file import read_torch_file

    path = tmp_path / "x.pth"
    tensors = {f"control_model.{name}": tensor for name, tensor in original(network()).items()}
    torch.save({"state_dict": tensors} if nested else tensors, path)
    header = read_torch_file(path)
    assert root_of(header.tensors) == "state_dict." * nested + "control_model."
    with pytest.raises(Exception, match="none of Stable Diffusion 1, 2 and XL"):
        control_in_file(path, header)
    assert "take its diffusers folder" in (info_of(path).problem or "")


def test_a_file_of_other_sizes_asks_for_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(network().state_dict(), path)
    problem = info_of(path).problem
    assert problem is not None
    assert "take its diffusers folder" in problem


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ("lora_controlnet", "a Control-LoRA"),
        ("task_embedding", "several kinds of hints at once"),
        ("lllite_unet_input_blocks_4_1.down.0.weight", "a ControlNet-LLLite"),
        ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter"),
        ("image_proj.proj.weight", "an IP-Adapter"),
    ],
)
def test_what_is_no_controlnet_of_these_is_named(tmp_path: Path, tensor: str, said: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({tensor: torch.zeros(2, 2), "input_hint_block.1.weight": torch.zeros(2)}, path)
    problem = info_of(path).problem
    assert problem is not None
    assert said in problem
    assert problem.endswith("it is not supported")
    among_models = CheckpointLoader().recognise(path)
    assert among_models is not None
    assert said in (among_models.problem or "")


def test_one_among_the_models_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(network().state_dict(), path)
    info = CheckpointLoader().recognise(path)
    assert info is not None
    assert info.problem is not None
    assert "this is a ControlNet" in info.problem
    assert "controlnet/ beside the checkpoints" in info.problem


def test_a_file_that_lacks_a_tensor_or_was_cut_off_is_told(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "edges", network())
    weights = path / "diffusion_pytorch_model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if k != "controlnet_mid_block.bias"}, weights)
    assert "'controlnet_mid_block.bias' missing" in (info_of(path).problem or "")
    save_file(whole, weights)
    assert info_of(path).problem is None
    weights.write_bytes(weights.read_bytes()[:-100])
    assert info_of(path).problem is not None


def test_other_classes_of_folders_are_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "edges", network())
    config = path / "config.json"
    config.write_text(config.read_text().replace("ControlNetModel", "ControlNetUnionModel"))
    assert "class ControlNetUnionModel" in (info_of(path).problem or "")
    assert LOADER.recognise(tmp_path) is None


def test_a_t2i_adapter_of_a_diffusers_folder_is_loaded(tmp_path: Path) -> None:
    from diffusers import T2IAdapter

    adapter = T2IAdapter(
        in_channels=1, channels=[32, 64], num_res_blocks=1, downscale_factor=4
    ).eval()
    path = folder_of(tmp_path / "lines", adapter)
    assert info_of(path).family == "sd"
    made = loaded(path)
    assert made.is_adapter
    hint = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(made.network(hint), adapter(hint), strict=True):
            assert torch.equal(ours, theirs)


def test_one_that_pools_its_output_acts_on_the_prompt_alone(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", network(global_pool_conditions=True))
    assert loaded(path).is_conditional
    assert not LoadedControl(network()).is_conditional


def test_the_hash_is_that_of_the_file_in_eight_digits(tmp_path: Path) -> None:
    import hashlib

    path = folder_of(tmp_path / "x", network())
    made = loaded(path)
    data = (path / "diffusion_pytorch_model.safetensors").read_bytes()
    deadline = time.monotonic() + 20
    while made.hash is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made.hash == hashlib.sha256(data).hexdigest()[:8]
    made.close()
    assert made.network is None


def test_mutated_headers_never_crash_it(tmp_path: Path) -> None:
    chance = random.Random(0)
    plan = FAMILIES[0]
    slots = list(control_slots({**plan.unet, "in_channels": 4}))
    path = tmp_path / "x.safetensors"
    for _ in range(150):
        shapes = {slot.key: slot.shape for slot in slots}
        for _ in range(chance.randint(1, 4)):
            name = chance.choice(list(shapes))
            match chance.randint(0, 3):
                case 0:
                    del shapes[name]
                case 1:
                    shapes[name] = tuple(chance.randint(0, 9) for _ in range(chance.randint(0, 5)))
                case 2:
                    shapes[name[: chance.randint(1, len(name))] + "x"] = shapes.pop(name)
                case 3:
                    shapes["control_model." + name] = shapes.pop(name)
        sparse_file(path, shapes)
        info = LOADER.recognise(path)
        assert info is None or info.kind == "controlnet"
