"""A header alone says what an adapter is for and what it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import SD1 as FULL_SD1
from checkpoints import SDXL as FULL_SDXL
from checkpoints import shapes, write_hollow
from imagine_plugins.loaders.adapters.modules import Module, layers_of, modules_of
from imagine_plugins.loaders.adapters.recognition import AdapterInfo, recognise_adapter
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture
from imagine_plugins.loaders.header import HeaderError

Shapes = dict[str, tuple[int, ...]]


def info(path: Path, tensors: Shapes, **metadata: str) -> AdapterInfo | None:
    return recognise_adapter(write_hollow(path / "a.safetensors", tensors, metadata=metadata))


def adapter(path: Path, tensors: Shapes, **metadata: str) -> AdapterInfo:
    found = info(path, tensors, **metadata)
    assert found is not None
    return found


def lora(plan: Architecture, wanted: Callable[[Module], bool], *, rank: int = 8) -> Shapes:
    tensors: Shapes = {}
    starts = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    for module in modules_of(layers_of(plan)):
        if module.kind == "layer" and wanted(module):
            start = starts.get(module.target.component, "lora_te2_text_model_")
            stem = start + module.target.module.replace(".", "_")
            tensors[f"{stem}.lora_down.weight"] = (rank, *module.shape[1:])
            tensors[f"{stem}.lora_up.weight"] = (module.shape[0], rank)
            tensors[f"{stem}.alpha"] = ()
    return tensors


def everything(module: Module) -> bool:
    return True


def self_attention(module: Module) -> bool:
    return ".attn1." in module.target.module


@pytest.mark.parametrize(
    ("plan", "modules"), [(SD1, 282 + 72), (SD2, 282 + 138), (SDXL, 794 + 72 + 193)]
)
def test_family_modules_components_and_rank_are_told(
    tmp_path: Path, plan: Architecture, modules: int
) -> None:
    found = adapter(tmp_path, lora(plan, everything))
    assert found.family == plan.family
    assert found.fits == (plan.family,)
    assert found.modules == modules
    assert found.ranks == (8,)
    assert set(found.kinds) == {"LoRA", "LoCon"}
    texts = ("text_encoder_2", "text_encoder")[2 - len(plan.texts) :]
    assert found.components == ("unet", *texts)
    assert found.leftovers == ()


def test_what_fits_two_families_equally_is_told_apart_by_metadata(tmp_path: Path) -> None:
    tensors = lora(SD2, self_attention)
    assert adapter(tmp_path, tensors).fits == ("sd1", "sd2")
    assert adapter(tmp_path, tensors).family == "sd1"
    assert adapter(tmp_path, tensors, ss_base_model_version="sd_v2_v").family == "sd2"
    spec = {"modelspec.architecture": "stable-diffusion-v2-512/lora"}
    assert adapter(tmp_path, tensors, **spec).family == "sd2"
    said = adapter(tmp_path, tensors, ss_base_model_version="sdxl_base_v1-0")
    assert (said.family, said.fits) == ("sd1", ("sd1", "sd2"))


def test_kinds_and_ranks_are_those_of_the_modules(tmp_path: Path) -> None:
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to"
    tensors: Shapes = {
        f"{stem}_q.hada_w1_a": (320, 4),
        f"{stem}_q.hada_w1_b": (4, 320),
        f"{stem}_q.hada_w2_a": (320, 4),
        f"{stem}_q.hada_w2_b": (4, 320),
        f"{stem}_k.lokr_w1": (8, 8),
        f"{stem}_k.lokr_w2": (40, 40),
        f"{stem}_v.lora_down.weight": (16, 320),
        f"{stem}_v.lora_up.weight": (320, 16),
        f"{stem}_v.dora_scale": (320, 1),
        f"{stem}_out_0.diff": (320, 320),
        f"{stem}_out_0.diff_b": (320,),
        "lora_unet_mid_block_resnets_0_norm1.w_norm": (1280,),
        "bundle_emb.sks.clip_l": (4, 768),
        "lora_unet_conv_in.weird": (4,),
        "lora_unet_conv_out.lora_down.weight": (4, 5),
    }
    found = adapter(tmp_path, tensors)
    assert set(found.kinds) == {"LoHa", "LoKr", "LoRA", "DoRA", "full", "bias", "norm"}
    assert found.ranks == (4, 16)
    assert found.modules == 5
    assert found.words == ("sks",)
    assert {left.name for left in found.leftovers} == {
        "lora_unet_conv_in.weird",
        "lora_unet_conv_out.lora_down",
    }


def test_an_adapter_that_fits_nothing_is_of_an_unknown_family(tmp_path: Path) -> None:
    found = adapter(tmp_path, {"lora_unet_conv_in.lora_down.weight": (4, 99)})
    assert (found.family, found.fits, found.modules) == ("unknown", (), 0)
    assert found.leftovers


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ({"ss_base_model_version": "flux1"}, "flux"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-refiner"}, "sdxl-refiner"),
        ({"modelspec.architecture": "stable-diffusion-3-medium/lora"}, "sd3"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
    ],
)
def test_metadata_tells_the_family_where_nothing_fits(
    tmp_path: Path, said: dict[str, str], family: str
) -> None:
    assert adapter(tmp_path, {"lora_unet_x.lora_down.weight": (4, 99)}, **said).family == family


def test_kohyas_module_makes_a_file_of_alphas_an_adapter(tmp_path: Path) -> None:
    assert info(tmp_path, {"lora_unet_x.alpha": ()}) is None
    assert info(tmp_path, {"lora_unet_x.alpha": ()}, ss_network_module="networks.lora") is not None


@pytest.mark.parametrize(
    "tensors",
    [
        shapes(FULL_SD1),
        shapes(FULL_SDXL),
        {"double_blocks.0.img_attn.norm.key_norm.scale": (128,)},
        {"clip_l": (2, 768), "clip_g": (2, 1280)},
        {"emb_params": (4, 768)},
        {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
        {"decoder.conv_in.weight": (512, 4, 3, 3)},
        {},
    ],
    ids=["sd1", "sdxl", "flux", "embedding", "old embedding", "controlnet", "vae", "empty"],
)
def test_other_files_are_no_adapters(tmp_path: Path, tensors: Shapes) -> None:
    assert info(tmp_path, tensors) is None


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(HeaderError, match="pickle"):
        recognise_adapter(tmp_path / "a.safetensors")


def test_recognising_needs_no_torch() -> None:
    code = "import sys, imagine_plugins.loaders.adapters.recognition; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------- trigger words

LORA = {
    "lora_unet_conv_in.lora_down.weight": (4, 4, 3, 3),
    "lora_unet_conv_in.lora_up.weight": (320, 4),
}
TAGS = {
    "10_sks dog": {"sks dog": 20, "grass": 7, "outdoors": 20},
    "5_cat": {"cat": 9, "grass": 3, "broken": "x"},
}
FOLDERS = {"10_sks dog": {"n_repeats": 10, "img_count": 20}, "5_cat": {"img_count": 10}}


def test_a_phrase_in_the_metadata_is_the_trigger(tmp_path: Path) -> None:
    metadata = {"modelspec.trigger_phrase": " sks dog,  red\ncollar,, ", "ss_tag_frequency": "{}"}
    assert adapter(tmp_path, LORA, **metadata).triggers == ("sks dog", "red collar")
    assert adapter(tmp_path, LORA, trigger_words='["a, b", 3, "c"]').triggers == ("a, b", "c")


def test_tags_of_every_picture_of_a_folder_are_triggers_and_the_frequent_ones_are_told(
    tmp_path: Path,
) -> None:
    metadata = {"ss_tag_frequency": json.dumps(TAGS), "ss_dataset_dirs": json.dumps(FOLDERS)}
    found = adapter(tmp_path, LORA, **metadata)
    assert found.triggers == ("sks dog", "outdoors")
    assert found.tags == ("sks dog", "outdoors", "grass", "cat")
    alone = adapter(tmp_path, LORA, ss_tag_frequency=json.dumps(TAGS))
    assert alone.triggers == ()
    assert alone.tags == found.tags


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '{"a": 3}', '{"a": {"b": -1}}', "[" * 99999]
)
def test_damaged_tags_are_none(tmp_path: Path, text: str) -> None:
    found = adapter(tmp_path, LORA, ss_tag_frequency=text, ss_dataset_dirs=text)
    assert found.triggers == found.tags == ()


def test_tags_are_bounded_and_printable(tmp_path: Path) -> None:
    many = {"f": {f"tag {number}\x1b[31m\n{'x' * 999}": 5 for number in range(999)}}
    tags = adapter(tmp_path, LORA, ss_tag_frequency=json.dumps(many)).tags
    assert len(tags) == 20
    assert all(tag.isprintable() and len(tag) <= 200 for tag in tags)
