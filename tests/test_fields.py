"""The table of fields is the only source: every other list must match it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest

from imagine_core import GenerationRequest, ResolvedRequest
from imagine_core.errors import FieldError, RequestError
from imagine_core.fields import (
    DEFAULTS,
    FIELDS,
    Field,
    from_json,
    idle,
    noted,
    renamed,
    to_json,
)
from imagine_core.pictures.infotext import read_infotext, write_infotext
from imagine_core.settings import Limits
from imagine_core.types import USUAL, ControlUse, LoraUse
from imagine_plugins.commands.run import run

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "ui" / "js" / "parameters.js"

FULL = ResolvedRequest(
    prompt="a fox",
    negative_prompt="ugly",
    model="dreamshaper_8",
    width=640,
    height=768,
    steps=7,
    guidance_scale=2.5,
    distilled_guidance=3.5,
    sampler="heun",
    noise_schedule="karras",
    seed=2**64 - 1,
    init_image=b"picture",
    strength=0.5,
    clip_skip=2,
    preview_every=3,
    preview="vae",
    hires_scale=2.0,
    hires_keeps=True,
    hires_upscaler="nearest",
    hires_steps=9,
    hires_strength=0.4,
    hires_sampler="euler",
    subseed=7,
    subseed_strength=0.25,
    mask=b"mask",
    mask_blur=6.0,
    mask_fill="average",
    mask_invert=True,
    mask_padding=16,
    extend=(0, 8, 16, 24),
    controls=(
        ControlUse(
            name="edges",
            image=b"hint",
            weight=0.7,
            start=0.1,
            end=0.8,
            mode="prompt",
            preprocessor="canny",
        ),
    ),
    tiling="x",
    vae_tiling=True,
    images=3,
    deterministic=True,
    loras=(LoraUse(name="ink", weight=0.8, text_weight=0.5, start=0.1, end=0.9, blocks="OUTD"),),
    vae="mse",
    decoder="fast",
    original_prompt="fox",
)
"""A request with nothing left at its default."""

OTHERWISE = {"address", "api_key", "output", "meta", "again", "enhance", "enhancer", "quiet"} | {
    *("models", "device", "full_prec", "offline", "prompt")
}
"""Parameters of `imagine run` that say how, not what."""

NOT_ON_THE_PAGE = {"img", "mask", "n"}
"""The page keeps pictures elsewhere, and asks for variations one by one."""


def test_every_field_of_a_request_has_one_row() -> None:
    assert sorted(field.name for field in FIELDS) == sorted(
        each.name for each in fields(GenerationRequest)
    )
    assert len({field.wire for field in FIELDS}) == len(FIELDS)
    flags = [flag for field in FIELDS for flag in field.flags]
    assert len(set(flags)) == len(flags)


def test_every_field_is_used_by_the_engine() -> None:
    engine = (ROOT / "imagine_core" / "engine").glob("*.py")
    code = "".join(path.read_text("utf-8") for path in engine)
    unused = [field.name for field in FIELDS if not re.search(rf"\.{field.name}\b", code)]
    assert unused == ["original_prompt"]  # it is noted, and nothing else


def test_the_full_request_of_these_tests_has_no_default() -> None:
    assert [field.name for field in FIELDS if getattr(FULL, field.name) == field.default] == []


def test_every_field_crosses_json_and_comes_back() -> None:
    given = json.loads(json.dumps(to_json(FULL)))
    assert set(given) == {field.wire for field in FIELDS}
    request, errors = from_json(given)
    assert (ResolvedRequest.of(request, {}), errors) == (FULL, [])
    assert given == {}


def test_a_request_of_nothing_but_a_prompt_is_written_as_that() -> None:
    assert to_json(GenerationRequest(prompt="a fox")) == {"prompt": "a fox"}


def test_what_cannot_be_read_is_told_and_leaves_the_default() -> None:
    request, errors = from_json({"prompt": 5, "steps": "7", "width": 64, "other": 1})
    assert [error.field for error in errors] == ["prompt", "steps"]
    assert request == GenerationRequest(prompt="-", width=64)
    assert from_json({})[1] == [FieldError("prompt", "is required: say what to draw")]


@pytest.mark.parametrize("field", [f for f in FIELDS if f.needs], ids=lambda field: field.wire)
def test_a_field_is_idle_until_one_that_it_needs_is_there(field: Field) -> None:
    alone = GenerationRequest(prompt="a fox", **{field.name: getattr(FULL, field.name)})
    assert list(idle(alone)) == [field]
    for name in field.needs:
        assert field not in idle(replace(alone, **{name: getattr(FULL, name)}))
    assert list(idle(replace(alone, **{field.name: field.default}))) == []


def test_errors_have_the_names_of_their_dialect_and_keep_those_that_it_lacks() -> None:
    error = RequestError([FieldError("images", "a"), FieldError("steps", "b")])
    assert renamed(error, {"images": "n"}).fields == (
        FieldError("n", "a"),
        FieldError("steps", "b"),
    )
    assert [each.field for each in error.fields] == ["images", "steps"]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.wire)
def test_metadata_notes_a_field_as_its_row_says(field: Field) -> None:
    plain = ResolvedRequest(prompt="a fox")
    changed = replace(plain, **{field.name: getattr(FULL, field.name)})
    assert (field.wire in noted(plain)) == (field.noted == "always")
    assert (field.wire in noted(changed)) == (field.noted != "never")
    if field.noted != "never":
        assert noted(changed)[field.wire] == field.kind.write(getattr(FULL, field.name))


@pytest.mark.parametrize("field", [f for f in FIELDS if f.infotext], ids=lambda field: field.wire)
def test_infotext_has_a_field_under_its_label_and_reads_it_back(field: Field) -> None:
    written = write_infotext(FULL, seed=5, sampler_label="Heun", model_hash=None, version="1")
    assert f"{field.infotext}: " in written
    back = read_infotext(written)
    assert back is not None
    expected = {"seed": "5"}.get(field.wire, field.kind.write(getattr(FULL, field.name)))
    assert back[field.wire] == expected


def test_the_command_line_has_the_flags_of_the_table_and_their_defaults() -> None:
    options: dict[str, Any] = {str(each.name): each for each in run.params}
    of_fields = {field.parameter: field for field in FIELDS if field.flags}
    assert set(options) == set(of_fields) | OTHERWISE
    for name, field in of_fields.items():
        option = options[name]
        assert isinstance(option, click.Option)
        assert set(option.opts) == set(field.flags)
        if name != "neg":  # the readme has a default there that the wire has not
            assert option.default == field.default or not option.default


def test_the_page_has_the_parameters_of_the_table_and_their_defaults() -> None:
    listed = re.search(r"const PARAMETERS = \{(.*?)\n  \};", SCRIPT.read_text(), re.DOTALL)
    assert listed is not None
    rows = dict(re.findall(r"^ +(\w+): +(.+),$", listed[1], re.MULTILINE))
    assert set(rows) == {field.wire for field in FIELDS} - NOT_ON_THE_PAGE
    for field in FIELDS:
        kind = re.match(r"(number|text)\('?([^',)]*)", rows.get(field.wire, ""))
        default = USUAL.get(field.name, field.default)
        if kind is not None and default is not None:
            assert type(default)(kind[2]) == default, field.wire


def test_every_default_is_what_the_server_accepts() -> None:
    for field in FIELDS:
        if field.name != "prompt":
            default = USUAL.get(field.name, DEFAULTS[field.name])
            assert default is None or field.kind.problem(default, Limits()) is None
