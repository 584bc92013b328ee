"""Forms with files, and bodies that are none."""

from __future__ import annotations

import secrets
import socket
import time
import tracemalloc

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calls import app_of, live
from imagine_core.engine import Engine
from imagine_core.errors import MalformedBody
from imagine_core.web.forms import MOST_PARTS, Part, read_form

TYPE = "multipart/form-data; boundary=b"


def part(head: str, value: bytes = b"1") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def field(name: str, value: bytes = b"1") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value)


def file(name: str, value: bytes) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"'
    return part(f"{head}\r\nContent-Type: image/png", value)


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(parts) + end


# -- what a form holds -----------------------------------------------------------------------------


def test_fields_and_files_come_in_the_order_of_the_body() -> None:
    body = form(field("prompt", "ein Föhn 🌬".encode()), file("image", b"\x89PNG\r\n"), field("n"))
    assert read_form(body, TYPE) == [
        Part("prompt", "ein Föhn 🌬".encode(), is_file=False),
        Part("image", b"\x89PNG\r\n", is_file=True),
        Part("n", b"1", is_file=False),
    ]
    assert read_form(body, TYPE)[0].text() == "ein Föhn 🌬"


def test_a_name_may_be_there_several_times() -> None:
    read = read_form(form(file("image[]", b"1"), file("image[]", b"2")), TYPE)
    assert [(each.name, each.value) for each in read] == [("image[]", b"1"), ("image[]", b"2")]


def test_a_file_may_be_empty_and_so_may_a_form() -> None:
    assert read_form(form(file("image", b"")), TYPE) == [Part("image", b"", is_file=True)]
    assert read_form(form(), TYPE) == []


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("content-disposition: form-data; name=prompt", "prompt"),
        ('Content-Disposition: form-data; name="two words; or more"', "two words; or more"),
        (r'Content-Disposition: form-data; name="a \"quoted\" word"', 'a "quoted" word'),
        ('Content-Disposition: form-data; name="größe"', "größe"),
        ('Content-Type: text/plain\r\nContent-Disposition: form-data; name="a"', "a"),
    ],
)
def test_names_are_read_quoted_or_not(head: str, name: str) -> None:
    (read,) = read_form(form(part(head)), TYPE)
    assert read == Part(name, b"1", is_file=False)


@pytest.mark.parametrize("value", [b"--b\r\n\r\n--a--", b"\r\n--\r\n-\r\n\r\n--c\r", b"\r\n-- b"])
def test_what_only_looks_like_a_boundary_belongs_to_the_value(value: bytes) -> None:
    (read,) = read_form(form(file("image", value)), TYPE)
    assert read.value == value


def test_a_form_of_httpx_is_read() -> None:
    request = httpx.Request(
        "POST", "http://a", data={"n": "2"}, files={"image": ("ä b.png", b"data", "image/png")}
    )
    read = read_form(request.read(), request.headers["content-type"])
    assert read == [Part("n", b"2", is_file=False), Part("image", b"data", is_file=True)]


def test_a_value_that_is_no_text_is_refused_by_its_name() -> None:
    with pytest.raises(MalformedBody, match="'prompt' is not UTF-8"):
        read_form(form(field("prompt", b"\xff")), TYPE)[0].text()


# -- what is no form -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/mixed; boundary=b",
        "application/json",
        "",
        "multipart/form-data; boundary=" + "b" * 100_000,
        "multipart/form-data; boundary=\N{SNOWMAN}",
    ],
)
def test_a_type_without_a_boundary_of_the_body_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedBody):
        read_form(form(field("n")), content_type)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "its end is missing"),
        (form(field("n"), end=b""), "its end is missing"),
        (form(field("n"), end=b"--b"), "its end is missing"),
        (form(file("image", b"data"))[:-12], "its end is missing"),
        (b"--b\r\nContent-Disposition: form-data; name=", "its end is missing"),
        (b"{}", "is no form"),
        (b"--c\r\n", "is no form"),
        (form(part("Content-Type: text/plain")), "has no name"),
        (form(part("Content-Disposition: form-data")), "has no name"),
        (form(part('Content-Disposition: form-data; filename="a"')), "has no name"),
        (form(b"--b\r\n\r\nvalue\r\n"), "has no name"),
        (form(part("Content-Disposition")), "is no form"),
    ],
)
def test_a_body_that_is_no_whole_form_is_refused_in_words(body: bytes, said: str) -> None:
    with pytest.raises(MalformedBody, match=said):
        read_form(body, TYPE)


def test_a_thousand_parts_are_refused_at_the_first_too_many() -> None:
    fields = [field(f"a{number}") for number in range(MOST_PARTS)]
    assert len(read_form(form(*fields), TYPE)) == MOST_PARTS
    with pytest.raises(MalformedBody, match=f"more than {MOST_PARTS} fields"):
        read_form(form(*fields * 5), TYPE)


@pytest.mark.parametrize(
    "endless",
    [
        b"--b\r\nContent-Disposition: form-data; name=" + b"a" * 2**24,
        b"--b\r\n" + b"a" * 2**24,
        b"--b\r\n" + b"A: b\r\n" * 2**21,
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"\r\n--" * 2**22,
        b"\r\n" * 2**23,
        b"--b\r\n\r\n\r\n" * 2**20,
    ],
    ids=["name", "header", "headers", "value", "before", "nameless"],
)
def test_what_never_ends_is_refused_soon_and_in_little_memory(endless: bytes) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(MalformedBody):
        read_form(endless, TYPE)
    took, most = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 10
    assert most < 3 * len(endless)


def test_a_large_picture_is_read_in_seconds_and_in_little_memory() -> None:
    picture = secrets.token_bytes(60 * 2**20)
    body = form(file("image", picture))
    tracemalloc.start()
    began = time.perf_counter()
    (read,) = read_form(body, TYPE)
    took, most = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.value == picture
    assert took < 10
    assert most < 3.5 * len(picture)  # it takes no multiple that grows with its bytes


PIECES = (
    *(b"--b", b"--", b"b", b"a", b"\r\n", b"\r", b"\n", b":", b";", b"=", b'"', b"\\", b"\xff"),
    *(b"Content-Disposition: form-data; ", b"name=", b'name="a"', b"filename="),
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join) | st.binary(max_size=100),
    st.sampled_from([TYPE, "multipart/form-data; boundary=-"])
    | st.text(max_size=40).map("multipart/form-data; boundary=".__add__)
    | st.text(max_size=40),
)
@example(b"--b\r\nContent-Disposition: ;\r\n\r\n\r\n--b--", TYPE)
@example(b"--b\r\nContent-Disposition: ;;=;name\r\n\r\n\r\n--b--", TYPE)
def test_any_bytes_are_a_form_or_malformed(body: bytes, content_type: str) -> None:
    try:
        read = read_form(body, content_type)
    except MalformedBody:
        return
    assert all(isinstance(each.value, bytes) for each in read)


NAMES = st.from_regex(r"[a-z\[\]]{1,10}", fullmatch=True)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=50)), max_size=MOST_PARTS))
def test_what_is_written_is_read(values: list[tuple[str, bytes]]) -> None:
    boundary = secrets.token_hex(16).encode()
    written = [field(name, value).replace(b"--b", b"--" + boundary, 1) for name, value in values]
    body = form(*written, end=b"--" + boundary + b"--")
    read = read_form(body, f"multipart/form-data;boundary={boundary.decode()}")
    assert [(each.name, each.value) for each in read] == values


def test_two_gigabytes_announced_are_refused_before_they_come(engine: Engine) -> None:
    with live(app_of(engine)) as url, socket.socket() as client:
        host, port = url.removeprefix("http://").split(":")
        client.settimeout(60)
        client.connect((host, int(port)))
        head = f"POST /v1/images/edits HTTP/1.1\r\nHost: {host}\r\nContent-Type: {TYPE}\r\n"
        client.sendall(f"{head}Content-Length: {2 * 2**30}\r\n\r\n".encode() + bytes(2**20))
        answer = client.recv(65536)
        while b'"message": "' not in answer:
            answer += client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
