"""Requests as Open WebUI, LibreChat and SillyTavern send them, against a live server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.native import Live, Pixels, opened, png

FOLDER = Path(__file__).parents[1] / "dialects" / "requests"
STORED = sorted(FOLDER.glob("*.json"))


def filled(value: Any, picture: bytes) -> Any:
    """A JSON value with `{"file": "png"}` replaced by a picture in base64."""
    if value == {"file": "png"}:
        return base64.b64encode(picture).decode()
    if isinstance(value, dict):
        return {key: filled(each, picture) for key, each in value.items()}
    return [filled(each, picture) for each in value] if isinstance(value, list) else value


def sent(url: str, stored: dict[str, Any], picture: bytes) -> httpx.Response:
    """The answer to a stored request."""
    body: dict[str, Any] = {}
    if "json" in stored:
        body["json"] = filled(stored["json"], picture)
    if "form" in stored:
        pairs = [(name, each) for name, value in stored["form"].items() for each in listed(value)]
        body["files"] = [
            (name, ("picture.png", picture) if value == {"file": "png"} else (None, str(value)))
            for name, value in pairs
        ]
    headers = stored.get("headers", {})
    address = url + stored["path"]
    return httpx.request(stored["method"], address, headers=headers, timeout=300, **body)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def size_of(body: dict[str, Any]) -> tuple[int, int]:
    """The size that a request asks for."""
    size = body.get("size")
    if size in {None, "auto"}:
        return body.get("width", 512), body.get("height", 512)
    width, _, height = str(size).partition("x")
    return int(width), int(height)


# -- what the programs read from each reply --------------------------------------------------------


def check_a1111_pictures(reply: Any, body: dict[str, Any]) -> None:
    """Open WebUI wants both keys, SillyTavern `images[0]`, LibreChat a text for each."""
    assert {"images", "info", "parameters"} <= set(reply)
    assert reply["images"]
    for image in reply["images"]:
        picture = opened(base64.b64decode(image, validate=True))
        assert picture.format == "PNG"
        if not body.get("enable_hr"):
            assert picture.size == size_of(body)
    info = json.loads(reply["info"])
    assert len(info["infotexts"]) == len(reply["images"]) == body.get("batch_size", 1)
    assert all("Steps: " in text for text in info["infotexts"])


def check_openai_pictures(reply: Any, body: dict[str, Any]) -> None:
    """LibreChat reads `b64_json`, and of DALL-E 3 `url`; Open WebUI takes `url` if there is one.

    It refuses to fetch one of this machine, so there must be none where it asks.
    """
    assert isinstance(reply["created"], int)
    assert len(reply["data"]) == int(body.get("n") or 1)
    data_alone = body.get("response_format") == "b64_json" or "gpt-" in body.get("model", "")
    for item in reply["data"]:
        assert ("url" in item) is not data_alone
        assert opened(base64.b64decode(item["b64_json"], validate=True)).size[0] >= 64


def check_options(reply: Any, body: dict[str, Any]) -> None:
    """SillyTavern takes a server with `forge_preset` for another one."""
    assert isinstance(reply["sd_model_checkpoint"], str)
    assert "forge_preset" not in reply


def check_progress(reply: Any, body: dict[str, Any]) -> None:
    assert (reply["progress"], reply["state"]["job_count"]) == (0.0, 0)


def check_models(reply: Any, body: dict[str, Any]) -> None:
    assert "doodle" in {model["id"] for model in reply["data"]}


def named(*keys: str) -> Callable[[Any, dict[str, Any]], None]:
    """Checks for a list whose items have these keys."""

    def check(reply: Any, body: dict[str, Any]) -> None:
        assert isinstance(reply, list)
        assert all(set(keys) <= set(item) for item in reply)

    return check


CHECKS: dict[tuple[str, str], Callable[[Any, dict[str, Any]], None]] = {
    ("POST", "/sdapi/v1/txt2img"): check_a1111_pictures,
    ("POST", "/sdapi/v1/img2img"): check_a1111_pictures,
    ("GET", "/sdapi/v1/options"): check_options,
    ("GET", "/sdapi/v1/progress"): check_progress,
    ("GET", "/sdapi/v1/sd-models"): named("title", "model_name"),
    ("GET", "/sdapi/v1/samplers"): named("name", "aliases"),
    ("GET", "/sdapi/v1/schedulers"): named("name", "label"),
    ("GET", "/sdapi/v1/upscalers"): named("name"),
    ("GET", "/sdapi/v1/latent-upscale-modes"): named("name"),
    ("GET", "/sdapi/v1/sd-vae"): named("model_name"),
    ("GET", "/sdapi/v1/loras"): named("name", "alias"),
    ("POST", "/v1/images/generations"): check_openai_pictures,
    ("POST", "/v1/images/edits"): check_openai_pictures,
    ("GET", "/v1/models"): check_models,
}


def test_requests_of_every_program_are_stored() -> None:
    names = " ".join(path.stem for path in STORED)
    for program in ("open", "librechat", "sillytavern"):
        assert program in names.lower().replace("-", "").replace("_", "")


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_program_gets_what_it_reads(live: Live, house: Pixels, path: Path) -> None:
    for stored in json.loads(path.read_text("utf-8")):
        answer = sent(live.url, stored, png(house))
        assert answer.status_code == 200, answer.text
        reply = answer.json()  # never an empty body
        check = CHECKS.get((stored["method"], stored["path"].partition("?")[0]))
        if check is not None:
            check(reply, stored.get("json") or stored.get("form") or {})
