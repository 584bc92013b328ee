"""Rows of one forward with other LoRAs, or none, are what each is alone with merged weights."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter_files import save
from adapter_rows import KINDS, MadeLora, Used, made_lora, merged_by_hand, of_kind
from checkpoints import TINY_SD1, TINY_SDXL, write_checkpoint
from imagine_core.errors import RequestError
from imagine_core.interfaces import Conditioning
from imagine_core.parts import AppliedLora, Change, Magnitude, Parts
from imagine_core.types import LoraUse
from imagine_plugins.loaders.adapters import rows as rows_module
from imagine_plugins.loaders.adapters.layer_rows import Weighted, layer_rows
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.reading import read_adapter
from reference import load

LIMIT = 1e-5
"""Of the largest value of the output, in float32."""

LAYOUTS = {"sd1": TINY_SD1, "sdxl": TINY_SDXL}


@pytest.fixture(scope="module", params=LAYOUTS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model, what LoRAs may change in it, and the LoRAs that were made for it."""
    return opened(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny SD1."""
    return opened(tmp_path_factory.mktemp("sd1"), "sd1")


def opened(folder: Path, family: str) -> Any:
    model = load(write_checkpoint(folder / "tiny.safetensors", LAYOUTS[family]))
    return SimpleNamespace(model=model, layers=model.rows._layers, folder=folder, made={})


def made(tiny: Any, kind: str, **how: Any) -> MadeLora:
    """A LoRA of a kind for all layers that can have it."""
    key = str((kind, how))
    if key not in tiny.made:
        path = tiny.folder / f"{len(tiny.made)}.safetensors"
        tiny.made[key] = made_lora(path, tiny.layers, of_kind(kind, **how))
    found: MadeLora = tiny.made[key]
    return found


def parts(used: Sequence[Used]) -> Parts:
    return Parts(tuple(each.applied for each in used))


def conditioning(model: Any, rows: int, *, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    config = model.unet.config
    extras = {}
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        extras = {"text_embeds": random(rows, width), "time_ids": random(rows, 6) * 9 + 60}
    return {"context": random(rows, 7, config.cross_attention_dim), "extras": extras}


def predicted(model: Any, rows: Sequence[Parts | None] | int, *, size: int = 16) -> torch.Tensor:
    """What the model predicts for as many rows, each with its parts; a number: without any."""
    count = rows if isinstance(rows, int) else len(rows)
    given = conditioning(model, count)
    parts = () if isinstance(rows, int) else tuple(rows)
    latents = torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(1))
    steps = torch.linspace(900, 10, count)
    found: torch.Tensor = model.predict(latents, steps, Conditioning(**given, parts=parts))
    return found


def by_hand(tiny: Any, used: Sequence[Used], rows: int) -> torch.Tensor:
    """The same of a model with merged weights, for all rows."""
    model = tiny.model
    kept, model.unet = model.unet, merged_by_hand(model.unet, "unet", tiny.layers, used)
    try:
        return predicted(model, rows)
    finally:
        model.unet = kept


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert float((one - other).abs().max()) <= LIMIT * float(other.abs().max())


def check(tiny: Any, rows: Sequence[Sequence[Used]]) -> None:
    """Each row is what it is with merged weights; those of none are as without the others."""
    before = {name: value.clone() for name, value in tiny.model.unet.state_dict().items()}
    base = predicted(tiny.model, len(rows))
    mixed = predicted(tiny.model, [parts(used) if used else None for used in rows])
    assert not hooked(tiny.model.unet)
    for number, used in enumerate(rows):
        if any(each.use.weight for each in used):
            close(mixed[number], by_hand(tiny, used, len(rows))[number])
        else:
            assert torch.equal(mixed[number], base[number])
    after = tiny.model.unet.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert torch.equal(predicted(tiny.model, len(rows)), base)


def hooked(network: Any) -> dict[Any, Any]:
    """The hooks of a network by layer."""
    return {each: dict(each._forward_hooks) for each in network.modules() if each._forward_hooks}


# ---------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_kind_beside_others_are_those_of_merged_weights(tiny: Any, kind: str) -> None:
    one, other = made(tiny, kind), made(tiny, "LoRA", rank=3, seed=500)
    check(tiny, [[one.used(0.1)], [], [other.used(0.2)], [one.used(0.1)], [one.used(-0.07)]])
    moved = predicted(tiny.model, [parts([one.used(0.1)])]) - predicted(tiny.model, 1)
    assert moved.abs().max() > 100 * LIMIT


def test_several_of_all_kinds_in_a_row_add_up(tiny: Any) -> None:
    several = [
        made(tiny, "all").used(0.05),
        made(tiny, "LoRA, DoRA in", seed=100).used(-0.04),
        made(tiny, "full, DoRA out", seed=200).used(0.05),
        made(tiny, "norm", seed=300).used(0.1),
        made(tiny, "LoRA", rank=5, seed=400).used(0.1),
    ]
    check(tiny, [several, [], several[::-1], several[:2], several[3:]])


@pytest.mark.parametrize(
    "text", ["1,0,0.5,1,-1,0.3,1,0,1,0.5,1,1", "0," * 25 + "1", "INALL", "1" + ",0" * 19]
)
def test_weights_by_block_count(tiny: Any, text: str) -> None:
    one = made(tiny, "LoRA").used(0.3, blocks=text)
    check(tiny, [[one], [], [made(tiny, "LoRA").used(0.3)]])


def test_a_strength_of_nothing_leaves_rows_as_they_are_bit_for_bit(tiny: Any) -> None:
    none = made(tiny, "all").used(0.0, text_weight=1.0)
    check(tiny, [[none], [none, none], [made(tiny, "all").used(0.1)]])
    nowhere = made(tiny, "LoRA").used(1.0, blocks="0" + ",0" * 25)
    rows = predicted(tiny.model, [parts([nowhere])])
    outside = {"unet.time_embedding.linear_1", "unet.conv_out"}  # in no block
    assert outside <= set(nowhere.made.made)
    assert not torch.equal(rows, predicted(tiny.model, 1))


def test_a_row_alone_is_close_to_itself_in_a_mixture(tiny: Any) -> None:
    several = [[made(tiny, "all").used(0.1)], [made(tiny, "LoRA").used()], []]
    mixed = predicted(tiny.model, [parts(used) for used in several])
    same = [parts(several[0])] * 3
    close(predicted(tiny.model, same)[0], mixed[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    """DoRA of the weight's own lengths and no difference: all scales are one."""
    layer = torch.nn.Linear(64, 32).to(dtype).requires_grad_(requires_grad=False)
    lengths = torch.linalg.vector_norm(layer.weight.double(), dim=1) * 1.001
    change = Change(magnitude=Magnitude(lengths, "out"))
    x = torch.randn(4, 64).to(dtype)
    out = layer(x)
    keep = layer_rows(layer, [Weighted(change, 100.0)])
    keep(layer, x, out)
    wanted = 1.1 * (x.float() @ layer.weight.float().T) + layer.bias.float()
    assert (out.float() - wanted).abs().max() <= 0.02 * wanted.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_take_rows_in_any_layout_of_memory(sd1: Any, layout: Any) -> None:
    used = [made(sd1, "all").used(0.1)]
    wanted = predicted(sd1.model, [None, parts(used), None])
    sd1.model.unet.to(memory_format=layout)
    try:
        close(predicted(sd1.model, [None, parts(used), None]), wanted)
    finally:
        sd1.model.unet.to(memory_format=torch.contiguous_format)


# -------------------------------------------------------------------------------------- failures


@pytest.fixture
def failing(sd1: Any) -> Iterator[Any]:
    """Makes the k-th layer that a forward of the UNet computes fail."""
    state = SimpleNamespace(calls=0, fail_at=None)

    def count(*_: object) -> None:
        state.calls += 1
        if state.calls == state.fail_at:
            raise RuntimeError("no memory")

    layers = [module for module in sd1.model.unet.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    yield state
    for hook in hooks:
        hook.remove()


def test_a_failure_at_any_layer_leaves_the_model_as_it_was(sd1: Any, failing: Any) -> None:
    before = {name: value.clone() for name, value in sd1.model.unet.state_dict().items()}
    own = hooked(sd1.model.unet)
    base = predicted(sd1.model, 3, size=8)
    layers, used = failing.calls, [made(sd1, "all").used(0.5)]
    assert layers > 100
    rows = [parts(used), None, parts([made(sd1, "LoRA").used()])]
    for number in range(1, layers + 1):
        failing.calls, failing.fail_at = 0, number
        with pytest.raises(RuntimeError, match="no memory"):
            predicted(sd1.model, rows, size=8)
        assert hooked(sd1.model.unet) == own
    failing.fail_at = None
    after = sd1.model.unet.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert torch.equal(predicted(sd1.model, 3, size=8), base)


def test_a_failure_while_hooks_are_set_leaves_none(
    sd1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [parts([made(sd1, "LoRA").used()]), None]
    predicted(sd1.model, rows)
    register, calls = torch.nn.Module.register_forward_hook, []

    def refuse(module: Any, *given: Any, **how: Any) -> Any:
        calls.append(module)
        if len(calls) == 9:
            raise MemoryError
        return register(module, *given, **how)

    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", refuse)
    with pytest.raises(MemoryError):
        predicted(sd1.model, rows)
    assert not hooked(sd1.model.unet)


# ------------------------------------------------------------------------------ random mixtures


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([*KINDS, "nothing"]),
                st.integers(1, 4),
                st.sampled_from([0.0, 1.0, -1.0, 0.4]),
            ),
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([None, 0.5, 4.0]),
)
def test_any_mixture_of_rows_is_what_each_row_is_alone(
    sd1: Any, drawn: list[list[tuple[str, int, float]]], alpha: float | None
) -> None:
    rows = [
        [
            made(sd1, kind, rank=rank, alpha=alpha, seed=rank).used(weight * 0.1)
            for kind, rank, weight in row
            if kind != "nothing"
        ]
        for row in drawn
    ]
    check(sd1, rows)


# --------------------------------------------------------------------------------------- prompts


def encoded(model: Any, parts: Parts | None = None, *, clip_skip: int = 1) -> Any:
    return model.encode_prompt(
        "a (red:1.2) fox", clip_skip=clip_skip, width=64, height=64, parts=parts
    )


def with_merged_texts(tiny: Any, used: Sequence[Used], clip_skip: int) -> Any:
    encoders = {"text_encoder": tiny.model.text, "text_encoder_2": getattr(tiny.model, "second", 0)}
    kept = {name: each.model for name, each in encoders.items() if each}
    for name, network in kept.items():
        encoders[name]._cache.clear()
        encoders[name].model = merged_by_hand(network, name, tiny.layers, used)
    try:
        return encoded(tiny.model, clip_skip=clip_skip)
    finally:
        for name, network in kept.items():
            encoders[name].model = network
            encoders[name]._cache.clear()


@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("kind", ["LoRA", "full", "norm", "all", "LoHa", "LoRA, DoRA in"])
def test_prompts_are_encoded_as_with_merged_text_encoders(
    tiny: Any, kind: str, clip_skip: int
) -> None:
    used = [made(tiny, kind).used(5.0, text_weight=0.1), made(tiny, "LoRA", seed=9).used(0.1)]
    wanted = with_merged_texts(tiny, used, clip_skip)
    base = encoded(tiny.model, clip_skip=clip_skip)
    hooks = [hooked(encoder.model) for encoder in texts(tiny.model)]  # transformers has its own
    found = encoded(tiny.model, parts(used), clip_skip=clip_skip)
    close(found.context, wanted.context)
    assert (found.context - base.context).abs().max() > 100 * LIMIT
    for name in found.extras:
        close(found.extras[name], wanted.extras[name])
    assert hooks == [hooked(encoder.model) for encoder in texts(tiny.model)]
    for encoder in texts(tiny.model):
        encoder._cache.clear()
    assert torch.equal(encoded(tiny.model, clip_skip=clip_skip).context, base.context)


def texts(model: Any) -> list[Any]:
    return [model.text, *([model.second] if hasattr(model, "second") else [])]


def test_prompts_are_remembered_by_what_acts_on_the_text_encoders(sd1: Any) -> None:
    lora = made(sd1, "LoRA")
    sd1.model.text._cache.clear()
    base = encoded(sd1.model)
    some = encoded(sd1.model, parts([lora.used(1.0, text_weight=0.5)]))
    again = encoded(sd1.model, parts([lora.used(0.2, text_weight=0.5)]))
    more = encoded(sd1.model, parts([lora.used(0.5)]))
    twice = encoded(sd1.model, parts([lora.used(0.25), lora.used(0.25)]))
    assert again.context is some.context is more.context is twice.context
    for other in (
        [lora.used(0.6)],
        [lora.used(0.5, blocks="0.5" + ",1" * 16)],
        [made(sd1, "LoRA", seed=9).used(0.5)],
    ):
        assert not torch.equal(encoded(sd1.model, parts(other)).context, some.context)
    for none in ([lora.used(1.0, text_weight=0.0)], [made(sd1, "Tucker").used(1.0)]):
        assert encoded(sd1.model, parts(none)).context is base.context


# ------------------------------------------------------------------------------- what is prepared


def test_equal_requests_share_what_is_prepared_and_it_ends_with_them(sd1: Any) -> None:
    lora, rows = made(sd1, "LoRA"), sd1.model.rows
    one, two = parts([lora.used(0.5)]), parts([lora.used(0.5)])
    prepared = rows.prepare("unet", one)
    assert rows.prepare("unet", two) is prepared
    assert rows.prepare("unet", parts([lora.used(0.6)])) is not prepared
    ended = weakref.ref(prepared)
    del prepared, one
    gc.collect()
    assert ended() is not None
    del two
    gc.collect()
    assert ended() is None


def test_a_model_keeps_no_lora_in_memory(sd1: Any) -> None:
    path = sd1.folder / "short.safetensors"
    short = made_lora(path, sd1.layers, of_kind("LoRA", seed=77))
    used = parts([short.used(0.5)])
    sd1.model.fit(used)
    encoded(sd1.model, used)
    predicted(sd1.model, [used, used.at(0.5)])
    ended = weakref.ref(short.lora)
    gc.disable()
    try:
        del short, used
        assert ended() is None
    finally:
        gc.enable()


def test_the_unet_is_prepared_with_the_prompt(sd1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails then fails one request alone."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(rows_module, "layer_rows", refuse)
    with pytest.raises(RuntimeError, match="no memory"):
        encoded(sd1.model, parts([made(sd1, "Tucker").used(0.123)]))


# --------------------------------------------------------------------------------- what is refused


def opened_lora(path: Path, tensors: dict[str, torch.Tensor], **how: Any) -> AppliedLora:
    lora = LoraFile(path.stem, read_adapter(save(path, tensors)))
    return AppliedLora(lora, LoraUse(name=path.stem, **how))


def test_what_does_not_fit_and_what_cannot_be_read_is_refused_by_name(
    sd1: Any, tmp_path: Path
) -> None:
    change = {"lora_unet_conv_in.diff": torch.zeros(16, 4, 3, 3)}
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(4, 64)}
    fine = opened_lora(tmp_path / "Fine.safetensors", change)
    mine = opened_lora(tmp_path / "Mine.safetensors", change, blocks="1,2")
    other = opened_lora(tmp_path / "Other.safetensors", flux)
    with pytest.raises(RequestError) as error:
        sd1.model.fit(Parts((fine, mine, other)))
    one, two = error.value.fields
    assert (one.field, two.field) == ("loras", "loras")
    assert one.message.startswith("LoRA 'Mine': weights of blocks are 12, 17, 20, 26 numbers")
    assert two.message == "LoRA 'Other': Other.safetensors is for Flux, and this model is sd"
    assert sd1.model.fit(Parts((fine,))) == ()


def test_what_is_left_out_of_a_lora_is_said_with_its_name(sd1: Any, tmp_path: Path) -> None:
    tensors = {"lora_unet_conv_in.diff": torch.zeros(16, 4, 3, 3), "odd": torch.zeros(1)}
    lora = opened_lora(tmp_path / "a.safetensors", tensors)
    (warning,) = sd1.model.fit(Parts((lora,)))
    assert warning == "LoRA 'a': odd left out: no such tensor is known"


# ------------------------------------------------------------------------------------------ words


def test_embeddings_that_come_with_a_lora_are_words_while_it_acts(
    tiny: Any, tmp_path: Path
) -> None:
    def encode(parts: Parts | None) -> torch.Tensor:
        found: torch.Tensor = tiny.model.encode_prompt(
            "a sks fox", clip_skip=1, width=64, height=64, parts=parts
        ).context
        return found

    widths = [encoder.model.config.hidden_size for encoder in texts(tiny.model)]
    tensors = {
        f"bundle_emb.sks.{name}": torch.randn(2, width)
        for name, width in zip(("clip_l", "clip_g"), widths, strict=False)
    }
    lora = opened_lora(tmp_path / "a.safetensors", tensors)
    base = encode(None)
    bundled = Parts((lora,))
    vectors = lora.lora.fit(tiny.layers).words["sks"]
    alone = Parts((), {"sks": SimpleNamespace(vectors=vectors, hash=None, close=id)})
    assert torch.equal(encode(bundled), encode(alone))
    assert not torch.equal(encode(bundled), base)
    assert torch.equal(
        encode(Parts((AppliedLora(lora.lora, LoraUse(name="a", weight=0.0)),))), base
    )
    own = SimpleNamespace(vectors={k: v + 1 for k, v in vectors.items()}, hash=None, close=id)
    assert torch.equal(encode(Parts((lora,), {"sks": own})), encode(Parts((), {"sks": own})))
