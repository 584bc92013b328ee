"""ControlNets in rows of forwards, against diffusers' ControlNet pipelines, in float32."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapter_rows import made_lora, of_kind
from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, inpainting, write_checkpoint
from control_nets import random_adapter, random_net
from imagine_core.engine.forward import stack
from imagine_core.errors import RequestError
from imagine_core.parts import AppliedControl, Parts
from imagine_core.types import ControlUse
from imagine_plugins.loaders.control_networks import LoadedControl
from imagine_plugins.loaders.controls import softer
from reference import load, picture, single_file_pipeline

LAYOUTS = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL}
SIZE = (96, 64)


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random checkpoint by our loader, diffusers' pipeline of it, and two random ControlNets."""
    layout: Layout = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    path = write_checkpoint(folder / "tiny.safetensors", layout)
    plain = single_file_pipeline(path, layout, folder / "configs")
    nets = [random_net(plain.unet, seed) for seed in (1, 2)]
    kind = f"StableDiffusion{'XL' * (len(layout.texts) > 1)}ControlNetPipeline"
    return SimpleNamespace(ours=load(path), plain=plain, kind=kind, nets=nets)


def loaded_net(net: Any) -> LoadedControl:
    """The network as our loader gives it; that of diffusers' pipeline stays what it is."""
    return LoadedControl(copy.deepcopy(net))


def applied(net: Any, hint: Image.Image | None = None, **use: Any) -> AppliedControl:
    hint = picture(*SIZE) if hint is None else hint
    loaded = net if isinstance(net, LoadedControl) else loaded_net(net)
    return AppliedControl(loaded, ControlUse(name="net", image=b"", **use), hint)


def forwards(pair: Any, nets: Any, **options: Any) -> list[Any]:
    """What diffusers' pipeline gives its UNet at each step, and what comes of it."""
    import diffusers

    pipe = getattr(diffusers, pair.kind)(**pair.plain.components, controlnet=nets)
    return noted(pipe, **options)


def noted(pipe: Any, **options: Any) -> list[Any]:
    """The forwards of a picture's UNet."""
    pipe.set_progress_bar_config(disable=True)
    seen = []

    def note(_: object, args: Any, kwargs: Any, output: Any) -> None:
        del kwargs
        seen.append(SimpleNamespace(inputs=args[0], time=args[1], output=output[0]))

    hook = pipe.unet.register_forward_hook(note, with_kwargs=True)
    try:
        pipe(
            prompt="a red cat",
            negative_prompt="grey",
            width=SIZE[0],
            height=SIZE[1],
            num_inference_steps=4,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
            **options,
        )
    finally:
        hook.remove()
    return seen


def encode(model: Any, prompt: str) -> Any:
    return model.encode_prompt(prompt, clip_skip=1, width=SIZE[0], height=SIZE[1])


def predicted(pair: Any, seen: Any, parts: Parts | None) -> torch.Tensor:
    rows = [encode(pair.ours, prompt) for prompt in ("grey", "a red cat")]
    negative = None if parts is None else parts.unconditional
    found: torch.Tensor = pair.ours.predict(
        seen.inputs, torch.full((2,), float(seen.time)), stack(rows, [negative, parts])
    )
    return found


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_every_forward_is_that_of_diffusers_controlnet_pipeline(pair: Any, weight: float) -> None:
    parts = Parts(controls=(applied(pair.nets[0], weight=weight),))
    options = {"image": picture(*SIZE), "controlnet_conditioning_scale": weight}
    theirs = forwards(pair, pair.nets[0], **options)
    for each in theirs:
        assert (predicted(pair, each, parts) - each.output).abs().max() <= 1e-3
    assert (predicted(pair, theirs[0], None) - theirs[0].output).abs().max() > 1e-2


def test_several_controlnets_in_their_steps_are_those_of_diffusers(pair: Any) -> None:
    other = picture(*SIZE).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    parts = Parts(
        controls=(
            applied(pair.nets[0], weight=0.8, end=0.5),
            applied(pair.nets[1], other, weight=0.5, start=0.25),
        )
    )
    theirs = forwards(
        pair,
        list(pair.nets),
        image=[picture(*SIZE), other],
        controlnet_conditioning_scale=[0.8, 0.5],
        control_guidance_start=[0.0, 0.25],
        control_guidance_end=[0.5, 1.0],
    )
    assert len(theirs) == 4
    for step, each in enumerate(theirs):
        now = parts.at(step / 4)
        assert (predicted(pair, each, now) - each.output).abs().max() <= 1e-3


def test_rows_with_other_controlnets_share_a_forward_and_are_each_alone(pair: Any) -> None:
    first, second = map(loaded_net, pair.nets)
    hints = [picture(*SIZE), picture(*SIZE).rotate(180), Image.new("RGB", SIZE, (9, 200, 90))]
    rows = [
        None,
        Parts(controls=(applied(first, hints[0]),)),
        Parts(controls=(applied(first, hints[1], weight=0.5, mode="prompt"),)),
        Parts(controls=(applied(second, hints[2]), applied(first, hints[2]))),
        Parts(controls=(applied(second, hints[0]),), seamless="x"),
    ]
    latents = torch.randn(5, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    times = torch.tensor([900.0, 20.0, 500.0, 700.0, 300.0])
    cat = encode(pair.ours, "a cat")
    calls: list[int] = []
    hooks = [
        net.network.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
        for net in (first, second)
    ]
    together = pair.ours.predict(latents, times, stack([cat] * 5, rows))
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == [2, 3]  # one forward each, for its rows alone
    plain = pair.ours.predict(latents, times, stack([cat] * 5))
    for row, parts in enumerate(rows):
        at = slice(row, row + 1)
        alone = pair.ours.predict(latents[at], times[at], stack([cat], [parts]))
        assert (together[at] - alone).abs().max() <= 1e-5, row
        assert torch.equal(together[at], plain[at]) == (parts is None), row


def test_rows_with_a_lora_a_controlnet_both_and_none_are_each_alone(
    pair: Any, tmp_path: Path
) -> None:
    lora = made_lora(tmp_path / "ink.safetensors", pair.ours.rows._layers, of_kind("LoRA"))
    ink, edges = lora.used(0.7).applied, applied(pair.nets[0], weight=0.6)
    rows = [
        None,
        Parts((ink,)),
        Parts(controls=(edges,)),
        Parts((ink,), controls=(edges, applied(pair.nets[1], mode="prompt"))),
    ]
    latents = torch.randn(4, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    times = torch.tensor([900.0, 20.0, 500.0, 700.0])
    cat = encode(pair.ours, "a cat")
    together = pair.ours.predict(latents, times, stack([cat] * 4, rows))
    plain = pair.ours.predict(latents, times, stack([cat] * 4))
    for row, parts in enumerate(rows):
        at = slice(row, row + 1)
        alone = pair.ours.predict(latents[at], times[at], stack([cat], [parts]))
        assert (together[at] - alone).abs().max() <= 1e-5, row
        assert torch.equal(together[at], plain[at]) == (parts is None), row


def test_a_controlnet_that_is_there_twice_in_a_row_runs_once_and_acts_twice(pair: Any) -> None:
    net = loaded_net(pair.nets[0])
    hints = picture(*SIZE), picture(*SIZE).rotate(180)
    each = [
        applied(net, hint, weight=weight) for hint, weight in zip(hints, (0.4, 0.9), strict=True)
    ]
    calls: list[int] = []
    net.network.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    both = residuals(pair.ours, *each)
    assert calls == [2]
    first, second = (residuals(pair.ours, one) for one in each)
    for one, other, sum_ in zip(first, second, both, strict=True):
        assert torch.allclose(one + other, sum_, atol=1e-5)


def test_a_controlnet_of_weight_0_does_not_run(pair: Any) -> None:
    net = loaded_net(pair.nets[0])
    net.network.register_forward_hook(lambda *_: pytest.fail("it ran"))
    cat = encode(pair.ours, "a cat")
    latents, times = torch.ones(1, 4, 16, 24), torch.tensor([500.0])
    parts = Parts(controls=(applied(net, weight=0.0),))
    found = pair.ours.predict(latents, times, stack([cat], [parts]))
    assert torch.equal(found, pair.ours.predict(latents, times, stack([cat])))


def test_a_hint_is_read_once_for_all_steps_and_once_more_for_another_size(pair: Any) -> None:
    control = applied(pair.nets[0])
    read: list[int] = []
    control.net._reader.register_forward_hook(lambda *_: read.append(1))  # type: ignore[attr-defined]
    cat = encode(pair.ours, "a cat")
    rows = [Parts(controls=(control,))] * 2
    for height, width in ((16, 24), (16, 24), (8, 12), (8, 12), (16, 24)):
        latents = torch.ones(2, 4, height, width)
        pair.ours.predict(latents, torch.full((2,), 500.0), stack([cat] * 2, rows))
    assert len(read) == 2
    wrapped = Parts(controls=(control,), seamless="x")
    pair.ours.predict(torch.ones(1, 4, 16, 24), torch.full((1,), 500.0), stack([cat], [wrapped]))
    assert len(read) == 3


def test_a_controlnet_whose_hints_are_larger_gets_a_larger_one(pair: Any) -> None:
    net = random_net(pair.plain.unet, 1, downsampling=8)  # the model's cells are of 4 pixels
    control, large = applied(net), picture(*SIZE).resize((192, 128), Image.Resampling.LANCZOS)
    assert pair.ours.fit(Parts(controls=(control,))) == ()
    read = control.net.read(  # type: ignore[attr-defined]
        picture(*SIZE), (24, 16), downsampling=4, seamless=""
    )
    theirs = net.controlnet_cond_embedding(pixels(large))
    assert (read[0] - theirs).abs().max() <= 1e-5
    assert residuals(pair.ours, control)[0].shape[2:] == (16, 24)


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_a_controlnet_wraps_around_where_its_row_does(pair: Any, axes: str) -> None:
    cells = (4 * ("y" in axes), 8 * ("x" in axes))
    hint = picture(*SIZE)
    moved = Image.fromarray(np.roll(np.asarray(hint), [4 * count for count in cells], (0, 1)))
    latents = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    cat, times = encode(pair.ours, "a cat"), torch.tensor([500.0])

    def drawn(latents: torch.Tensor, hint: Image.Image, seamless: str) -> torch.Tensor:
        parts = Parts(controls=(applied(pair.nets[0], hint),), seamless=seamless)
        found: torch.Tensor = pair.ours.predict(latents, times, stack([cat], [parts]))
        return found

    turned = latents.roll(cells, (2, 3))
    whole = drawn(latents, hint, axes).roll(cells, (2, 3))
    assert (drawn(turned, moved, axes) - whole).abs().max() <= 1e-4
    edged = drawn(latents, hint, "").roll(cells, (2, 3))
    assert (drawn(turned, moved, "") - edged).abs().max() > 1e-2


def test_one_that_pools_its_output_acts_as_in_diffusers_and_sums_with_others(pair: Any) -> None:
    pooled = copy.deepcopy(pair.nets[0])
    pooled.register_to_config(global_pool_conditions=True)
    parts = Parts(controls=(applied(pooled, weight=0.7),))
    options = {"image": picture(*SIZE), "controlnet_conditioning_scale": 0.7}
    for each in forwards(pair, pooled, **options):
        assert (predicted(pair, each, parts) - each.output).abs().max() <= 1e-3
    other = applied(pair.nets[1])
    for order in ((0, 1), (1, 0)):
        both = [(parts.controls[0], other)[place] for place in order]
        one, two = residuals(pair.ours, parts.controls[0]), residuals(pair.ours, other)
        for mean, full, sum_ in zip(one, two, residuals(pair.ours, *both), strict=True):
            assert torch.allclose(mean + full, sum_, atol=1e-5)


def test_blue_comes_first_where_the_configuration_says_so(pair: Any) -> None:
    turned = copy.deepcopy(pair.nets[0])
    turned.register_to_config(controlnet_conditioning_channel_order="bgr")
    options = {"image": picture(*SIZE)}
    (first, *_) = forwards(pair, turned, **options)
    ours = predicted(pair, first, Parts(controls=(applied(turned),)))
    assert (ours - first.output).abs().max() <= 1e-3
    assert (predicted(pair, first, Parts(controls=(applied(pair.nets[0]),))) - ours).abs().max() > 0


def test_an_inpainting_model_shows_a_controlnet_the_latent_alone(tmp_path: Path) -> None:
    layout = inpainting(TINY_SD1)
    path = write_checkpoint(tmp_path / "tiny.safetensors", layout)
    plain = single_file_pipeline(path, layout, tmp_path / "configs")
    narrow = {**plain.unet.config, "in_channels": 4}
    net = random_net(type(plain.unet).from_config(narrow), 1)
    ours, control = load(path), applied(net)
    shapes: list[Any] = []
    control.net.network.register_forward_hook(  # type: ignore[attr-defined]
        lambda _, args, __: shapes.append(args[0])
    )
    parts = Parts(controls=(control,))
    assert ours.fit(parts) == ()
    latents = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    row, times = encode(ours, "a cat"), torch.full((2,), 500.0)
    found = ours.predict(latents, times, stack([row] * 2, [None, parts]))
    assert torch.equal(shapes[0], latents[1:])
    down, middle = net(
        latents[1:],
        times[1:],
        encoder_hidden_states=row.context,
        controlnet_cond=pixels(picture(*SIZE)),
        return_dict=False,
    )
    theirs = plain.unet(
        torch.cat([latents[1:], row.extras["inpaint"]], 1),
        times[1:],
        encoder_hidden_states=row.context,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    assert (found[1:] - theirs).abs().max() <= 1e-4
    wide = applied(random_net(plain.unet, 1))
    with pytest.raises(RequestError, match="latent channels is 9; the model's is 4"):
        ours.fit(Parts(controls=(wide,)))


def pixels(image: Image.Image) -> torch.Tensor:
    """[1, 3, height, width], 0..1."""
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(1, image.height, image.width, 3).permute(0, 3, 1, 2) / 255


def test_residuals_weaken_outwards_where_the_prompt_or_the_controlnet_is_more_important(
    pair: Any,
) -> None:
    assert softer(13) == pytest.approx([0.825 ** (12 - place) for place in range(13)])
    assert softer(10) == pytest.approx([0.825 ** (12 - place) for place in range(10)])  # SDXL's
    assert softer(5) == pytest.approx([0.825**4, 0.825**3, 0.825**2, 0.825, 1])
    net = loaded_net(pair.nets[0])
    plain, weak = (
        residuals(pair.ours, applied(net, weight=2.0, mode=mode)) for mode in ("balanced", "prompt")
    )
    factors = softer(len(plain))
    for one, other, factor in zip(plain, weak, factors, strict=True):
        assert torch.allclose(one * factor, other, atol=1e-5)
        assert other.abs().max() > 0


def residuals(model: Any, *controls: AppliedControl) -> list[torch.Tensor]:
    """What is added to the UNet, the deepest residual last."""
    cat = encode(model, "a cat")
    with torch.no_grad():
        found = model.controls.residuals(
            torch.ones(1, 4, 16, 24),
            torch.tensor([500.0]),
            cat.context,
            cat.extras,
            [Parts(controls=controls)],
        )
    return [*found["down_block_additional_residuals"], found["mid_block_additional_residual"]]


def test_the_controlnet_is_more_important_where_it_acts_on_the_prompt_alone(pair: Any) -> None:
    parts = Parts(controls=(applied(pair.nets[0], mode="control"),))
    latents = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    seen = SimpleNamespace(inputs=latents, time=500.0)
    found, plain = predicted(pair, seen, parts), predicted(pair, seen, None)
    assert torch.equal(found[0], plain[0])
    assert not torch.equal(found[1], plain[1])


@pytest.mark.parametrize("size", [(96, 64), (192, 128), (50, 40), (94, 61)])
def test_a_hint_of_any_size_is_scaled_to_the_pass(pair: Any, size: tuple[int, int]) -> None:
    flat = Image.new("RGB", size, (200, 30, 90))
    latents = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    seen = SimpleNamespace(inputs=latents, time=500.0)
    found = predicted(pair, seen, Parts(controls=(applied(pair.nets[0], flat),)))
    same = predicted(pair, seen, Parts(controls=(applied(pair.nets[0], flat.resize(SIZE)),)))
    assert (found - same).abs().max() <= 1e-5


def test_a_controlnet_of_another_network_is_refused_by_name(pair: Any) -> None:
    from diffusers import ControlNetModel

    config = {**pair.nets[0].config, "cross_attention_dim": 56}
    with torch.device("meta"):
        wrong = ControlNetModel.from_config(config)
    with pytest.raises(RequestError) as error:
        pair.ours.fit(Parts(controls=(applied(wrong),)))
    (field,) = error.value.fields
    assert field.field == "controls"
    assert field.message.startswith(
        "'net' is for models whose width of the text is 56; the model's is "
    )
    assert pair.ours.fit(Parts(controls=(applied(pair.nets[0]),))) == ()


def test_hints_are_let_go_with_their_request(pair: Any) -> None:
    control = applied(pair.nets[0])
    seen = SimpleNamespace(inputs=torch.zeros(2, 4, 16, 24), time=500.0)
    predicted(pair, seen, Parts(controls=(control,)))
    assert control in pair.ours.controls._read
    before = len(pair.ours.controls._read)
    del control
    import gc

    gc.collect()
    assert len(pair.ours.controls._read) < before


def test_adapters_are_those_of_diffusers(pair: Any) -> None:
    import diffusers

    adapter = random_adapter(pair.plain.unet)
    several = "XL" in pair.kind
    components = {**pair.plain.components, "adapter": adapter}
    if not several:
        del components["image_encoder"]
    kind = getattr(diffusers, f"StableDiffusion{'XL' * several}AdapterPipeline")
    parts = Parts(controls=(applied(adapter, weight=0.7),))
    assert pair.ours.fit(parts) == ()
    seen = noted(
        kind(**components),
        image=picture(*SIZE),
        adapter_conditioning_scale=0.7,
    )
    for each in seen:
        assert (predicted(pair, each, parts) - each.output).abs().max() <= 1e-3
    assert (predicted(pair, seen[0], None) - seen[0].output).abs().max() > 1e-3


def test_an_adapter_runs_once_for_all_steps_and_shares_a_forward(pair: Any) -> None:
    control, net = applied(random_adapter(pair.plain.unet)), applied(pair.nets[0])
    runs: list[int] = []
    control.net.network.register_forward_hook(  # type: ignore[attr-defined]
        lambda *_: runs.append(1)
    )
    rows = [
        None,
        Parts(controls=(control,)),
        Parts(controls=(net, control)),
        Parts(controls=(net,)),
    ]
    latents = torch.randn(4, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    times, cat = torch.full((4,), 500.0), encode(pair.ours, "a cat")
    together = [pair.ours.predict(latents, times, stack([cat] * 4, rows)) for _ in "12"]
    assert torch.equal(*together)
    assert len(runs) == 1
    for row, parts in enumerate(rows):
        at = slice(row, row + 1)
        alone = pair.ours.predict(latents[at], times[at], stack([cat], [parts]))
        assert (together[0][at] - alone).abs().max() <= 1e-5, row


@pytest.mark.parametrize("cells", [(13, 9), (7, 16), (16, 24)])
def test_controlnets_and_adapters_take_latents_of_any_size(
    pair: Any, cells: tuple[int, int]
) -> None:
    controls = (applied(random_adapter(pair.plain.unet, in_channels=1)), applied(pair.nets[0]))
    cat = encode(pair.ours, "a cat")
    latents, times = torch.ones(1, 4, *cells), torch.tensor([500.0])
    plain = pair.ours.predict(latents, times, stack([cat]))
    for control in controls:
        found = pair.ours.predict(latents, times, stack([cat], [Parts(controls=(control,))]))
        assert found.shape == plain.shape
        assert not torch.equal(found, plain)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channels": [16, 64]}, "width of each level is"),
        ({"downscale_factor": 16}, "size of each level's cells is"),
    ],
)
def test_an_adapter_of_another_network_is_refused(
    pair: Any, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        pair.ours.fit(Parts(controls=(applied(random_adapter(pair.plain.unet, **change)),)))
