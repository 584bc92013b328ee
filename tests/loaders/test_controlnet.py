"""ControlNets of files and folders: recognised by their headers, loaded in every layout."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import random
import time
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.folders import FOLDERS, KINDS
from imagine_core.models.folders import folder_of as folder_of_kind
from imagine_core.plugins import build_plugins
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.control_layouts import ControlFile, control_in_file
from imagine_plugins.loaders.control_networks import LoadedControl
from imagine_plugins.loaders.control_slots import control_slots
from imagine_plugins.loaders.controlnet import ControlNetLoader, short_hash
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.layout import own_names
from imagine_plugins.loaders.torch_file import read_torch_file
from imagine_plugins.loaders.weights import build
from upscalers import compact

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
    for slot in control_slots(net.config) or []:
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
    made: LoadedControl = LOADER.load(info, device=FakeDevice(), full_precision=True)
    return made


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


def whole(control: LoadedControl) -> Any:
    """The network as diffusers has it, with the layers that read the hint."""
    net = copy.deepcopy(control.network)
    net.controlnet_cond_embedding = control._reader
    return net


def same(one: Any, other: Any) -> bool:
    pairs = zip(outputs(one), outputs(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_diffusers_folder_of_any_sizes_is_loaded(tmp_path: Path) -> None:
    net = network()
    path = folder_of(tmp_path / "edges", net)
    info = info_of(path)
    assert (info.name, info.kind, info.family, info.fits) == ("edges", "controlnet", "sd", ("sd",))
    assert info.parameters == sum(weight.numel() for weight in net.parameters())
    assert same(whole(loaded(path)), net)


@pytest.mark.parametrize("family", [plan.family for plan in (SD1, SD2, SDXL)])
@pytest.mark.parametrize("layout", ["original", "prefixed", "diffusers"])
def test_every_tensor_of_the_full_sizes_finds_its_place(
    tmp_path: Path, family: str, layout: str
) -> None:
    plan = next(plan for plan in (SD1, SD2, SDXL) if plan.family == family)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(dict(plan.unet))
        net = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    slots = control_slots(plan.unet) or []
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
    net, path = network(), tmp_path / "x.safetensors"
    save_file(original(net), path)
    found = control_in_file(path, read_header(path), config=dict(net.config))
    assert found is not None
    assert same(built(found), net)


def test_a_file_of_other_sizes_loads_by_the_configuration_that_it_holds(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "x.safetensors"
    files = {"controlnet/config.json": dict(net.config)}
    save_file(original(net), path, metadata={"imagine.config": json.dumps(files)})
    assert info_of(path).fits == ("sd",)
    assert same(whole(loaded(path)), net)


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_of_torch_is_read_without_running_it(tmp_path: Path, nested: bool) -> None:  # noqa: FBT001
    net, path = network(), tmp_path / "x.pth"
    tensors = {f"control_model.{name}": tensor for name, tensor in original(net).items()}
    torch.save({"state_dict": tensors} if nested else tensors, path)
    assert "take its diffusers folder" in (info_of(path).problem or "")
    found = control_in_file(path, read_torch_file(path), config=dict(net.config))
    assert found is not None
    assert same(built(found), net)


def built(found: ControlFile) -> Any:
    kind = getattr(diffusers, found.kind)
    return build(
        lambda: kind.from_config(dict(found.config)),
        found.component,
        dtype=torch.float32,
        device="cpu",
    )


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
        ("control_add_embedding.linear_1.weight", "several kinds of hints at once"),
        ("lllite_unet_input_blocks_4_1.down.0.weight", "a ControlNet-LLLite"),
        ("down_blocks.0.base_to_ctrl.0.weight", "a ControlNet-XS"),
        ("down_blocks.0.motion_modules.0.proj_in.weight", "a ControlNet for videos"),
        ("controlnet_blocks.0.weight", "a ControlNet for a transformer"),
        ("style_embedding", "a T2I-Adapter for styles"),
        ("difference", "the difference of a ControlNet"),
        ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter"),
        ("image_proj.proj.weight", "an IP-Adapter"),
    ],
)
def test_what_is_no_controlnet_of_these_is_named(tmp_path: Path, tensor: str, said: str) -> None:
    path = tmp_path / "x.safetensors"
    hint = {"controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 3, 3, 3)}
    save_file({tensor: torch.zeros(2, 2)} | hint, path)
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


@pytest.mark.parametrize("kind", [kind for kind in FOLDERS if kind in KINDS])
def test_one_in_any_other_folder_is_told_where_it_belongs(tmp_path: Path, kind: str) -> None:
    folder = folder_of_kind(tmp_path, kind)
    folder.mkdir(exist_ok=True)
    table = {slot.key: slot.shape for slot in control_slots(SD1.unet) or []}
    sparse_file(folder / "file.safetensors", table)
    adapter = adapter_of("full_adapter", channels=[16, 16, 32, 32])
    torch.save(authors_names(adapter.state_dict(), light=False), folder / "old.pth")
    folder_of(folder / "folder", network())
    found = {info.path.name: info for info in catalogue(tmp_path).models(kind)}
    assert set(found) == {"file.safetensors", "old.pth", "folder"}
    for info in found.values():
        if kind == "controlnet":
            assert info.problem is None
        else:
            assert "which steers what a model draws" in (info.problem or "")
            assert "it belongs in the folder controlnet/" in (info.problem or "")


def catalogue(folder: Path) -> Catalogue:
    return Catalogue(folder, loaders=build_plugins().loaders)


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


def test_the_hash_is_the_one_that_a1111_writes_behind_a_controlnets_name(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", network(block_out_channels=[64, 160]))
    made = loaded(path)
    data = (path / "diffusion_pytorch_model.safetensors").read_bytes()
    assert len(data) > 0x110000
    # modules/sd_models.py, model_hash: the old one, of which the extension's names are made
    assert made.hash == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert info_of(path).details["short_hash"] == made.hash
    made.close()
    assert made.network is None


def test_a_file_that_is_too_short_to_have_a_hash_has_none(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(bytes(2**20))
    assert short_hash(path) is None
    path.write_bytes(bytes(2**20 + 1))
    assert short_hash(path) == hashlib.sha256(b"\0").hexdigest()[:8]
    assert short_hash(tmp_path / "gone.pth") is None


@pytest.mark.parametrize("cut", ["small", "mid"])
def test_a_controlnet_with_fewer_transformers_is_built_as_its_tensors_say(
    tmp_path: Path, cut: str
) -> None:
    options = {**SDXL.unet, "transformer_layers_per_block": [1, 1, 1]}
    if cut == "small":
        options |= {"down_block_types": ["DownBlock2D"] * 3, "mid_block_type": "UNetMidBlock2D"}
    known = inspect.signature(diffusers.ControlNetModel.__init__).parameters
    with torch.device("meta"):
        net = diffusers.ControlNetModel(**{k: v for k, v in options.items() if k in known})
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    path = tmp_path / "x.safetensors"
    sparse_file(path, shapes)
    info = info_of(path)
    assert (info.problem, info.fits) == (None, ("sdxl",))
    found = control_in_file(path, read_header(path))
    assert found is not None
    with torch.device("meta"):
        made = type(net).from_config({k: v for k, v in found.config.items() if k in known})
    assert {name: tuple(w.shape) for name, w in made.state_dict().items()} == shapes


# ------------------------------------------------------------------------------- T2I-Adapters


ADAPTERS = {
    "full_adapter": {"channels": [320, 640, 1280, 1280], "num_res_blocks": 2},
    "full_adapter_xl": {"channels": [320, 640, 1280, 1280], "num_res_blocks": 2},
    "light_adapter": {"channels": [320, 640, 1280], "num_res_blocks": 4},
}


def adapter_of(kind: str, **options: Any) -> Any:
    factor = 16 if kind == "full_adapter_xl" else 8
    options = {"in_channels": 3, "downscale_factor": factor, **ADAPTERS[kind], **options}
    return diffusers.T2IAdapter(adapter_type=kind, **options).eval()


@pytest.mark.parametrize(
    ("kind", "family"),
    [("full_adapter", "sd1"), ("full_adapter_xl", "sdxl"), ("light_adapter", "sd1")],
)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_every_tensor_of_an_adapter_finds_its_place(
    tmp_path: Path, kind: str, family: str, colours: int, layout: str
) -> None:
    with torch.device("meta"):
        net = adapter_of(kind, in_channels=colours)
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    path = tmp_path / "t2i.safetensors"
    stored = authors_names(shapes, light=kind == "light_adapter")
    sparse_file(path, shapes if layout == "diffusers" else stored)
    info = info_of(path)
    assert (info.problem, info.fits, info.details["class"]) == (None, (family,), "T2IAdapter")
    found = control_in_file(path, read_header(path))
    assert found is not None
    with torch.device("meta"):
        made = diffusers.T2IAdapter.from_config(dict(found.config))
    assert {name: tuple(w.shape) for name, w in made.state_dict().items()} == shapes
    targets = [target for slot in found.component.slots or () for target in slot.targets]
    assert sorted(targets) == sorted(shapes)
    among_models = CheckpointLoader().recognise(path)
    assert among_models is not None
    assert "this is a T2I-Adapter, which steers" in (among_models.problem or "")
    assert "controlnet/ beside the checkpoints" in (among_models.problem or "")


def authors_names(named: dict[str, Any], *, light: bool) -> dict[str, Any]:
    """diffusers' tensors of an adapter as the authors' code names them."""
    found = {}
    for name, value in named.items():
        parts = name.removeprefix("adapter.").split(".")
        if parts[0] == "body" and light:
            parts[2] = {"resnets": "body"}.get(parts[2], parts[2])
        elif parts[0] == "body" and parts[2] == "resnets":
            parts = ["body", str(2 * int(parts[1]) + int(parts[3])), *parts[4:]]
        elif parts[0] == "body":
            parts[1] = str(2 * int(parts[1]))
        found[".".join(parts)] = value
    return found


def test_an_adapter_of_its_authors_is_the_same_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, path = adapter_of("full_adapter", channels=[16, 16, 32, 32]), tmp_path / "t2i.pth"
    torch.save(authors_names(net.state_dict(), light=False), path)
    made, hint = loaded(path), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(made.network(hint), net(hint), strict=True):
            assert torch.equal(ours, theirs)


def test_an_adapter_with_other_layers_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = adapter_of("full_adapter")
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    names = authors_names(shapes, light=False)
    path = tmp_path / "t2i.safetensors"
    sparse_file(path, names | {"body.2.down_opt.op.weight": (320, 320, 3, 3)})
    assert "unknown layers" in (info_of(path).problem or "")


# ------------------------------------------------------------------------------- the listing


def listed(models: Path, kind: str = "controlnet") -> dict[str, ModelInfo]:
    """What is listed of the files of a kind, as `GET /models?kind=` and `imagine list` show it."""
    return {info.path.name: info for info in catalogue(models).models(kind)}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of the ControlNets, in `tmp_path`, the models folder."""
    folder = tmp_path / "controlnet"
    folder.mkdir()
    return folder


def full_sd1() -> dict[str, tuple[int, ...]]:
    return {slot.key: slot.shape for slot in control_slots(SD1.unet) or []}


def test_files_and_folders_of_the_folder_are_listed_those_inside_others_too(kept: Path) -> None:
    sparse_file(kept / "canny.safetensors", full_sd1())
    folder_of(kept / "lines" / "edges", network())
    found = listed(kept.parent)
    assert {name: (info.name, info.fits, info.problem) for name, info in found.items()} == {
        "canny.safetensors": ("canny", ("sd1",), None),
        "edges": ("edges", ("sd",), None),
    }
    assert listed(kept.parent, "model") == {}


@pytest.mark.parametrize("name", ["edges.pth", "edges.PT", "cut.safetensors"])
def test_a_download_that_was_cut_off_is_told_and_hides_no_other(kept: Path, name: str) -> None:
    folder_of(kept / "edges", network())
    path, tensors = kept / name, network().state_dict()
    is_pickle = path.suffix != ".safetensors"
    (torch.save if is_pickle else save_file)(tensors, path)
    path.write_bytes(path.read_bytes()[:200_000])
    found = listed(kept.parent)
    cut = found.pop(path.name)
    assert (cut.family, cut.size, cut.kind) == ("broken", 200_000, "controlnet")
    said = "no file of weights that can be read" if is_pickle else "the download is incomplete"
    assert said in (cut.problem or "")
    assert "download" in (cut.problem or "")
    assert "pickle, and loading" not in (cut.problem or "")
    assert [info.problem for info in found.values()] == [None]


def test_a_file_whose_shapes_contradict_each_other_is_listed_with_its_size(kept: Path) -> None:
    path = kept / "x.safetensors"
    sparse_file(path, {**full_sd1(), "zero_convs.3.0.weight": (64, 320, 1, 1)})
    info = listed(kept.parent)[path.name]
    assert info.problem is not None
    assert "'zero_convs.3.0.weight' has the shape [64, 320, 1, 1]" in info.problem
    assert "wants [320, 320, 1, 1]" in info.problem
    assert info.size == path.stat().st_size > 700_000_000


def test_a_folder_that_cannot_be_used_is_listed_with_its_size(kept: Path) -> None:
    folder_of(kept / "edges", network())
    config = kept / "edges" / "config.json"
    config.write_text(config.read_text().replace('"ControlNetModel"', '"ControlNetXSAdapter"'))
    info = listed(kept.parent)["edges"]
    assert "is of the class ControlNetXSAdapter" in (info.problem or "")
    weights = kept / "edges" / "diffusion_pytorch_model.safetensors"
    assert info.size == weights.stat().st_size + config.stat().st_size


def test_an_upscaler_among_the_controlnets_is_told_where_it_belongs(kept: Path) -> None:
    torch.save(compact(), kept / "x4.pth")
    problem = listed(kept.parent)["x4.pth"].problem
    assert "it belongs in the folder upscale_models/" in (problem or "")


def test_a_pickle_of_anything_else_is_no_controlnet(kept: Path) -> None:
    torch.save({"who.knows": torch.ones(2)}, kept / "x.pth")
    problem = listed(kept.parent)["x.pth"].problem
    assert problem is not None
    assert "no ControlNet in a layout known here" in problem
    assert "'who.knows'" in problem


# ------------------------------------------------------------------------------ broken files


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": "wide"},
        {"block_out_channels": []},
        {"block_out_channels": [None, {}]},
        {"down_block_types": None},
        {"down_block_types": ["Nothing"]},
        {"layers_per_block": [1]},
        {"in_channels": "x"},
        {"cross_attention_dim": [1, 2]},
        {"conditioning_channels": 6},
        {"conditioning_embedding_out_channels": 3},
        {"addition_embed_type": "text_time"},
        {"transformer_layers_per_block": {"a": 1}},
    ],
)
def test_a_wrong_configuration_is_a_problem_in_words(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = folder_of(tmp_path / "edges", network())
    config = json.loads((path / "config.json").read_text("utf-8"))
    (path / "config.json").write_text(json.dumps({**config, **change}), "utf-8")
    info = info_of(path)
    assert info.kind == "controlnet"
    assert info.problem or fails_to_load(info)


def fails_to_load(info: ModelInfo) -> bool:
    """Whether loading says in words what is wrong."""
    with pytest.raises(UnusableModel):
        LOADER.load(info, device=FakeDevice(), full_precision=True)
    return True


def full_tables() -> list[dict[str, tuple[int, ...]]]:
    """The tensors of full-size files: ControlNets in both layouts, and an adapter."""
    tables = []
    for plan in (SD1, SDXL):
        slots = control_slots(plan.unet) or []
        tables += [{slot.key: slot.shape for slot in each} for each in (slots, own_names(slots))]
    with torch.device("meta"):
        state = adapter_of("full_adapter").state_dict()
    shapes = {name: tuple(weight.shape) for name, weight in state.items()}
    return [*tables, shapes, authors_names(shapes, light=False)]


def test_mutated_headers_never_crash_it(tmp_path: Path) -> None:
    chance = random.Random(0)
    tables, path = full_tables(), tmp_path / "x.safetensors"
    for turn in range(300):
        shapes = dict(tables[turn % len(tables)])
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
