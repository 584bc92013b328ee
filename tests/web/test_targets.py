"""Request targets in absolute form, as they come over a socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from calls import app_of, live
from imagine_core.engine import Engine


@pytest.fixture
def address(engine: Engine) -> Iterator[str]:
    """HOST:PORT of a live server."""
    with live(app_of(engine), on_stop=partial(engine.close, grace=0)) as url:
        yield urlsplit(url).netloc


def get(
    address: str, target: str, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON, or the page, for a request line with just that target."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.putrequest(method, target, skip_host=True)
    for name, value in {"Host": address, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body.startswith(b"{") else {"page": body}


def test_an_absolute_target_is_served_as_its_path(address: str) -> None:
    for target in (
        f"http://{address}/models",
        "HTTP://LOCALHOST/models",
        "https://localhost/models",
    ):
        status, answer = get(address, target)
        assert (status, "models" in answer) == (200, True), target


def test_the_query_and_escapes_of_an_absolute_target_arrive(address: str) -> None:
    status, answer = get(address, f"http://{address}/models/a%20b%2Fc?x=http://evil.example/")
    assert status == 404
    assert "a b" in json.dumps(answer)


def test_an_absolute_target_without_a_path_is_the_root(address: str) -> None:
    for target in (f"http://{address}", f"http://{address}/", f"http://{address}?x=1"):
        assert get(address, target) == get(address, "/")


def test_the_host_of_an_absolute_target_is_the_one_that_is_judged(address: str) -> None:
    status, answer = get(address, "http://evil.example/models")
    assert (status, answer["error"]["type"]) == (403, "forbidden")
    assert "'evil.example'" in answer["error"]["message"]
    assert get(address, f"http://{address}/models", Host="evil.example")[0] == 200


@pytest.mark.parametrize("host", ["me@evil.example", "localhost@evil.example", "", "a b", "[::1"])
def test_a_host_that_is_none_is_refused(address: str, host: str) -> None:
    assert get(address, f"http://{host.replace(' ', '%20')}/models")[0] == 403


def test_a_page_may_call_the_host_of_the_target_that_it_came_from(address: str) -> None:
    origin = "http://192.168.1.7:5000"
    assert get(address, "http://192.168.1.7:5000/ps", Origin=origin)[0] == 200
    assert get(address, f"http://{address}/ps", Host="192.168.1.7:5000", Origin=origin)[0] == 403


def test_other_schemes_are_no_paths_here(address: str) -> None:
    assert get(address, "ftp://localhost/models")[0] == 404


def test_slashes_that_an_address_brought_along_do_not_matter(address: str) -> None:
    for target in ("//models", "/models/", "///v1///models//", f"http://{address}//models"):
        status, answer = get(address, target)
        assert status == 200, target
        assert answer.keys() & {"models", "data"}
    assert get(address, "//") == get(address, "/")
