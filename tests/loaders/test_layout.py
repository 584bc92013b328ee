"""The key layouts agree with diffusers' modules and with what full checkpoints hold."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoints import SD1 as FULL_SD1
from checkpoints import SD2 as FULL_SD2
from checkpoints import SDXL as FULL_SDXL
from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, configs, inpainting, shapes
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture
from imagine_plugins.loaders.layout import (
    UNET,
    VAE,
    Slot,
    prefixed,
    text_slots,
    unet_slots,
    vae_slots,
)
from imagine_plugins.loaders.weights import same_shape

FULL = [(SD1, FULL_SD1), (SD2, FULL_SD2), (SDXL, FULL_SDXL)]
FAMILIES = [*FULL, *((plan.for_inpainting(), inpainting(layout)) for plan, layout in FULL)]
NAMES = ["sd1", "sd2", "sdxl", "sd1-inpaint", "sd2-inpaint", "sdxl-inpaint"]

# Tensors that full checkpoints hold and no model has: counters, and a temperature of training.
UNUSED = ("position_ids", "logit_scale")


def slots_of(plan: Architecture) -> list[Slot]:
    texts = [slot for part in plan.texts for slot in text_slots(part)]
    return [
        *prefixed(unet_slots(plan.unet), UNET),
        *prefixed(vae_slots(plan.vae), VAE),
        *texts,
    ]


def modules(plan: Architecture) -> list[tuple[Any, list[Slot]]]:
    """Each component of a family without weights, and the slots that fill it."""
    import transformers
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with init_empty_weights():
        pairs = [
            (UNet2DConditionModel.from_config(dict(plan.unet)), list(unet_slots(plan.unet))),
            (AutoencoderKL.from_config(dict(plan.vae)), list(vae_slots(plan.vae))),
        ]
        for part in plan.texts:
            name = f"CLIPTextModel{'WithProjection' * part.projection}"
            config = transformers.CLIPTextConfig(**part.config)
            pairs.append((getattr(transformers, name)(config), text_slots(part)))
    return pairs


@pytest.mark.parametrize(("plan", "layout"), FAMILIES, ids=NAMES)
def test_every_parameter_of_the_family_is_filled_once_and_fits(
    plan: Architecture, layout: Layout
) -> None:
    for module, slots in modules(plan):
        filled = [target for slot in slots for target in slot.targets]
        wanted = {name.removeprefix("text_model."): p for name, p in module.named_parameters()}
        assert sorted(filled) == sorted(wanted)
        for slot in slots:
            rows, *rest = slot.shape[::-1] if slot.transposed else slot.shape
            for target in slot.targets:
                assert same_shape((rows // len(slot.targets), *rest), tuple(wanted[target].shape))


@pytest.mark.parametrize(("plan", "layout"), FAMILIES, ids=NAMES)
def test_every_tensor_of_a_full_checkpoint_has_its_place(
    plan: Architecture, layout: Layout
) -> None:
    held = {key: s for key, s in shapes(layout).items() if not key.endswith(UNUSED)}
    placed = {slot.key: slot.shape for slot in slots_of(plan)}
    assert not set(placed) - set(held)
    left = set(held) - set(placed)
    if plan.family == "sd2":  # the last layer and the projection play no part in SD2
        left = {key for key in left if ".resblocks.23." not in key and "text_proj" not in key}
    assert not left
    assert all(same_shape(held[key], shape) for key, shape in placed.items())


def test_the_sizes_are_the_published_ones() -> None:
    counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for plan in (SD1, SD2, SDXL)
        for module, _ in modules(plan)
    ]
    assert counts == [
        859_520_964,
        83_653_863,
        123_060_480,
        865_910_724,
        83_653_863,
        340_387_840,  # 354,032,641 less the last layer, the projection and the temperature
        2_567_463_684,
        83_653_863,
        123_060_480,
        694_659_840,
    ]


@pytest.mark.parametrize("layout", [TINY_SD1, TINY_SD2, TINY_SDXL], ids=lambda layout: layout.name)
def test_an_architecture_of_any_size_is_laid_out_from_its_configuration(layout: Layout) -> None:
    texts = [(text.prefix, "openclip" if text.openclip else "clip") for text in layout.texts]
    plan = read.architecture(configs(layout).get, text_layout=texts.__getitem__)
    held = {key: s for key, s in shapes(layout).items() if not key.endswith(UNUSED)}
    placed = {slot.key: slot.shape for slot in slots_of(plan)}
    assert set(placed) <= set(held)
    assert all(same_shape(held[key], shape) for key, shape in placed.items())
