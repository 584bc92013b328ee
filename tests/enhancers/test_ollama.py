"""The enhancer "ollama" against a server that speaks Ollama's protocol, faults included."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from fake_ollama import FakeOllama, answer, running
from imagine_core import Enhancement, EnhanceTask
from imagine_core.enhancing import enhance, enhanced
from imagine_core.errors import EnhancerFailed
from imagine_core.testing import check_enhancer
from imagine_plugins.enhancers.ollama import DEFAULT_MODEL, Ollama


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with running() as server:
        yield server


def ollama(fake: FakeOllama, **options: Any) -> Ollama:
    return Ollama(environ={"OLLAMA_HOST": fake.url}, **options)


def task(**more: Any) -> EnhanceTask:
    return EnhanceTask(**{"prompt": "a fox", "seed": 7, **more})


def made(fake: FakeOllama, **more: Any) -> Enhancement:
    return asyncio.run(enhanced(ollama(fake), task(**more)))


def problem(fake: FakeOllama, **more: Any) -> str:
    with pytest.raises(EnhancerFailed) as caught:
        made(fake, **more)
    assert "\n" not in caught.value.message
    return caught.value.problem


def test_it_does_what_enhancers_do(fake: FakeOllama) -> None:
    check_enhancer(ollama(fake), repeatable=True, patience=60)


# ----------------------------------------------------------------------------------- in good order


def test_the_model_writes_the_prompt(fake: FakeOllama) -> None:
    assert made(fake) == Enhancement(prompt="a fox, better", model=DEFAULT_MODEL)


def test_a_negative_prompt_comes_with_it_if_asked_for(fake: FakeOllama) -> None:
    result = made(fake, negative=True)
    assert (result.prompt, result.negative_prompt) == ("a fox, better", "blurry")


def test_the_request_is_as_documented(fake: FakeOllama) -> None:
    made(fake, negative=True, seed=2**64 - 1)
    (asked,) = fake.requests
    assert asked["model"] == DEFAULT_MODEL
    assert asked["prompt"] == "a fox"
    assert asked["format"]["required"] == ["prompt", "negative_prompt"]
    assert 0 <= asked["options"]["seed"] < 2**31
    assert "JSON" in asked["system"]


def test_the_prompt_can_be_watched_as_it_is_written(fake: FakeOllama) -> None:
    fake.says = answer('a "quoted" fox 🦊, ünïcode,\n two  lines', "blurry")

    async def watch() -> list[str | Enhancement]:
        return [event async for event in enhance(ollama(fake), task(stream=True, negative=True))]

    *pieces, last = asyncio.run(watch())
    assert isinstance(last, Enhancement)
    assert last.prompt == 'a "quoted" fox 🦊, ünïcode, two lines'
    assert len(pieces) > 5
    assert "".join(str(piece) for piece in pieces) == last.prompt


def test_an_answer_in_one_object_is_as_good_as_a_stream(fake: FakeOllama) -> None:
    fake.one_object = True
    assert made(fake).prompt == "a fox, better"


@pytest.mark.parametrize(
    "said",
    [
        "Sure! Here is {your} prompt:\n```json\n%s\n```\nI hope it helps {}.",
        "```\n%s\n```",
        '<think>{"prompt": "a draft"} hmm, no</think>\n%s',
        'The user wants a fox. {"prompt": "draft"}</think>%s',
        "%s %s",
        '{"note": "see below"} %s',
        'I answer in the form {"prompt": "...", "negative_prompt": "..."}:\n%s',
        'First a draft: {"prompt": "a fox"}. Now all of it: %s',
        'With {braces} and "quotes": {"answer": %s}',
        "%s}}} Shall I write another one? {",
    ],
)
def test_chat_around_the_json_is_ignored(fake: FakeOllama, said: str) -> None:
    fake.says = said.replace("%s", answer("a red fox", "blurry"))
    assert made(fake, negative=True).prompt == "a red fox"


def test_a_form_to_be_filled_in_is_not_shown_as_the_prompt(fake: FakeOllama) -> None:
    fake.says = 'I write {"prompt": "..."}: ' + answer("a red fox")
    assert made(fake, stream=True).prompt == "a red fox"


def test_a_prompt_without_any_words_is_taken_where_there_is_nothing_else(fake: FakeOllama) -> None:
    fake.says = answer("🦊", "🐺")
    assert made(fake, negative=True) == Enhancement(
        prompt="🦊", negative_prompt="🐺", model=DEFAULT_MODEL
    )


def test_plain_newlines_in_the_json_are_forgiven(fake: FakeOllama) -> None:
    fake.says = '{"prompt": "a fox,\n\tin the snow"}'
    assert made(fake).prompt == "a fox, in the snow"


def test_half_a_surrogate_pair_does_not_get_through(fake: FakeOllama) -> None:
    fake.says = '{"prompt": "a \\ud83e fox"}'
    assert made(fake, stream=True).prompt == "a ? fox"


def test_a_client_that_closes_the_generator_hangs_up_on_the_model(fake: FakeOllama) -> None:
    fake.stops_after = 6

    async def leave() -> None:
        async with aclosing(enhance(ollama(fake), task(stream=True))) as events:
            async for _ in events:
                break

    asyncio.run(leave())
    assert fake.abandoned.wait(30)


# ------------------------------------------------------------------------------------ which model


def test_a_named_model_is_used(fake: FakeOllama) -> None:
    fake.models.append({"name": "llama3.2:1b"})
    assert made(fake, model="llama3.2:1b").model == "llama3.2:1b"


def test_without_the_default_model_the_newest_that_can_write_here_is_used(
    fake: FakeOllama,
) -> None:
    fake.models = [
        {"name": "all-minilm:22m", "details": {"family": "bert"}},
        {"name": "nomic-embed-text:latest", "details": {"family": "other"}},
        {"name": "huge-cloud", "remote_host": "https://elsewhere.example"},
        {"name": "qwen3:8b", "details": {"family": "qwen3"}},
        {"name": "older:1b", "details": None},
    ]
    assert made(fake).model == "qwen3:8b"


def test_the_environment_names_the_model(fake: FakeOllama) -> None:
    fake.models.append({"name": "mine:1b"})
    environ = {"OLLAMA_HOST": fake.url, "IMAGINE_ENHANCE_MODEL": "mine:1b"}
    assert asyncio.run(enhanced(Ollama(environ=environ), task())).model == "mine:1b"


def test_a_model_that_is_not_pulled_is_named_with_the_command_that_does(fake: FakeOllama) -> None:
    text = problem(fake, model="gemma:2b")
    assert "ollama pull gemma:2b" in text


def test_a_server_without_models_is_unavailable_and_says_what_to_pull(fake: FakeOllama) -> None:
    fake.models = []
    assert f"ollama pull {DEFAULT_MODEL}" in str(ollama(fake).unavailable())
    assert f"ollama pull {DEFAULT_MODEL}" in problem(fake)


# ------------------------------------------------------------------------------------- where it is


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_no_server_is_said_with_the_address_and_what_to_do() -> None:
    address = f"127.0.0.1:{free_port()}"
    absent = Ollama(environ={"OLLAMA_HOST": address})
    for text in (
        str(absent.unavailable()),
        str(Ollama(environ={}).unavailable(address)),
        failure(absent, model="gemma3:4b"),
        failure(absent),
    ):
        assert f"http://{address}" in text
        assert "ollama serve" in text


def failure(enhancer: Ollama, **more: Any) -> str:
    with pytest.raises(EnhancerFailed) as caught:
        asyncio.run(enhanced(enhancer, task(**more)))
    return caught.value.problem


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - an address of a client
        (":1234", "http://127.0.0.1:1234"),
        ('"example.com"', "http://example.com:11434"),
        ("https://example.com/ollama/", "https://example.com/ollama"),
        ("[::1]:5", "http://[::1]:5"),
        ("::", "http://[::1]:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(
    monkeypatch: pytest.MonkeyPatch, address: str, url: str
) -> None:
    monkeypatch.delenv("IMAGINE_OFFLINE", raising=False)
    assert Ollama(environ={"OLLAMA_HOST": address})._url(None) == url


def test_the_command_line_address_comes_before_the_environment(fake: FakeOllama) -> None:
    elsewhere = Ollama(environ={"OLLAMA_HOST": "127.0.0.1:1"})
    result = asyncio.run(enhanced(elsewhere, task(address=fake.url.removeprefix("http://"))))
    assert result.prompt == "a fox, better"


def test_offline_only_this_machine_is_asked(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_OFFLINE", "1")
    elsewhere = Ollama(environ={"OLLAMA_HOST": "ollama.example"})
    assert "--offline" in str(elsewhere.unavailable())
    assert "'ollama.example'" in failure(elsewhere, model="gemma3:4b")
    assert made(fake).prompt == "a fox, better"


def test_an_address_that_is_none_is_named() -> None:
    assert "'http://'" in str(Ollama(environ={"OLLAMA_HOST": "http://"}).unavailable())


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("said", ["", "  \n ", "<think>I wonder"])
def test_an_empty_answer_is_an_error(fake: FakeOllama, said: str) -> None:
    fake.says = said
    assert "answered nothing" in problem(fake)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ('{"prompt": "a fox', "broken JSON"),
        ('{"prompt": "a \\q fox"}', "broken JSON"),
        ('{"text": "a fox"}', "broken JSON"),
        ('{"prompt": 5}', "broken JSON"),
        ('{"prompt": {"prompt": {"prompt":' + '{"a":' * 5000, "broken JSON"),
        ("A fox sits in the snow.", "prose instead of JSON"),
        ('{"prompt": "  "}', "empty prompt"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_prompt_is_an_error_that_says_what_it_was(
    fake: FakeOllama, said: str, complaint: str, *, stream: bool
) -> None:
    fake.says = said
    fake.one_object = True
    text = problem(fake, stream=stream)
    assert complaint in text or "does not come to an end" in text
    assert DEFAULT_MODEL in text


@pytest.mark.parametrize("negative", [None, ""])
def test_an_answer_without_the_negative_prompt_is_an_error(
    fake: FakeOllama, negative: str | None
) -> None:
    fake.says = answer("a fox", negative)
    assert "no negative prompt" in problem(fake, negative=True)


def test_an_answer_that_ran_out_of_tokens_is_said_to_have(fake: FakeOllama) -> None:
    fake.says, fake.done_reason = '{"prompt": "a fox and a fox and', "length"
    assert "cut off after 1024 tokens" in problem(fake)


def test_a_model_that_does_not_stop_is_stopped(fake: FakeOllama) -> None:
    fake.says, fake.one_object = answer("fox " * 10_000), True
    assert "does not come to an end" in problem(fake)


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_stream_is_an_error(fake: FakeOllama, *, stream: bool) -> None:
    fake.cut_after = 4
    assert "broke off" in problem(fake, stream=stream)


def test_a_stream_that_ends_without_being_done_is_an_error(fake: FakeOllama) -> None:
    fake.ends_after = 4
    assert "broke off" in problem(fake)


@pytest.mark.parametrize("pieces", [0, 4])
def test_silence_is_an_error_after_its_time(fake: FakeOllama, pieces: int) -> None:
    fake.stops_after = pieces
    text = failure(ollama(fake, silence=0.2))
    assert "said nothing for 0.2 s" in text
    assert fake.abandoned.wait(30)


def test_sixty_seconds_is_the_silence_that_is_borne() -> None:
    assert Ollama()._silence == 60


def test_a_server_that_takes_the_connection_and_says_nothing_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        silent = Ollama(probe=0.1, environ={"OLLAMA_HOST": f"127.0.0.1:{sock.getsockname()[1]}"})
        assert "said nothing for 0.1 s" in str(silent.unavailable())


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b'{"error": "llama runner process has terminated"}', "llama runner process"),
        (500, b"<html>oops</html>", "status 500: is it an Ollama server?"),
        (503, b'{"error": "server busy, please try again."}', "server busy"),
        (400, b'{"error": "\\"x\\" does not support generate"}', "does not support generate"),
        (404, b"404 page not found", "is it an Ollama server?"),
        (500, b"[]", "status 500"),
    ],
)
def test_a_bad_status_is_told_in_the_servers_words(
    fake: FakeOllama, status: int, body: bytes, says: str
) -> None:
    fake.status, fake.body = status, body
    assert says in problem(fake)


@pytest.mark.parametrize(
    "body", [b"hello\n", b"<html>", b"[1]\n", b'{"response": "x"}\nnonsense\n', b"\xff\xfe\n"]
)
def test_lines_that_are_no_json_objects_are_an_error(fake: FakeOllama, body: bytes) -> None:
    fake.body = body
    assert "does not speak as Ollama does" in problem(fake)


def test_an_error_in_the_middle_of_the_stream_is_told(fake: FakeOllama) -> None:
    word = json.dumps({"response": '{"prompt": "a', "done": False})
    fake.body = (word + '\n{"error": "an error was encountered: out of memory"}\n').encode()
    assert "out of memory" in problem(fake)


def test_odd_values_of_fields_do_no_harm(fake: FakeOllama) -> None:
    lines = [
        {"response": None},
        {"thinking": "hm", "response": ""},
        {"response": 5, "done": "no"},
        {"response": answer("a fox"), "done": True},
    ]
    fake.body = b"\n\n".join(json.dumps(line).encode() for line in lines)
    assert made(fake).prompt == "a fox"


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"models": 5}', b'{"models": [5]}'])
def test_a_list_of_models_that_makes_no_sense_is_no_ollama(body: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        here = Ollama(environ={"OLLAMA_HOST": f"127.0.0.1:{sock.getsockname()[1]}"})

        async def both() -> str | None:
            asking = asyncio.to_thread(here.unavailable)
            return (await asyncio.gather(asking, asyncio.to_thread(serve_once, sock, body)))[0]

        assert "does not speak as Ollama does" in str(asyncio.run(both()))


def serve_once(sock: socket.socket, body: bytes) -> None:
    connection, _ = sock.accept()
    with connection, suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
