"""The native wire format, both ways: valid requests, and that nothing is lost."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagine_core import (
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    PhaseEvent,
    ResolvedRequest,
    StepEvent,
)
from imagine_core.engine.validation import check_request
from imagine_core.errors import FieldError, RequestError
from imagine_core.fields import FIELDS, in_core, in_order, on_wire, to_json
from imagine_core.pictures.metadata import meta_of, png_bytes
from imagine_core.settings import Limits
from imagine_core.web.dialect import Finished, Order, Record
from imagine_plugins.dialects.native import lines
from imagine_plugins.dialects.native.wire import read_order

PAGE = Path(__file__).parent.parent.parent / "docs" / "http.md"


def png(colour: str = "red") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def order(**body: Any) -> Order:
    """The order in a body, if a server would take it."""
    found = read_order(json.dumps(body).encode())
    wrong = check_request(ResolvedRequest.of(found.request, {}), Limits(steps=100, images=4))
    errors = {error.field: error for error in (*wrong, *found.errors)}
    if errors:
        raise on_wire(RequestError(in_order(errors.values())))
    return found


def refused(**body: Any) -> dict[str, str]:
    with pytest.raises(RequestError) as caught:
        order(**body)
    return {error.field: error.message for error in caught.value.fields}


def test_a_prompt_is_all_that_is_needed() -> None:
    asked = Order(request=GenerationRequest(prompt="a fox"), details={"progress": False})
    assert order(prompt="a fox") == asked


def test_every_field_reaches_the_request() -> None:
    picture = png()
    asked = order(
        prompt="fox",
        model="dreamshaper_8",
        width=768,
        height=512,
        steps=30,
        guidance=6,
        sampler="Euler A",
        schedule="karras",
        seed="18446744073709551615",
        neg="ugly",
        img=base64.b64encode(picture).decode(),
        strength=0.5,
        clip=2,
        stream=5,
        preview="vae",
        hires=1.5,
        n=3,
        deterministic=True,
        progress=True,
    )
    assert asked.details == {"progress": True}
    assert asked.warnings == ()
    assert asked.request == GenerationRequest(
        prompt="fox",
        model="dreamshaper_8",
        width=768,
        height=512,
        steps=30,
        guidance_scale=6.0,
        sampler="Euler A",
        noise_schedule="karras",
        seed=2**64 - 1,
        negative_prompt="ugly",
        init_image=picture,
        strength=0.5,
        clip_skip=2,
        preview_every=5,
        preview="vae",
        hires_scale=1.5,
        images=3,
        deterministic=True,
    )


@pytest.mark.parametrize("field", ["seed", "stream", "model", "img", "hires"])
def test_null_means_the_default_where_there_is_none_to_name(field: str) -> None:
    assert order(prompt="fox", **{field: None}).request == GenerationRequest(prompt="fox")


CONTROL_NONSENSE: list[dict[str, object]] = [
    {"name": " "},
    {"img": "not base64!"},
    {"weight": -0.1},
    {"weight": 10.1},
    {"start": 2},
    {"end": "1"},
    {"mode": "other"},
    {"preprocessor": ""},
    {"image": "AAAA"},
]
NONSENSE: dict[str, list[Any]] = {
    "prompt": [None, 5, "", "  ", [], "x" * 20_001],
    "model": [5, [], True, "", " "],
    "width": ["512", 512.0, 500, 0, -8, 56, True, 10**30, 4096 * 4096],
    "height": ["512", 512.5, 511, {}, 10**99],
    "steps": ["25", 0, -1, 101, 2.5, False],
    "guidance": ["7", -0.1, True, float("nan"), float("inf"), -float("inf")],
    "distilled_guidance": ["7", -0.1, True, float("nan")],
    "sampler": [5, ["euler"], "", " "],
    "schedule": [None, 5, "", " "],
    "seed": ["", "abc", -2, 2**64, "18446744073709551616", 1.5, True, [], "0x1"],
    "neg": [None, 5, "x" * 20_001],
    "img": ["not base64!", 5, "http://localhost/fox.png", "/etc/passwd"],
    "strength": [None, "0.5", -0.1, 1.1, True, float("nan")],
    "clip": [None, 0, -1, "1", 1.5],
    "stream": [-1, "5", True, 2.5],
    "preview": [None, "slow", 1],
    "hires": ["2", 0.99, 0, -1, 9, 1.4e308, float("inf")],
    "loras": [
        *(None, 5, "ink", [5], [{}], [{"name": ""}], [{"name": "ink", "weights": 1}]),
        *([{"name": "ink", "weight": w}] for w in ("1", True, 101, -101, float("nan"), 10**30)),
        [{"name": "ink", "start": -0.1}],
        [{"name": "ink", "end": 1.1}],
        [{"name": "ink", "blocks": 5}],
        [{"name": "x" * 1001}],
        [{"name": "ink"}] * 33,
    ],
    "keep_size": [None, 1, "true"],
    "hires_upscaler": [None, 5, "", " "],
    "hires_steps": [0, -1, 101, 2.5, "9"],
    "hires_strength": [None, "0.5", -0.1, 1.1, float("nan")],
    "hires_sampler": [5, [], "", " "],
    "subseed": ["", "abc", -2, 2**64, 1.5, True],
    "subseed_strength": [None, "0.5", -0.1, 1.1, float("inf")],
    "mask": ["not base64!", 5, "/etc/passwd"],
    "mask_blur": [None, "4", -1, 257, float("nan")],
    "mask_fill": [None, "fill", 1],
    "mask_invert": [None, 1, "true"],
    "mask_padding": [-1, 2.5, "32", True],
    "extend": [None, 8, [8], [8, 8, 8], [0, 0, 0, 7], [-8, 0, 0, 0], [8, 8, 8, "8"], [0] * 5],
    "controls": [
        *(None, 5, "canny", [5], [{}], [{"name": "canny"}], [{"img": "AAAA"}]),
        *([{"name": "canny", "img": "AAAA", **wrong}] for wrong in CONTROL_NONSENSE),
        [{"name": "canny", "img": "AAAA"}] * 9,
    ],
    "tiling": [None, 1, "z", "yx", []],
    "vae_tiling": [None, 0, "true"],
    "vae": [5, [], True, "", " "],
    "decoder": [None, "taesd", 1],
    "n": [None, 0, 5, "2", 1.0],
    "deterministic": [None, 0, "true"],
    "progress": [None, 1, "true"],
    "original_prompt": [5, [], True, "x" * 20_001],
    "enhance": [5, "", " ", [], 1.0],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in NONSENSE.items() for value in values]
)
def test_nonsense_is_refused_under_the_name_of_its_field(field: str, value: object) -> None:
    errors = refused(**{"prompt": "fox", field: value})
    assert field in errors
    # Width and height are judged together where only their product is wrong.
    assert set(errors) <= {field, "width", "height"}


def test_every_field_has_its_nonsense() -> None:
    assert set(NONSENSE) == {field.wire for field in FIELDS} | {"progress", "enhance"}


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_table() -> None:
    errors = refused(clip=0, seed="x", height=7, width="x", progress=2, guidance=-1)
    assert list(errors) == ["prompt", "width", "height", "guidance", "seed", "clip", "progress"]
    assert errors["prompt"] == "is required: say what to draw"


def test_a_missing_prompt_is_not_covered_up_by_a_default() -> None:
    assert list(refused()) == ["prompt"]


@pytest.mark.parametrize("value", [None, 0, False])
def test_stream_may_say_no_in_three_ways(value: object) -> None:
    asked = order(prompt="fox", stream=value)
    assert not asked.streams
    assert asked.request.preview_every == 0


def test_progress_or_previews_make_a_stream() -> None:
    assert order(prompt="fox", stream=3).streams
    assert order(prompt="fox", progress=True).streams
    assert not order(prompt="fox", progress=False).streams


def test_unknown_keys_are_named_and_ignored() -> None:
    asked = order(prompt="fox", cfg=7, Steps=3)
    assert asked.request == GenerationRequest(prompt="fox")
    assert asked.warnings == ("unknown key 'cfg' was ignored", "unknown key 'Steps' was ignored")


def test_a_thousand_unknown_keys_do_not_make_a_thousand_warnings() -> None:
    warnings = order(prompt="fox", **{f"key{i}" * 50: i for i in range(1000)}).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "980 more unknown keys were ignored"
    assert max(map(len, warnings)) < 150


@pytest.mark.parametrize(
    ("value", "finishes"), [("finish", True), ("cancel", False), (None, False)]
)
def test_a_request_may_ask_to_be_finished_without_its_client(value: object, finishes: bool) -> None:  # noqa: FBT001
    assert order(prompt="fox", on_disconnect=value).finishes is finishes
    assert order(prompt="fox", on_disconnect=value).warnings == ()


@pytest.mark.parametrize(
    ("value", "meant"), [(True, ""), (False, None), (None, None), ("table", "table")]
)
def test_enhance_is_any_enhancer_or_one_by_name(value: object, meant: str | None) -> None:
    assert order(prompt="fox", enhance=value).enhance == meant


names = st.text(min_size=1).filter(str.strip)
requests = st.builds(
    ResolvedRequest,
    prompt=names,
    negative_prompt=st.text(),
    model=st.none() | names,
    width=st.integers(8, 100).map(lambda n: 8 * n),
    height=st.integers(8, 100).map(lambda n: 8 * n),
    steps=st.integers(1, 100),
    guidance_scale=st.floats(0, 1000),
    sampler=names,
    noise_schedule=names,
    seed=st.none() | st.integers(0, 2**64 - 1),
    init_image=st.none() | st.just(png()),
    strength=st.floats(0, 1),
    clip_skip=st.integers(1, 12),
    preview_every=st.integers(0, 100),
    preview=st.sampled_from(["fast", "vae"]),
    hires_scale=st.none() | st.floats(1.01, 2),
    images=st.integers(1, 4),
    deterministic=st.booleans(),
)


@given(requests)
def test_a_request_survives_the_wire(request: ResolvedRequest) -> None:
    assert ResolvedRequest.of(order(**to_json(request)).request, {}) == request


def test_errors_are_renamed_both_ways() -> None:
    error = RequestError([FieldError("init_image", "a"), FieldError("width", "b")])
    there = on_wire(error)
    assert [each.field for each in there.fields] == ["img", "width"]
    assert in_core(there).fields == error.fields


def picture(encoded: str) -> tuple[Image.Image, bytes]:
    data = base64.b64decode(encoded)
    return Image.open(BytesIO(data)), data


def test_events_survive_the_wire() -> None:
    request = ResolvedRequest(prompt="fox", seed=2**63)
    phase = PhaseEvent(phase="queued", position=3)
    step = StepEvent(step=2, steps=5, seed=2**64 - 1, image=1)
    assert lines.read_line(lines.phase_line(phase), request, picture) == phase
    assert lines.read_line(lines.progress_line(step), request, picture) == step
    step = replace(step, model="tiny")
    seen = lines.read_line(lines.intermediate_line(step, png("blue")), request, picture)
    assert isinstance(seen, StepEvent)
    assert (seen.step, seen.seed, seen.image, seen.model) == (2, 2**64 - 1, 1, "tiny")
    assert seen.preview is not None
    assert seen.preview.getpixel((0, 0)) == (0, 0, 255)


def test_a_result_survives_the_wire() -> None:
    ran = ResolvedRequest(prompt="fox", seed=7, model="m", sampler="euler", images=2, width=64)
    result = GenerationResult(
        images=(
            GeneratedImage(image=Image.new("RGB", (64, 64), "red"), seed=7),
            GeneratedImage(image=Image.new("RGB", (64, 64), "blue"), seed=8),
        ),
        request=ran,
        model_hash="0123456789",
        warnings=("two chunks",),
        timings={"denoising": 1.25},
        steps_run=4,
    )
    asked = Order(request=GenerationRequest(prompt="fox", images=2), warnings=("ignored",))
    record = Record(order=asked, keeps=False, request=ran, phase="queued")
    told = png_bytes(Image.new("RGB", (64, 64), "red"), meta_of(ran, seed=7))
    done = Finished(result=result, pngs=(told, png("blue")), seeds=(7, 8))
    line = lines.final_line(done, record)
    back = lines.read_line(json.loads(json.dumps(line)), asked.request, picture)
    assert isinstance(back, GenerationResult)
    assert back.request == ran
    assert [made.seed for made in back.images] == [7, 8]
    assert back.images[1].image.getpixel((0, 0)) == (0, 0, 255)
    assert back.images[1].png == png("blue")
    assert back.steps_run == 4
    assert back.warnings == ("ignored", "two chunks")
    assert (back.model_hash, back.timings) == ("0123456789", {"denoising": 1.25})


def test_a_line_of_a_newer_server_is_passed_over() -> None:
    line = {"status": "dreaming"}
    assert lines.read_line(line, ResolvedRequest(prompt="fox"), picture) is None


def test_the_document_names_every_field() -> None:
    rows = " ".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE))
    for field in FIELDS:
        assert f"`{field.wire}`" in rows
