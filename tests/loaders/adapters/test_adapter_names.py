"""Every module of the families is found under the names of all tools, and under no other's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from built import modules as built
from imagine_plugins.loaders.adapters.modules import Module, Modules, Target, layers_of, modules_of
from imagine_plugins.loaders.adapters.names import Spelled, embedding, spelled
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture
from imagine_plugins.loaders.components import same_shape
from imagine_plugins.loaders.layout import unet_slots

PLANS = [SD1, SD2, SDXL]
each_family = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.family)


def found(modules: Modules, name: str) -> Target | None:
    said = spelled(name)
    assert said is not None, name
    module = modules.find(said.component, said.module)
    return None if module is None else module.target


def original(plan: Architecture) -> dict[str, str]:
    """The names of the original layout (LDM, SGM) by diffusers' names."""
    return {
        slot.targets[0].removesuffix(".weight"): slot.key.removesuffix(".weight")
        for slot in unet_slots(plan.unet)
        if slot.key.endswith(".weight")
    }


# ------------------------------------------------------------------- what an architecture has


@each_family
def test_the_modules_are_those_that_diffusers_and_transformers_build(plan: Architecture) -> None:
    unet, _, *texts = built(plan)
    components = {"unet": unet, **{f"text_encoder{'_2' * n}": t for n, t in enumerate(texts)}}
    wanted = {
        Target(component, name.removeprefix("text_model.")): tuple(module.weight.shape)
        for component, whole in components.items()
        for name, module in whole.named_modules()
        if getattr(module, "weight", None) is not None
    }
    have = {module.target: module.shape for module in modules_of(layers_of(plan))}
    assert set(have) == set(wanted)
    assert all(same_shape(shape, wanted[target]) for target, shape in have.items())


def test_the_layers_and_norms_are_as_many_as_the_families_have() -> None:
    counts = [
        [sum(m.kind == kind and m.target.component == "unet" for m in modules_of(layers_of(plan)))
         for kind in ("layer", "norm", "table")]
        for plan in PLANS
    ]  # fmt: skip
    assert counts == [[282, 109, 0], [282, 109, 0], [794, 256, 0]]


@each_family
def test_no_two_modules_share_a_name(plan: Architecture) -> None:
    names: dict[tuple[str, str], str] = {}
    pairs = [
        *original(plan).items(),
        *((m.target.module,) * 2 for m in modules_of(layers_of(plan))),
    ]
    for target, name in pairs:
        assert names.setdefault(("", name.replace(".", "_")), target) == target


@each_family
def test_blocks_are_numbered_as_the_original_layout_numbers_them(plan: Architecture) -> None:
    modules = modules_of(layers_of(plan))
    last = "IN11" if plan is not SDXL else "IN08"
    blocks = {module.target.module: module.block for module in modules}
    assert blocks["conv_in"] == "IN00"
    assert blocks["mid_block.resnets.0.conv1"] == "M00"
    assert blocks["time_embedding.linear_1"] is None
    assert blocks["encoder.layers.0.mlp.fc1"] == "BASE"
    assert max(b for b in blocks.values() if b and b.startswith("IN")) == last
    assert blocks["up_blocks.0.resnets.0.conv1"] == "OUT00"


# ------------------------------------------------------------------------ names of all tools


def flat(name: str) -> str:
    return name.replace(".", "_")


def processor(name: str) -> str:
    block, dot, part = name.rpartition(".to_")
    return f"{block}.processor{dot}{part.removesuffix('.0')}_lora.down.weight"


UNET: dict[str, Callable[[str, str], str]] = {  # of diffusers' name and the original one
    "kohya": lambda new, old: f"lora_unet_{flat(new)}.lora_down.weight",
    "kohya, original": lambda new, old: f"lora_unet_{flat(old)}.lora_up.weight",
    "kohya, alpha": lambda new, old: f"lora_unet_{flat(old)}.alpha",
    "diffusers": lambda new, old: f"unet.{new}.lora_A.weight",
    "diffusers, before PEFT": lambda new, old: f"unet.{new}.lora.up.weight",
    "PEFT": lambda new, old: f"base_model.model.{new}.lora_B.default.weight",
    "PEFT in diffusers": lambda new, old: f"unet.base_model.model.{new}.lora_A.weight",
    "PEFT, DoRA": lambda new, old: f"base_model.model.{new}.lora_magnitude_vector.weight",
    "ComfyUI": lambda new, old: f"diffusion_model.{old}.lora_down.weight",
    "ComfyUI, difference": lambda new, old: f"diffusion_model.{old}.diff_b",
    "checkpoint's": lambda new, old: f"model.diffusion_model.{old}.lora_up.weight",
    "LyCORIS": lambda new, old: f"lycoris_{flat(new)}.lokr_w1",
    "OMI": lambda new, old: f"unet.{old}.lora_down.weight",
    "OneTrainer": lambda new, old: f"lora_unet_{flat(new)}.dora_scale",
    "bare": lambda new, old: f"{new}.lora_A.weight",
    "bare, original": lambda new, old: f"{old}.hada_w1_a",
}
TEXTS: dict[str, Callable[[str, int], str]] = {  # of transformers' name and the encoder's number
    "kohya": lambda name, n: f"lora_te{n}_text_model_{flat(name)}.lora_down.weight",
    "diffusers": lambda name, n: f"text_encoder{'_2' * (n - 1)}.text_model.{name}.lora_A.weight",
    "diffusers 0.40": lambda name, n: f"text_encoder{'_2' * (n - 1)}.{name}.lora_A.weight",
    "old": lambda name, n: (
        f"text_encoder{'_2' * (n - 1)}.text_model.{name}.lora_linear_layer.up.weight"
    ),
    "OMI": lambda name, n: f"clip_{'lg'[n - 1]}.text_model.{name}.lora_up.weight",
    "OneTrainer": lambda name, n: (
        f"clip_{'lg'[n - 1]}.transformer.text_model.{name}.lora_up.weight"
    ),
    "ComfyUI": lambda name, n: (
        f"text_encoders.clip_{'lg'[n - 1]}.transformer.text_model.{name}.diff"
    ),
}


@each_family
@pytest.mark.parametrize("tool", UNET)
def test_each_module_of_a_unet_is_found_under_the_name_of(tool: str, plan: Architecture) -> None:
    modules, names = modules_of(layers_of(plan)), original(plan)
    targets = [module.target for module in modules if module.target.component == "unet"]
    assert len(targets) in {391, 1050}
    for target in targets:
        name = UNET[tool](target.module, names[target.module])
        assert found(modules, name) == target, name


@each_family
@pytest.mark.parametrize("tool", TEXTS)
def test_each_module_of_the_text_encoders_is_found_under_the_name_of(
    tool: str, plan: Architecture
) -> None:
    modules = modules_of(layers_of(plan))
    for module in modules:
        if module.target.component != "unet":
            number = 2 if module.target.component.endswith("_2") else 1
            name = TEXTS[tool](module.target.module, number)
            assert found(modules, name) == module.target, name


@each_family
def test_attention_is_found_under_the_names_of_diffusers_processors(plan: Architecture) -> None:
    modules = modules_of(layers_of(plan))
    attention = [m.target for m in modules if ".attn" in m.target.module]
    assert attention
    for target in attention:
        name = processor(target.module)
        assert found(modules, f"unet.{name}") == target
        assert found(modules, name) == target


def test_old_names_of_a_text_encoders_attention_are_found() -> None:
    modules = modules_of(layers_of(SD1))
    layer = "encoder.layers.3.self_attn"
    for old, new in (("to_q", "q_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")):
        name = f"text_encoder.text_model.{layer}.{old}_lora.down.weight"
        assert found(modules, name) == Target("text_encoder", f"{layer}.{new}")


def test_a_single_text_encoder_needs_no_number_and_no_name() -> None:
    fc1 = Target("text_encoder", "encoder.layers.0.mlp.fc1")
    for plan in (SD1, SD2):
        modules = modules_of(layers_of(plan))
        assert found(modules, "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha") == fc1
        assert found(modules, "text_model.encoder.layers.0.mlp.fc1.lora_A.weight") == fc1
        name = "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"
        assert found(modules, name) == fc1
    assert found(
        modules_of(layers_of(SD2)), "clip_h.transformer.text_model.encoder.layers.0.mlp.fc1.diff"
    )
    of_two = modules_of(layers_of(SDXL))
    assert found(of_two, "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha") == fc1
    assert found(of_two, "text_model.encoder.layers.0.mlp.fc1.lora_A.weight") is None


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_down.weight",
        "unet.down_blocks.7.resnets.0.conv1.lora_A.weight",
    ],
)
def test_what_sd1_has_not_is_not_found(name: str) -> None:
    assert found(modules_of(layers_of(SD1)), name) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x.lora_A.weight", "down"),
        ("x.lora_A", "down"),
        ("x.lora_A.my adapter.weight", "down"),
        ("x.lora_B.weight", "up"),
        ("x.lora_B.bias", "up_bias"),
        ("x.lora_B.default.bias", "up_bias"),
        ("x.lora_mid.weight", "mid"),
        ("x.lora_magnitude_vector.default.weight", "magnitude"),
        ("x.lora_magnitude_vector", "magnitude"),
        ("x.processor.to_q_lora.alpha", "alpha"),
        ("x.lora.alpha", "alpha"),
        ("x.w_norm", "diff"),
        ("x.b_norm", "diff_b"),
        ("x.lokr_w2_b", "lokr_w2_b"),
        ("x.hada_t1", "hada_t1"),
        ("x.oft_blocks", "oft_blocks"),
    ],
)
def test_the_part_that_a_tensor_is_follows_from_its_name(name: str, part: str) -> None:
    said = spelled(name)
    assert said is not None
    assert said.part == part
    assert said == Spelled(None, "x" if "to_q" not in name else "x_to_q", part)


@pytest.mark.parametrize("name", ["x.weight", "lora_down.weight", "", "alpha", "x.lora_C.weight"])
def test_other_tensors_are_no_part(name: str) -> None:
    assert spelled(name) is None


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("bundle_emb.sks.string_to_param.*", ("sks", "")),
        ("bundle_emb.a.b.clip_l", ("a.b", "clip_l")),
        ("bundle_emb.sks.clip_g", ("sks", "clip_g")),
        ("bundle_emb.sks.t5", None),
        ("bundle_emb..clip_l", None),
        ("sks.clip_l", None),
    ],
)
def test_a_bundled_embedding_has_a_word_and_an_encoder(
    name: str, word: tuple[str, str] | None
) -> None:
    assert embedding(name) == word


# ------------------------------------------------------------------------------ second opinion


def test_diffusers_gives_the_names_of_sgm_to_the_same_modules() -> None:
    from diffusers.loaders import lora_conversion_utils as theirs

    names = original(SDXL)
    layers = [m.target.module for m in modules_of(layers_of(SDXL)) if m.kind == "layer"]
    layers = [name for name in layers if name in names]
    state = {
        f"lora_unet_{flat(names[layer])}.lora_{half}.weight": torch.tensor([number])
        for number, layer in enumerate(layers)
        for half in ("down", "up")
    }
    state = theirs._maybe_map_sgm_blocks_to_diffusers(state, SimpleNamespace(layers_per_block=2))
    mapped, _ = theirs._convert_non_diffusers_lora_to_diffusers(state)
    there = {key: number for key, number in mapped.items() if key.endswith("down.weight")}
    assert len(there) == 794
    modules = modules_of(layers_of(SDXL))
    for key, number in there.items():
        assert found(modules, key) == Target("unet", layers[int(number)])


def test_a_module_is_told_by_its_whole_name_alone() -> None:
    modules = modules_of(layers_of(SD1))
    conv_in = Module(Target("unet", "conv_in"), (320, 4, 3, 3), "IN00")
    assert modules.find("unet", "conv_in") == conv_in
    assert modules.find("unet", "conv_i") is None
    assert modules.find("vae", "decoder_conv_in") is None
