"""ControlNets in rows of forwards, against diffusers' ControlNet pipelines, in float32."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, write_checkpoint
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


def random_net(unet: Any, seed: int, **options: Any) -> Any:
    """A ControlNet of a UNet whose zero convolutions are not zero: else nothing would be shown."""
    from diffusers import ControlNetModel

    strides = {4: (8, 8, 16), 8: (8, 8, 16, 16)}[options.pop("downsampling", 4)]
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=strides, **options)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond")):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return net.eval().requires_grad_(requires_grad=False)


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


def test_residuals_weaken_outwards_where_the_prompt_or_the_controlnet_is_more_important(
    pair: Any,
) -> None:
    assert softer(13) == pytest.approx([0.825 ** (12 - place) for place in range(13)])
    assert softer(10) == pytest.approx([0.825 ** (12 - place) for place in range(10)])  # SDXL's
    assert softer(5) == pytest.approx([0.825**4, 0.825**3, 0.825**2, 0.825, 1])
    net = loaded_net(pair.nets[0])
    plain, weak = (
        steered(pair.ours, applied(net, weight=2.0, mode=mode)) for mode in ("balanced", "prompt")
    )
    factors = softer(len(plain))
    for one, other, factor in zip(plain, weak, factors, strict=True):
        assert torch.allclose(one * factor, other, atol=1e-5)
        assert other.abs().max() > 0


def steered(model: Any, control: AppliedControl) -> list[torch.Tensor]:
    """What is added to the UNet, the deepest residual last."""
    cat = encode(model, "a cat")
    with torch.no_grad():
        found = model.controls.residuals(
            torch.ones(1, 4, 16, 24),
            torch.tensor([500.0]),
            cat.context,
            cat.extras,
            [Parts(controls=(control,))],
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

    if "XL" in pair.kind:
        pytest.skip("its pipeline takes the same path with other blocks")
    unet = pair.plain.unet
    torch.manual_seed(0)
    adapter = diffusers.T2IAdapter(
        in_channels=3,
        channels=list(unet.config.block_out_channels),
        num_res_blocks=1,
        downscale_factor=4,
        adapter_type="full_adapter",
    ).eval()
    components = {**pair.plain.components, "adapter": adapter}
    del components["image_encoder"]
    pipe = diffusers.StableDiffusionAdapterPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    seen: list[Any] = []
    hook = pipe.unet.register_forward_hook(
        lambda _, args, __, output: seen.append(
            SimpleNamespace(inputs=args[0], time=args[1], output=output[0])
        ),
        with_kwargs=True,
    )
    pipe(
        prompt="a red cat",
        negative_prompt="grey",
        image=picture(*SIZE),
        width=SIZE[0],
        height=SIZE[1],
        num_inference_steps=2,
        guidance_scale=5.0,
        adapter_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    )
    hook.remove()
    parts = Parts(controls=(applied(adapter, weight=0.7),))
    for each in seen:
        assert (predicted(pair, each, parts) - each.output).abs().max() <= 1e-3
