"""The OpenAPI document is true: schemathesis holds a live server to it.

Generated requests also get what a schema cannot express: names that the server knows, valid
pictures, and sizes with a product within the limit.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from calls import SMALL, app_of, live
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import build_test_engine
from imagine_plugins.dialects.native.operations import OPERATIONS

KEY = "a-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
LIMITS = Limits(steps=30, images=2, pixels=512 * 512, prompt=200)

EXAMPLES = 40
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),  # generating is slow where the machine is busy
)

Json = dict[str, Any]


class Server:
    """A live server that wants a key, its document, and an id that it knows."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.document: Json = httpx.get(f"{url}/openapi.json", headers=HEADERS).json()
        kept = {**SMALL, "on_disconnect": "finish"}
        self.id = httpx.post(f"{url}/generate", headers=HEADERS, json=kept).json()["id"]

    def check_lines(self, text: str, *, path: str) -> None:
        """Hold each line of a stream to the schema that the document has for it."""
        answers = self.document["paths"][path]["post"]["responses"]["200"]["content"]
        line = answers["application/x-ndjson"]["schema"]
        whole = {**line, "components": closed(self.document)["components"]}
        validator = jsonschema_rs.validator_for(whole)
        lines = [json.loads(each) for each in text.splitlines()]
        for each in lines:
            validator.validate(each)
        assert lines[-1]["status"] == "final"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    parts = ("vae/fast.fake", "loras/ink.fake", "embeddings/bad.fake", "controlnet/edges.fake")
    for name in ("tiny.fake", *parts):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    engine = build_test_engine(folder, settings=Settings(models=folder, limits=LIMITS))
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key=KEY))
    with live(app, on_stop=partial(engine.close, grace=0)) as url:
        yield Server(url)


def closed(document: Json) -> Json:
    """The document with nothing more in any object than what it names.

    So that generated requests have our fields and not only strangers', and answers have no key that
    the document does not tell.
    """

    def close(value: Any) -> Any:
        if isinstance(value, list):
            return [close(each) for each in value]
        if not isinstance(value, dict):
            return value
        inner = {key: close(each) for key, each in value.items()}
        whole = "properties" in value and "additionalProperties" not in value
        return {**inner, "additionalProperties": False} if whole else inner

    return {**document, "components": close(document["components"])}


def picture() -> str:
    """A small one, in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


KNOWN = {
    "model": "tiny",
    "sampler": "Test Euler",
    "schedule": "default",
    "enhancer": "table",
    "enhance": "table",
    "img": picture(),
    "image": picture(),
    "init_images": [picture()],
    "mask": picture(),
    "upscaler": "lanczos",
    "hires_upscaler": "lanczos",
    "hires_sampler": "Test Euler",
    "preprocessor": "canny",
    "upscaler_1": "Lanczos",
    "upscaler_2": "None",
    "imageList": [{"data": picture(), "name": "a.png"}],
    "controlnet_module": "canny",
    "controlnet_input_images": [picture()],
}
"""Stands for strings that a schema takes and this server cannot know."""


def known(body: Any, *, path: str) -> Any:
    """`body` with names and pictures that there are."""
    if not isinstance(body, dict):
        return body
    body = {key: KNOWN[key] if is_name(key, value) else value for key, value in body.items()}
    if isinstance(body.get("alwayson_scripts"), dict) and "img2img" in path:
        body["alwayson_scripts"] = {"controlnet": {"args": [{"model": "edges"}]}}
    elif "alwayson_scripts" in body:
        del body["alwayson_scripts"]
    if path == "/enhance" and is_name("model", body.get("model")):
        del body["model"]  # a language model, which this server lacks
    return body


def is_name(key: str, value: object) -> bool:
    named = isinstance(value, str) and bool(value.strip())
    return key in KNOWN and (named or isinstance(value, list))


def within(body: Any) -> Any:
    """`body` within the bounds that a schema cannot state."""
    if not isinstance(body, dict):
        return body
    # 4.0 is an integer to JSON Schema, and none to us.
    body = {key: int(value) if whole(value) else value for key, value in body.items()}
    body |= with_pictures(body)
    if body.get("hires") or "enable_hr" in body:
        body |= {"width": 64, "height": 64}
    if (body.get("width") or 512) * (body.get("height") or 512) > LIMITS.pixels:
        body |= {"width": 256, "height": 256}
    for clip in {"clip", "clip_skip"} & body.keys():
        body[clip] = min(body[clip] or 1, 12)
    return body | within_a1111(body)


def within_a1111(body: Json) -> Json:
    """The fields of A1111's API whose bounds depend on others."""
    sides = {"upscaling_resize_w", "upscaling_resize_h"} & body.keys()
    found: Json = {side: min(body[side] or 1, 1000) for side in sides}
    if "batch_size" in body:
        found["n_iter"] = 1
    if "hr_scale" in body:
        found |= {"hr_scale": 1.5, "hr_resize_x": 0, "hr_resize_y": 0}
    if "prompt" not in body and "cfg_scale" in body:
        found["steps"] = 2
    return found


def with_pictures(body: Json) -> Json:
    """What fields that need pictures need, and how they are not refused for these."""
    found: Json = {}
    if body.get("controls"):
        found["controls"] = [{"name": "edges", "img": picture()}]
    if "extend" in body:  # 8.0 is an integer there, too
        found["extend"] = [8, 0, 0, 16]
    if body.get("mask") or body.get("extend"):
        found |= {"img": body.get("img") or picture(), "width": 64, "height": 64}
    return found


def whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def cases(server: Server, path: str, mode: GenerationMode) -> st.SearchStrategy[Case[Any]]:
    """Requests to what is at `path`, half of those to somebody's to ours."""
    document = closed(server.document) if mode.is_positive else server.document
    (method,) = document["paths"][path]
    operation = schemathesis.openapi.from_dict(document)[path][method.upper()]
    strategy = operation.as_strategy(generation_mode=mode)
    if "{" not in path:
        return strategy
    mine = operation.as_strategy(
        generation_mode=mode, path_parameters={"id": server.id, "name": "tiny"}
    )
    return strategy | mine


def hold(server: Server, case: Case[Any], mode: GenerationMode) -> None:
    """Send a request, and hold the answer to the document."""
    case.body = known(case.body, path=case.path)
    if mode.is_positive:
        case.body = within(case.body)
    answer = case.call(server.url, headers=HEADERS, timeout=60)
    case.validate_response(answer, headers=HEADERS, transport_kwargs={"timeout": 60})
    if answer.status_code == 200 and "application/x-ndjson" in answer.headers["content-type"]:
        server.check_lines(answer.text, path=case.path)


A1111 = (
    *("txt2img", "img2img", "progress", "interrupt", "skip", "sd-models", "samplers", "memory"),
    *("schedulers", "png-info", "upscalers", "unload-checkpoint", "embeddings", "sd-vae"),
    *("extra-single-image", "extra-batch-images"),
)
CONTROLNET = ("model_list", "module_list", "control_types", "version", "settings", "detect")
PATHS = [
    *(*OPERATIONS, "/metrics", "/openapi.json", "/"),
    *(f"/sdapi/v1/{name}" for name in A1111),
    *(f"/controlnet/{name}" for name in CONTROLNET),
    *("/internal/progress", "/internal/ping", "/internal/pending-tasks"),
]
WITH_BODY = [path for path in PATHS if "requestBody" in OPERATIONS.get(path, {})]


def check(server: Server, path: str, mode: GenerationMode) -> None:
    """Hold what is at `path` to the document, with as many requests as `SETTINGS` say."""

    @SETTINGS
    @given(cases(server, path, mode))
    def one(case: Case[Any]) -> None:
        hold(server, case, mode)

    one()


@pytest.mark.parametrize("path", PATHS)
def test_what_the_document_allows_is_served_and_answered_as_it_says(
    server: Server, path: str
) -> None:
    check(server, path, GenerationMode.POSITIVE)


@pytest.mark.parametrize("path", WITH_BODY)
def test_what_the_document_does_not_allow_is_refused_as_it_says(server: Server, path: str) -> None:
    check(server, path, GenerationMode.NEGATIVE)
