"""What fits is read, the rest is named with the reason, and damage never becomes a crash."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter_files import KERNEL, PEFT, dora, lora, named, save
from checkpoints import TINY_SD1, TINY_SDXL, configs, inpainting, write_hollow
from imagine_core.parts import FittedLora
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.adapters.fitting import Leftover, fit, sentences, spellings
from imagine_plugins.loaders.adapters.merging import merged
from imagine_plugins.loaders.adapters.modules import layers_of, modules_of
from imagine_plugins.loaders.adapters.reading import AdapterError, read_adapter
from imagine_plugins.loaders.architectures import SD1, SDXL, Architecture
from imagine_plugins.loaders.header import HeaderError, read_header
from imagine_plugins.loaders.problems import ProblemError

PLAN = read.architecture(configs(TINY_SD1).get)
XL = read.architecture(configs(TINY_SDXL).get)
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
STEM = f"lora_unet_{LAYER.replace('.', '_')}"
GOOD = "lora_unet_mid_block_attentions_0_proj_in"
LAYERS = layers_of(PLAN)
SHAPE = LAYERS.shapes[f"unet.{LAYER}"]


def good() -> dict[str, torch.Tensor]:
    made = lora((32, 32), rank=2, alpha=1.0, seed=0, dtype=torch.float32)
    return named(made, GOOD)


def beside(path: Path, tensors: dict[str, torch.Tensor], **how: Any) -> FittedLora:
    """What is read of a file that also has a module that fits."""
    adapter = read_adapter(save(path / "a.safetensors", good() | tensors, **how)).fit(LAYERS)
    assert "unet.mid_block.attentions.0.proj_in" in adapter.changes
    return adapter


def zeros(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    ends = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
    return {f"{STEM}.{ends.get(part, part)}": torch.zeros(shape) for part, shape in shapes.items()}


# -------------------------------------------------------------------------------- what is left

DAMAGED: list[tuple[dict[str, torch.Tensor], str]] = [
    (zeros(down=(2, 32)), "its up is missing"),
    (zeros(up=(16, 2)), "its down is missing"),
    (zeros(mid=(2, 2)), "its down and up is missing"),
    (
        zeros(down=(2, 33), up=(16, 2)),
        r"its down has the shape \[2, 33\], this model wants \[2, 32\]",
    ),
    (
        zeros(down=(2, 32), up=(17, 2)),
        r"its up has the shape \[17, 2\], this model wants \[16, 2\]",
    ),
    (
        zeros(down=(2, 32), up=(16, 3)),
        r"its down has the shape \[2, 32\], this model wants \[3, 32\]",
    ),
    (zeros(down=(32, 2), up=(2, 16)), r"its up has the shape \[2, 16\]"),
    (zeros(down=(2, 32, 3, 3), up=(16, 2)), r"\[2, 32, 3, 3\]"),
    (zeros(down=(0, 32), up=(16, 0)), "rank 0"),
    (zeros(down=(), up=()), "rank 0"),
    (zeros(down=(64,), up=(32,)), "rank 0"),
    (zeros(hada_w1_a=(16, 2), hada_w1_b=(2, 32), hada_w2_a=(16, 2)), "its hada_w2_b is missing"),
    (
        zeros(hada_w1_a=(16, 2), hada_w1_b=(2, 32), hada_w2_a=(16, 2), hada_w2_b=(3, 32)),
        r"its hada_w2_a has the shape \[16, 2\], this model wants \[16, 3\]",
    ),
    (zeros(lokr_w1=(4, 4)), "its lokr_w2_a and lokr_w2_b is missing"),
    (zeros(lokr_w2=(4, 8)), "its lokr_w1_a and lokr_w1_b is missing"),
    (zeros(lokr_w1=(3, 4), lokr_w2=(4, 8)), r"its lokr_w1 has the shape \[3, 4\]"),
    (zeros(lokr_w1=(0, 4), lokr_w2=(4, 8)), "its lokr_w1 has the shape"),
    (zeros(lokr_w1=(4,), lokr_w2=(4, 8)), "no matrix"),
    (zeros(lokr_w1=(4, 4), lokr_w2=(4, 7)), r"its lokr_w2 has the shape \[4, 7\]"),
    (zeros(diff=(16, 31)), r"its diff has the shape \[16, 31\], this model wants \[16, 32\]"),
    (zeros(diff_b=(15,)), r"its diff_b has the shape \[15\], this model wants \[16\]"),
    (zeros(down=(2, 32), up=(16, 2), dora_scale=(5, 1)), r"its dora_scale has the shape \[5, 1\]"),
    (zeros(alpha=()), "a scale alone"),
    (zeros(down=(2, 32), up=(16, 2), alpha=(3,)), "its alpha is .3. numbers"),
    (zeros(oft_blocks=(4, 4, 4)), "OFT is not supported"),
    ({f"{STEM}.a1.weight": torch.zeros(2, 2)}, "GLoRA is not supported"),
    ({f"{STEM}.on_input": torch.zeros(1)}, "IA3 is not supported"),
    (
        {**zeros(up=(16, 2)), f"{STEM}.lora_down.weight": torch.zeros(2, 32, dtype=torch.int8)},
        "its down holds I8, which is not supported",
    ),
    (
        {**zeros(up=(16, 2)), f"{STEM}.lora_down.weight": torch.full((2, 32), torch.nan)},
        "no numbers",
    ),
    (
        {**zeros(up=(16, 2), down=(2, 32)), f"{STEM}.alpha": torch.tensor(torch.inf)},
        "its alpha makes a scale of inf",
    ),
    ({**zeros(up=(16, 2), down=(2, 32)), f"{STEM}.alpha": torch.tensor(1e30)}, "5e.29"),
    ({**zeros(up=(16, 2), down=(2, 32)), f"{STEM}.alpha": torch.tensor(torch.nan)}, "nan"),
]


@pytest.mark.parametrize(("tensors", "reason"), DAMAGED, ids=[words for _, words in DAMAGED])
def test_a_module_that_does_not_fit_is_left_out_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], reason: str
) -> None:
    adapter = beside(tmp_path, tensors)
    assert len(adapter.changes) == 1
    (warning,) = adapter.warnings
    name, said = warning.split(" left out: ")
    assert STEM in name or LAYER in name
    assert re.search(reason, said), said


@pytest.mark.parametrize("tensors", [tensors for tensors, _ in DAMAGED])
def test_a_file_of_nothing_else_is_refused_in_a_sentence(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(AdapterError) as error:
        read_adapter(save(tmp_path / "mine.safetensors", tensors)).fit(LAYERS)
    assert re.match(r"(nothing in )?mine.safetensors", str(error.value)), error.value


def test_an_alpha_of_a_type_that_torch_lacks_is_left_out(tmp_path: Path) -> None:
    shapes = {f"{STEM}.lora_down.weight": (2, 32), f"{STEM}.lora_up.weight": (16, 2)}
    kinds = {f"{STEM}.alpha": "F8_E4M3FNUZ"}
    path = write_hollow(
        tmp_path / "a.safetensors", {**shapes, **dict.fromkeys(kinds, ())}, dtype=kinds
    )
    with pytest.raises(AdapterError, match="its alpha holds F8_E4M3FNUZ"):
        read_adapter(path).fit(LAYERS)


def test_a_huge_alpha_of_two_whole_factors_means_nothing(tmp_path: Path) -> None:
    made = KERNEL["LoKr, whole"](SHAPE, rank=2, alpha=1e10, seed=1, dtype=torch.float32)
    adapter = beside(tmp_path, named(made, STEM))
    assert adapter.warnings == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lora_unet_down_blocks_9_proj.lora_down.weight", "no such module"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.diff", "this model has no text_encoder_2"),
        ("lora_te3_encoder_block_0.lora_down.weight", "this model has no te3"),
        ("lora_te_text_model_encoder_layers_99_mlp_fc1.lora_down.weight", "no such module"),
        ("network.something", "no such tensor is known"),
        (f"{STEM}.weight", "no such tensor is known"),
        ("bundle_emb.sks.t5", "no such text encoder"),
        ("text_encoder.text_model.embeddings.token_embedding.lora_embedding_A", "LoRA of a table"),
        ("lora_te_text_model_embeddings_token_embedding.diff_b", "neither magnitudes nor a bias"),
        ("lora_unet_mid_block_resnets_0_norm1.lora_down.weight", "a norm takes a full difference"),
    ],
)
def test_what_the_model_lacks_is_named(tmp_path: Path, name: str, reason: str) -> None:
    adapter = beside(tmp_path, {name: torch.zeros(2, 2)})
    (warning,) = adapter.warnings
    left, said = warning.split(" left out: ")
    assert name.startswith(left)
    assert reason in said


def test_what_is_there_under_two_names_counts_once_and_is_named(tmp_path: Path) -> None:
    made = lora(SHAPE, rank=2, alpha=None, seed=1, dtype=torch.float32)
    twice = named(made, STEM) | named(made, f"unet.{LAYER}", PEFT)
    adapter = beside(tmp_path, twice)
    assert len(adapter.changes[f"unet.{LAYER}"].updates) == 1
    assert len(adapter.warnings) == 2
    assert all("left out: the file has it as" in warning for warning in adapter.warnings)


def test_names_of_several_tools_may_be_in_one_file(tmp_path: Path) -> None:
    made = lora(SHAPE, rank=2, alpha=None, seed=1, dtype=torch.float32)
    old = "input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    square = lora((16, 16), rank=2, alpha=None, seed=1, dtype=torch.float32)
    tensors = named(made, f"unet.{LAYER}", PEFT) | named(square, f"lora_unet_{old}")
    adapter = beside(tmp_path, tensors)
    assert len(adapter.changes) == 3
    assert adapter.warnings == ()


def test_a_warning_names_three_and_counts_the_others() -> None:
    left = [Leftover(f"m{number}", "it is so") for number in range(7)]
    assert list(sentences([*left, Leftover("x", "another")])) == [
        "m0, m1, m2 and 4 more left out: it is so",
        "x left out: another",
    ]


def test_warnings_are_few_short_and_printable() -> None:
    left = [Leftover(f"{'m' * 999}\x1b[31m\n", f"reason {number}") for number in range(99)]
    told = list(sentences(left))
    assert len(told) == 9
    assert told[-1] == "91 more left out for other reasons"
    assert all(each.isprintable() and len(each) < 200 for each in told)


def test_two_text_encoders_need_a_name(tmp_path: Path) -> None:
    name = "text_model.encoder.layers.0.mlp.fc1"
    tensors = {
        f"{name}.lora_A.weight": torch.zeros(2, 16),
        f"{name}.lora_B.weight": torch.ones(64, 2),
    }
    with pytest.raises(AdapterError, match="does not say which text encoder it is for"):
        read_adapter(save(tmp_path / "a.safetensors", tensors)).fit(layers_of(XL))


# ------------------------------------------------------------------------------ other families


def hollow(path: Path, plan: Architecture, *, rank: int = 4) -> Path:
    """A LoRA of a family's attention, at full size."""
    tensors: dict[str, tuple[int, ...]] = {}
    for module in modules_of(layers_of(plan)):
        if ".attn" in module.target.module:
            stem = f"lora_unet_{module.target.module.replace('.', '_')}"
            tensors[f"{stem}.lora_down.weight"] = (rank, *module.shape[1:])
            tensors[f"{stem}.lora_up.weight"] = (module.shape[0], rank)
    return write_hollow(path, tensors)


@pytest.mark.parametrize(("plan", "other"), [(SD1, SDXL), (SDXL, SD1)])
def test_an_adapter_of_another_family_is_refused_though_some_of_it_would_fit(
    tmp_path: Path, plan: Architecture, other: Architecture
) -> None:
    path = hollow(tmp_path / "other.safetensors", plan)
    assert read_adapter(path).fit(layers_of(plan)).warnings == ()
    header = read_header(path)
    chance = fit(header, spellings(header), modules_of(layers_of(other)))
    assert chance.fitted
    with pytest.raises(AdapterError) as error:
        read_adapter(path).fit(layers_of(other))
    titles = {"sd1": "SD1", "sdxl": "SDXL"}
    assert str(error.value) == (
        f"other.safetensors is for {titles[plan.family]}, and this model is {titles[other.family]}"
    )
    assert error.value.family == plan.family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight", "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "Wan video"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.layers.0.attention.qkv.lora_A.weight", "Z-Image"),
        ("lora_prior_unet_down_blocks_0.lora_down.weight", "Stable Cascade"),
    ],
)
def test_an_adapter_of_a_family_that_is_not_supported_is_refused_with_its_name(
    tmp_path: Path, name: str, family: str
) -> None:
    path = write_hollow(tmp_path / "other.safetensors", {name: (4, 64)})
    with pytest.raises(
        AdapterError, match=f"^other.safetensors is for {family}, and this model is"
    ):
        read_adapter(path).fit(layers_of(SD1))


def test_a_file_that_is_no_adapter_is_refused_as_one(tmp_path: Path) -> None:
    path = write_hollow(tmp_path / "x.safetensors", {"model.diffusion_model.out.2.weight": (4, 4)})
    with pytest.raises(AdapterError, match=r"^x\.safetensors is no LoRA"):
        read_adapter(path).fit(layers_of(SD1))


def test_an_empty_file_of_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no LoRA"):
        read_adapter(write_hollow(tmp_path / "x.safetensors", {})).fit(layers_of(SD1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04rest",
        b"<!doctype html>",
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}    1234',
        (2).to_bytes(8, "little") + b"{}" + b"too many",
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_as_any_other_model_is(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(HeaderError):
        read_adapter(tmp_path / "x.safetensors").fit(layers_of(SD1))


def test_a_missing_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="cannot be read"):
        read_adapter(tmp_path / "gone.safetensors").fit(layers_of(SD1))


# --------------------------------------------------------------------------------- embeddings


def test_bundled_embeddings_are_read_with_the_encoder_that_they_are_for(tmp_path: Path) -> None:
    one, two = torch.randn(3, 16), torch.randn(1, 32)
    tensors = {
        "bundle_emb.sks.clip_l": one,
        "bundle_emb.sks.clip_g": two,
        "bundle_emb.My.Word.string_to_param.*": two[0],
        "bundle_emb.odd.clip_l": torch.zeros(1, 5),
        "bundle_emb.none.clip_g": torch.zeros(0),
    }
    adapter = read_adapter(save(tmp_path / "a.safetensors", tensors)).fit(layers_of(XL))
    assert set(adapter.words) == {"sks", "My.Word"}
    assert torch.equal(adapter.words["sks"]["text_encoder"], one)
    assert torch.equal(adapter.words["sks"]["text_encoder_2"], two)
    assert torch.equal(adapter.words["My.Word"]["text_encoder_2"], two)
    (warning,) = adapter.warnings
    assert warning == (
        "bundle_emb.none.clip_g, bundle_emb.odd.clip_l left out: no text encoder takes its shape"
    )


# ----------------------------------------------------------------------------- scales elsewhere


def scale_of(adapter: FittedLora, target: str) -> float:
    (update,) = adapter.changes[target].updates
    low = update.low_rank(torch.float64)
    assert low is not None
    return float((low.up @ low.down).mean())


def ones(rank: int, stem: str) -> dict[str, torch.Tensor]:
    """A change of `rank` times the scale in each place."""
    return {
        f"{stem}.lora_A.weight": torch.ones(rank, SHAPE[1]),
        f"{stem}.lora_B.weight": torch.ones(SHAPE[0], rank),
    }


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1.0),
        ({"unet.lora_alpha": 8}, 2.0),
        ({"unet.lora_alpha": 0}, 0.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {LAYER: 2}}, 0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_k": 2}}, 0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"2.to_k": 2}}, 2.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
        ({"unet.alpha": 8, "unet.r": 2}, 2.0),
        ({"unet.lora_alpha": "many"}, 1.0),
        ({"unet.lora_alpha": True, "unet.alpha_pattern": []}, 1.0),
    ],
)
def test_alphas_that_diffusers_writes_as_metadata_count(
    tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    path = save(tmp_path / "a.safetensors", ones(4, f"unet.{LAYER}"), metadata)
    assert scale_of(read_adapter(path).fit(LAYERS), f"unet.{LAYER}") == 4 * scale


def test_an_alpha_in_the_file_wins_over_metadata_and_kohyas_is_not_asked(tmp_path: Path) -> None:
    alpha = {f"unet.{LAYER}.alpha": torch.tensor(2.0)}
    metadata = {"lora_adapter_metadata": '{"unet.lora_alpha": 8}', "ss_network_alpha": "1"}
    path = save(tmp_path / "a.safetensors", ones(4, f"unet.{LAYER}") | alpha, metadata)
    assert scale_of(read_adapter(path).fit(LAYERS), f"unet.{LAYER}") == 2.0
    path = save(tmp_path / "b.safetensors", ones(4, f"unet.{LAYER}"), {"ss_network_alpha": "1"})
    assert scale_of(read_adapter(path).fit(LAYERS), f"unet.{LAYER}") == 4.0


def test_peft_has_its_alpha_in_a_file_beside(tmp_path: Path) -> None:
    path = save(tmp_path / "adapter_model.safetensors", ones(4, f"base_model.model.{LAYER}"))
    config = tmp_path / "adapter_config.json"
    for text, scale in (('{"r": 4, "lora_alpha": 8}', 2.0), ("{", 1.0), ("[1]", 1.0)):
        config.write_text(text, "utf-8")
        assert scale_of(read_adapter(path).fit(LAYERS), f"unet.{LAYER}") == 4 * scale


def test_peft_scales_two_whole_factors_by_the_rank_that_it_was_asked_for(tmp_path: Path) -> None:
    tensors = {
        f"base_model.model.{LAYER}.lokr_w1": torch.ones(4, 4),
        f"base_model.model.{LAYER}.lokr_w2": torch.ones(4, 8),
    }
    path = save(tmp_path / "adapter_model.safetensors", tensors)
    for text, scale in (('{"r": 100, "alpha": 50}', 0.5), ('{"alpha": 50}', 1.0), ("{}", 1.0)):
        (tmp_path / "adapter_config.json").write_text(text, "utf-8")
        (update,) = read_adapter(path).fit(LAYERS).changes[f"unet.{LAYER}"].updates
        assert set(update.dense(torch.float64).flatten().tolist()) == {scale}


def test_patterns_of_names_are_not_read_and_named(tmp_path: Path) -> None:
    config = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn[12].*": 2}}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    path = save(tmp_path / "a.safetensors", ones(4, f"unet.{LAYER}"), metadata)
    (warning,) = read_adapter(path).fit(LAYERS).warnings
    assert warning.startswith("attn[12].* left out: ")
    assert "pattern of names" in warning


@pytest.mark.parametrize("text", ["{", "[]", "[" * 99999, "null", '{"unet": 3}'])
def test_damaged_metadata_says_nothing(tmp_path: Path, text: str) -> None:
    metadata = {"lora_adapter_metadata": text}
    path = save(tmp_path / "a.safetensors", ones(4, f"unet.{LAYER}"), metadata)
    assert scale_of(read_adapter(path).fit(LAYERS), f"unet.{LAYER}") == 4.0


# --------------------------------------------------------------------------------- inpainting


def test_a_first_convolution_without_a_mask_changes_the_picture_alone(tmp_path: Path) -> None:
    plan = read.architecture(configs(inpainting(TINY_SD1)).get)
    made = lora((16, 4, 3, 3), rank=2, alpha=1.0, seed=1, dtype=torch.float32)
    path = save(tmp_path / "a.safetensors", named(made, "lora_unet_conv_in"))
    change = read_adapter(path).fit(layers_of(plan)).changes["unet.conv_in"]
    weight = torch.randn(16, 9, 3, 3, dtype=torch.float64)
    new, _ = merged(change, weight, None, strength=1.0)
    assert torch.equal(new[:, 4:], weight[:, 4:])
    assert torch.allclose(new[:, :4], weight[:, :4] + torch.as_tensor(made.delta), atol=1e-6)
    scaled = dora(made, (16, 4, 3, 3), "out", seed=2)
    path = save(tmp_path / "b.safetensors", named(scaled, "lora_unet_conv_in"))
    with pytest.raises(AdapterError, match="this model wants"):
        read_adapter(path).fit(layers_of(plan))


# ------------------------------------------------------------------------------- cost, damage


def test_a_file_of_rank_16_is_read_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for module in modules_of(layers_of(SD1)):
        if module.kind == "layer" and ".attentions." in module.target.module:
            made = lora(module.shape, rank=16, alpha=8.0, seed=0, dtype=torch.float16)
            stem = f"lora_unet_{module.target.module.replace('.', '_')}"
            tensors |= named(replace(made, delta=made.delta[:1]), stem)
    path = save(tmp_path / "a.safetensors", tensors)
    assert 12e6 < path.stat().st_size < 14e6
    seconds, layers = [], layers_of(SD1)
    for _ in range(5):
        start = time.perf_counter()
        adapter = read_adapter(path).fit(layers)
        seconds.append(time.perf_counter() - start)
    print(f"{path.stat().st_size / 1e6:.1f} MB of rank 16 read in {min(seconds):.3f} s")
    assert len(adapter.changes) == 192
    assert min(seconds) < 0.3


STEMS = (STEM, GOOD, f"unet.{LAYER}", "lora_unet_down_blocks_1_resnets_0_conv1",
         "lora_unet_mid_block_resnets_0_norm1", "lora_te_text_model_encoder_layers_0_mlp_fc1",
         "bundle_emb.x", "lora_unet_conv_in", "")  # fmt: skip
PARTS = ("lora_down.weight", "lora_up.weight", "lora_mid.weight", "lora_A.weight", "alpha", "scale",
         "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1",
         "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "diff", "diff_b",
         "dora_scale", "lora_magnitude_vector", "lora_B.bias", "w_norm", "clip_l",
         "oft_blocks")  # fmt: skip
SIDES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32])
KINDS = st.sampled_from([torch.float32, torch.float16, torch.float8_e5m2, torch.int8, torch.bool])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(STEMS), st.sampled_from(PARTS)),
        st.tuples(st.lists(SIDES, max_size=4), KINDS),
        min_size=1,
        max_size=12,
    )
)
def test_no_file_of_parts_makes_a_crash_and_what_is_read_can_be_applied(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[tuple[str, str], tuple[list[int], torch.dtype]],
) -> None:
    tensors = {
        f"{stem}.{part}": torch.ones(shape).to(dtype)
        for (stem, part), (shape, dtype) in drawn.items()
    }
    path = save(tmp_path_factory.mktemp("drawn") / "a.safetensors", tensors)
    try:
        adapter = read_adapter(path).fit(LAYERS)
    except ProblemError:
        return
    for name, change in adapter.changes.items():
        weight = torch.ones(LAYERS.shapes[name])
        new, _ = merged(change, weight, None, strength=0.5)
        assert new.shape == weight.shape
        assert torch.isfinite(new).all()
        for update in change.updates:
            update.low_rank(torch.float32)
    assert all(" left out" in warning for warning in adapter.warnings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_bundled_words_without_finite_vectors_are_left_out(
    tmp_path: Path, value: float | None
) -> None:
    vectors = torch.zeros(0, 32) if value is None else torch.full((2, 32), value)
    fitted = beside(tmp_path, {"bundle_emb.foo.string_to_param.*": vectors})
    assert fitted.words == {}
    assert any("no vectors of finite numbers" in each for each in fitted.warnings)


def test_an_empty_part_and_a_huge_alpha_are_no_crash(tmp_path: Path) -> None:
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    beside(tmp_path, {f"{stem}.lokr_t2": torch.zeros(0, 3)})
    metadata = {"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 1' + "0" * 400 + "}"}
    beside(tmp_path, {}, metadata=metadata)
