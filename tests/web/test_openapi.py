"""`GET /openapi.json` has every route, and the bounds of the server that it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route

from calls import SMALL, app_of, ask
from imagine_core import hookimpl
from imagine_core.engine import Engine
from imagine_core.errors import Busy, ImagineError, RequestError, Unauthorized
from imagine_core.fields import FIELDS
from imagine_core.kinds import digits_up_to
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import build_test_engine
from imagine_core.web.openapi import described, failures, plain
from imagine_plugins.dialects.native import schemas
from imagine_plugins.dialects.native.enhance import FIELDS as ENHANCE_FIELDS

KEYED = ServerSettings(host="127.0.0.1", api_key="secret")


def document(engine: Engine, settings: ServerSettings | None = None) -> dict[str, Any]:
    headers = {"Authorization": "Bearer secret"}
    answer = ask(app_of(engine, settings), "GET", "/openapi.json", headers=headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_every_route_is_in_the_document_and_nothing_else(engine: Engine) -> None:
    mounted = {
        (method.lower(), plain(route.path))
        for route in app_of(engine).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    found = {
        (method, path)
        for path, operations in document(engine)["paths"].items()
        for method in operations
    }
    assert found == mounted
    assert ("post", "/generate") in found
    assert ("get", "/") in found


def test_every_route_of_ours_says_what_it_answers(engine: Engine) -> None:
    for path, operations in document(engine)["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert "200" in operation["responses"], path
            assert "default" not in operation["responses"], path


def test_every_operation_has_a_name_of_its_own(engine: Engine) -> None:
    operations = [each for path in document(engine)["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere(engine: Engine) -> None:
    found = document(engine)
    names = set(found["components"]["schemas"])

    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(references, value))
        if not isinstance(value, dict):
            return set()
        here = {value["$ref"]} if "$ref" in value else set()
        return here.union(*map(references, value.values()))

    assert references(found) == {f"#/components/schemas/{name}" for name in names}


def test_the_bounds_are_those_of_the_server(tmp_path: Path) -> None:
    limits = Limits(steps=7, images=3, pixels=128 * 128, prompt=50)
    engine = build_test_engine(
        tmp_path / "models", settings=Settings(models=tmp_path / "models", limits=limits)
    )
    fields = document(engine)["components"]["schemas"]["GenerateRequest"]["properties"]
    steps, width = (fields[name]["anyOf"][0] for name in ("steps", "width"))
    assert steps["maximum"] == 7
    assert fields["n"]["maximum"] == 3
    assert width["maximum"] == 128 * 128 // 64
    assert fields["prompt"]["maxLength"] == fields["neg"]["maxLength"] == 50
    wide = {**SMALL, "width": width["maximum"], "steps": 1}
    assert ask(app_of(engine), "POST", "/generate", json=wide).status_code == 200
    engine.close(grace=0)


def test_every_field_of_a_request_has_a_schema() -> None:
    taken = {"progress", "enhance", "on_disconnect"} | {field.wire for field in FIELDS}
    assert set(schemas.generate_request(Limits())["properties"]) == taken
    assert set(schemas.enhance_request(Limits())["properties"]) == set(ENHANCE_FIELDS)


def test_the_key_is_wanted_where_the_server_wants_it(engine: Engine) -> None:
    without = document(engine)
    assert "securitySchemes" not in without["components"]
    assert "security" not in without["paths"]["/generate"]["post"]
    found = document(engine, KEYED)
    assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    any_of: list[dict[str, list[str]]] = [{"key": []}, {"password": []}, {"header": []}]
    assert found["paths"]["/generate"]["post"]["security"] == any_of
    assert found["components"]["securitySchemes"].keys() == {"key", "password", "header"}
    assert "WWW-Authenticate" in found["paths"]["/ps"]["get"]["responses"]["401"]["headers"]
    for free in ("/health", "/"):
        assert "security" not in found["paths"][free]["get"]
        assert "401" not in found["paths"][free]["get"]["responses"]


def test_the_document_holds_no_secret_and_no_path(engine: Engine, tmp_path: Path) -> None:
    text = json.dumps(document(engine, KEYED))
    assert "secret" not in text
    assert str(tmp_path) not in text


class Stranger:
    """A plugin with a route that it describes, one that it does not, and no route at all."""

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None]) -> None:
        async def answer(_: Request) -> PlainTextResponse:
            return PlainTextResponse("here")

        operation = {
            "summary": "A picture of the moon",
            "responses": {"200": {"description": "The moon."}, **failures(RequestError)},
        }
        moon = Route("/moon/{phase:int}", answer, methods=["PUT"])
        register(described(moon, operation, schemas={"Moon": {"type": "object"}}))
        register(Route("/sun", answer))
        register(Mount("/stars", routes=[]))


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, Any]:
    engine = build_test_engine(tmp_path / "models", extra=[("stranger", Stranger())])
    return document(engine, KEYED)


def test_a_strangers_route_is_there_as_it_was_described(strange: dict[str, Any]) -> None:
    moon = strange["paths"]["/moon/{phase}"]["put"]
    assert moon["summary"] == "A picture of the moon"
    assert [each["name"] for each in moon["parameters"]] == ["phase"]
    assert {"200", "401", "403", "413", "415", "422"} <= set(moon["responses"])
    assert {"key": []} in moon["security"]
    assert strange["components"]["schemas"]["Moon"] == {"type": "object"}


def test_a_route_that_nobody_described_is_there_and_promises_nothing(
    strange: dict[str, Any],
) -> None:
    sun = strange["paths"]["/sun"]["get"]
    assert sun["responses"]["default"]["description"]
    assert "200" not in sun["responses"]
    assert not any(path.startswith("/stars") for path in strange["paths"])


def test_errors_of_one_status_are_told_in_one_response() -> None:
    class Late(Busy):
        """It is too late; come back tomorrow."""

        type = "late"

    found = failures(Busy, Late, Unauthorized, ImagineError)
    assert set(found) == {"401", "500", "503"}
    assert "`busy`" in found["503"]["description"]
    assert "`late`: It is too late; come back tomorrow." in found["503"]["description"]
    assert found["503"]["headers"]["Retry-After"]["required"]


@pytest.mark.parametrize("greatest", [10, 99, 255, 1000, 4095])
def test_the_pattern_of_a_greatest_number_takes_up_to_it(greatest: int) -> None:
    import re

    pattern = re.compile(digits_up_to(greatest))
    for number in range(10 ** len(str(greatest))):
        assert bool(pattern.fullmatch(str(number))) == (number <= greatest)
