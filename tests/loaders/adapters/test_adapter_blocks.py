"""Weights of blocks reach the modules that LoRA Block Weight's lists mean."""

from __future__ import annotations

import pytest

from imagine_plugins.loaders.adapters.blocks import LISTS, NAMED, BlocksError, blocks
from imagine_plugins.loaders.adapters.modules import Modules, Target, layers_of, modules_of
from imagine_plugins.loaders.architectures import SD1, SDXL, Architecture


def factors(text: str, plan: Architecture) -> dict[str, float]:
    weights = blocks(text)
    return {str(module.target): weights.factor(module) for module in modules_of(layers_of(plan))}


def counted(length: int) -> str:
    """The numbers 1, 2, 3, ... as a list."""
    return ",".join(str(number + 1) for number in range(length))


@pytest.mark.parametrize(
    ("length", "plan", "expected"),
    [
        (
            17,
            SD1,
            {
                "text_encoder.encoder.layers.0.mlp.fc1": 1,
                "unet.down_blocks.0.attentions.0.proj_in": 2,
                "unet.down_blocks.0.attentions.1.proj_in": 3,
                "unet.down_blocks.1.attentions.0.proj_in": 4,
                "unet.down_blocks.2.attentions.1.proj_in": 7,
                "unet.mid_block.attentions.0.proj_in": 8,
                "unet.up_blocks.1.attentions.0.proj_in": 9,
                "unet.up_blocks.3.attentions.2.proj_in": 17,
                "unet.conv_in": 0,
                "unet.down_blocks.0.downsamplers.0.conv": 0,
                "unet.up_blocks.0.resnets.0.conv1": 0,
                "unet.time_embedding.linear_1": 1,
                "unet.conv_out": 1,
            },
        ),
        (
            26,
            SD1,
            {
                "text_encoder.final_layer_norm": 1,
                "unet.conv_in": 2,
                "unet.down_blocks.0.resnets.0.conv1": 3,
                "unet.down_blocks.3.resnets.1.conv1": 13,
                "unet.mid_block.resnets.1.conv2": 14,
                "unet.up_blocks.0.resnets.0.conv1": 15,
                "unet.up_blocks.0.upsamplers.0.conv": 17,
                "unet.up_blocks.3.resnets.2.conv1": 26,
            },
        ),
        (
            12,
            SDXL,
            {
                "text_encoder.encoder.layers.0.mlp.fc1": 1,
                "text_encoder_2.encoder.layers.31.mlp.fc1": 1,
                "unet.down_blocks.1.attentions.0.proj_in": 2,
                "unet.down_blocks.2.attentions.1.proj_in": 5,
                "unet.mid_block.attentions.0.proj_in": 6,
                "unet.up_blocks.0.attentions.0.proj_in": 7,
                "unet.up_blocks.1.attentions.2.proj_in": 12,
                "unet.up_blocks.2.resnets.0.conv1": 0,
                "unet.add_embedding.linear_1": 1,
            },
        ),
        (
            20,
            SDXL,
            {
                "unet.conv_in": 2,
                "unet.down_blocks.2.resnets.1.conv1": 10,
                "unet.mid_block.resnets.0.conv1": 11,
                "unet.up_blocks.0.resnets.0.conv1": 12,
                "unet.up_blocks.2.resnets.2.conv1": 20,
            },
        ),
    ],
)
def test_each_number_of_a_list_is_its_blocks(
    length: int, plan: Architecture, expected: dict[str, float]
) -> None:
    found = factors(counted(length), plan)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("plan", [SD1, SDXL], ids=lambda plan: plan.family)
def test_a_full_list_of_ones_changes_nothing(plan: Architecture) -> None:
    ones = ",".join(["1"] * (26 if plan is SD1 else 20))
    assert set(factors(ones, plan).values()) == {1.0}


def test_the_attention_of_a_family_is_in_its_short_list() -> None:
    for plan, length in ((SD1, 17), (SDXL, 12)):
        modules: Modules = modules_of(layers_of(plan))
        attention = {m.block for m in modules if ".attentions." in m.target.module}
        assert attention == set(LISTS[length][1:])


def test_the_lists_that_the_extension_comes_with_are_known_by_name() -> None:
    middle = Target("unet", "mid_block.attentions.0.proj_in")
    assert all(len(text.split(",")) == 17 for text in NAMED.values())
    for name, factor in (
        ("ALL", 1.0),
        ("NONE", 0.0),
        ("MIDD", 1.0),
        ("OUTALL", 0.0),
        ("ALL0.5", 0.5),
    ):
        assert blocks(f" {name} ").factor(modules_of(layers_of(SD1))[middle]) == factor


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1,1", "MINE", "1;" * 17, counted(13), counted(12) + ","),
        *(f"{counted(11)},{odd}" for odd in ("R", "nan", "inf", "")),
    ],
)
def test_other_lists_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BlocksError, match="number"):
        blocks(text)


def test_blanks_and_negative_numbers_may_be_in_a_list() -> None:
    weights = blocks(" 1, -0.5 ,.5,1e0,0,0,0,0,0,0,0,0,0,0,0,0, 0 ")
    first = modules_of(layers_of(SD1))[Target("unet", "down_blocks.0.attentions.0.proj_in")]
    assert weights.factor(first) == -0.5
