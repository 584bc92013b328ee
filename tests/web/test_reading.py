"""Keys that every dialect reads alike, from JSON and from forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from imagine_core import ResolvedRequest
from imagine_core.engine.passes import total_steps
from imagine_core.errors import FieldError, MalformedBody
from imagine_core.fields import FIELDS
from imagine_core.service import Service
from imagine_core.settings import ServerSettings, Settings
from imagine_core.strict_json import integer
from imagine_core.testing import build_test_engine
from imagine_core.web.forms import Part
from imagine_core.web.reading import (
    MOST_WARNINGS,
    ignored,
    known_model,
    preview_interval,
    read_extras,
    read_fields,
    take,
)

FORM = "multipart/form-data; boundary=b"


def request_of(content_type: str | None) -> Request:
    given = [] if content_type is None else [(b"content-type", content_type.encode())]
    return Request({"type": "http", "headers": given})


def form(*fields: tuple[str, str]) -> bytes:
    head = "--b\r\nContent-Disposition: form-data; name="
    written = [f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return "".join([*written, "--b--\r\n"]).encode()


def fields(*given: tuple[str, str], **options: Any) -> dict[str, Any]:
    read, files = read_fields(form(*given), request_of(FORM), **options)
    assert files == []
    return read


# -- fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "image/png"])
def test_a_body_that_is_no_form_is_json_whatever_it_is_called(content_type: str | None) -> None:
    body = json.dumps({"prompt": "red", "steps": "4"}).encode()
    read = read_fields(body, request_of(content_type), typed=["other"])
    assert read == ({"prompt": "red", "steps": "4"}, [])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "20", 20),
        ("width", "-512", -512),
        ("guidance_scale", "7", 7),
        ("guidance", "7.5", 7.5),
        ("strength", "1e-1", 0.1),
        ("clip_skip", "2", 2),
        ("clip", "2", 2),
        ("preview_every", "5", 5),
        ("images", "3", 3),
        ("n", "3", 3),
        ("deterministic", "true", True),
        ("deterministic", "False", False),
        ("steps", "many", "many"),
        ("steps", "", None),
        ("steps", " 20\n", 20),
        ("steps", "9" * 101, float("9" * 101)),
        ("seed", "18446744073709551615", "18446744073709551615"),
        ("prompt", "1984", "1984"),
        ("prompt", "true", "true"),
        ("neg", "0.5", "0.5"),
        ("model", "15", "15"),
        ("unknown", "1", "1"),
    ],
)
def test_of_a_form_numbers_are_read_where_the_field_is_one(
    name: str, text: str, value: object
) -> None:
    (read,) = fields((name, text)).values()
    assert (type(read), read) == (type(value), value)


def test_a_dialect_says_which_of_its_own_fields_are_numbers() -> None:
    given = (("stream", "true"), ("user", "1"))
    assert fields(*given, typed=["stream"]) == {"stream": True, "user": "1"}


def test_every_field_of_a_form_is_read_by_its_kind() -> None:
    for field in FIELDS:
        if field.default is None or isinstance(field.default, str):
            continue
        for name in (field.name, field.wire):
            read = fields((name, json.dumps(field.default)))[name]
            assert field.kind.read(read) == field.default, name


def test_of_a_name_that_a_form_has_twice_the_last_counts() -> None:
    assert fields(("steps", "1"), ("steps", "2")) == {"steps": 2}


def test_files_of_a_form_come_beside_its_fields() -> None:
    file = b'--b\r\nContent-Disposition: form-data; name="image"; filename="1"\r\n\r\n\x89\r\n'
    read = read_fields(file + form(("n", "1")), request_of("Multipart/Form-Data; boundary=b"))
    assert read == ({"n": 1}, [Part("image", b"\x89", is_file=True)])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"{}", FORM),
        (b"{}", "multipart/mixed; boundary=b"),
        (b"--b\r\n", FORM),
        (form(("prompt", "?")).replace(b"?", b"\xff"), FORM),
    ],
)
def test_what_is_neither_json_nor_a_form_is_malformed(body: bytes, content_type: str) -> None:
    with pytest.raises(MalformedBody):
        read_fields(body, request_of(content_type))


# -- keys beside the fields ------------------------------------------------------------------------


def test_a_key_is_taken_out_and_its_error_has_its_name() -> None:
    given, errors = {"n": 3, "m": "3"}, list[FieldError]()
    assert take(given, "n", integer, errors) == 3
    assert take(given, "absent", integer, errors) is None
    assert errors == []
    assert take(given, "m", integer, errors) is None
    assert errors == [FieldError("m", "must be a whole number, not a string")]
    assert given == {}


@pytest.mark.parametrize(
    ("given", "enhance", "finishes"),
    [
        ({}, None, False),
        ({"enhance": True, "on_disconnect": "finish"}, "", True),
        ({"enhance": "table", "on_disconnect": "cancel"}, "table", False),
        ({"enhance": None, "on_disconnect": None}, None, False),
    ],
)
def test_extras_are_what_an_order_takes(
    given: dict[str, Any],
    enhance: str | None,
    finishes: bool,  # noqa: FBT001
) -> None:
    read = read_extras(given, [], keeps=True)
    assert read == {"enhance": enhance, "finishes": finishes, "warnings": ()}


def test_extras_that_cannot_be_read_are_errors() -> None:
    errors: list[FieldError] = []
    read = read_extras({"enhance": 1, "on_disconnect": "stay"}, errors, keeps=True)
    assert read == {"enhance": None, "finishes": False, "warnings": ()}
    assert [error.field for error in errors] == ["enhance", "on_disconnect"]


def test_what_is_left_of_a_body_is_named_in_a_warning() -> None:
    read = read_extras({"a": 1, "enhance": True, "b" * 200: 2}, [], keeps=True)
    assert read["warnings"] == (
        "unknown key 'a' was ignored",
        f"unknown key '{'b' * 100}' was ignored",
    )
    many = list(ignored(dict.fromkeys(map(str, range(MOST_WARNINGS + 7)))))
    assert len(many) == MOST_WARNINGS + 1
    assert many[-1] == "7 more unknown keys were ignored"


def test_a_server_that_keeps_nothing_says_so_to_a_client_that_wants_it() -> None:
    asked = {"on_disconnect": "finish"}
    (warning,) = read_extras(asked, [], keeps=False)["warnings"]
    assert warning == "this server keeps no results: on_disconnect 'finish' was ignored"
    assert read_extras({"on_disconnect": "cancel"}, [], keeps=False)["warnings"] == ()


# -- models ----------------------------------------------------------------------------------------


def service_over(folder: Path, *names: str, default: str | None = None) -> Service:
    folder.mkdir()
    for name in (*names, "notes.txt"):
        (folder / name).write_bytes(b"fake")
    engine = build_test_engine(folder, settings=Settings(models=folder, default_model=default))
    return Service(engine=engine, plugins=engine.plugins, settings=ServerSettings())


def test_a_known_model_is_meant_and_of_others_the_default_draws(tmp_path: Path) -> None:
    service = service_over(tmp_path / "models", "tiny.fake")
    assert known_model("TINY", service) == ("tiny", "")
    remark = "there is no model 'dall-e-3' here: 'tiny' draws instead"
    assert known_model("dall-e-3", service) == (None, remark)
    assert len(known_model("x" * 10_000, service)[1]) < 200


def test_without_a_default_model_nothing_is_promised(tmp_path: Path) -> None:
    service = service_over(tmp_path / "models", "tiny.fake", default="gone")
    assert known_model("dall-e-3", service) == (None, "")


# -- previews --------------------------------------------------------------------------------------


def previews(request: ResolvedRequest, every: int) -> int:
    """Previews of a request before its last step."""
    return len(range(every, total_steps(request), every))


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("strength", [None, 0.0, 0.05, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("hires", [None, 1.5])
def test_there_are_at_most_so_many_previews_and_no_fewer_than_fit(
    most: int, strength: float | None, hires: float | None
) -> None:
    start: dict[str, Any] = {} if strength is None else {"init_image": b"", "strength": strength}
    for steps in range(1, 61):
        request = ResolvedRequest(prompt="red", steps=steps, hires_scale=hires, **start)
        every = preview_interval(request, most)
        assert previews(request, every) <= most
        assert every == 1 or previews(request, every - 1) > most


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -5},
        {"steps": 10**100},
        {"init_image": b"", "strength": -1e308},
        {"init_image": b"", "strength": 1e308},
        {"hires_scale": 1e308},
    ],
)
def test_a_request_that_will_be_refused_has_an_interval_too(wrong: dict[str, Any]) -> None:
    assert preview_interval(ResolvedRequest(prompt="red", **wrong), 3) >= 1
