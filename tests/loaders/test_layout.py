"""The key layouts agree with diffusers' modules and with what full checkpoints hold."""

from __future__ import annotations

import pytest

from built import modules
from checkpoints import SD1 as FULL_SD1
from checkpoints import SD2 as FULL_SD2
from checkpoints import SDXL as FULL_SDXL
from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, configs, inpainting, shapes
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture
from imagine_plugins.loaders.components import component_slots, same_shape
from imagine_plugins.loaders.layout import UNET, VAE, Slot

FULL = [(SD1, FULL_SD1), (SD2, FULL_SD2), (SDXL, FULL_SDXL)]
FAMILIES = [*FULL, *((plan.for_inpainting(), inpainting(layout)) for plan, layout in FULL)]
NAMES = ["sd1", "sd2", "sdxl", "sd1-inpaint", "sd2-inpaint", "sdxl-inpaint"]

# Tensors that full checkpoints hold and no model has: counters, and a temperature of training.
UNUSED = ("position_ids", "logit_scale")


def slots_of(plan: Architecture, layout: Layout) -> list[list[Slot]]:
    """The slots of UNet, autoencoder and text encoders."""
    openclip = {number for number, text in enumerate(layout.texts) if text.openclip}
    found = [slots for slots in component_slots(plan, openclip=openclip).values() if slots]
    assert len(found) == 2 + len(layout.texts)
    return found


def placed(plan: Architecture, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The tensors that the slots take from a checkpoint."""
    prefixes = [UNET, VAE, *(text.prefix for text in layout.texts)]
    return {
        prefix + slot.key: slot.shape
        for prefix, slots in zip(prefixes, slots_of(plan, layout), strict=True)
        for slot in slots
    }


@pytest.mark.parametrize(("plan", "layout"), FAMILIES, ids=NAMES)
def test_every_parameter_of_the_family_is_filled_once_and_fits(
    plan: Architecture, layout: Layout
) -> None:
    for module, slots in zip(modules(plan), slots_of(plan, layout), strict=True):
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
    found = placed(plan, layout)
    assert not set(found) - set(held)
    left = set(held) - set(found)
    if plan.family == "sd2":  # the last layer and the projection play no part in SD2
        left = {key for key in left if ".resblocks.23." not in key and "text_proj" not in key}
    assert not left
    assert all(same_shape(held[key], shape) for key, shape in found.items())


def test_the_sizes_are_the_published_ones() -> None:
    counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for plan in (SD1, SD2, SDXL)
        for module in modules(plan)
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
    plan = read.architecture(configs(layout).get)
    held = {key: s for key, s in shapes(layout).items() if not key.endswith(UNUSED)}
    found = placed(plan, layout)
    assert set(found) <= set(held)
    assert all(same_shape(held[key], shape) for key, shape in found.items())
