"""The Python package `openai`, synchronous and asynchronous, draws with doodle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from clients.native import (
    PROMPT,
    SEED,
    SIZE,
    STEPS,
    Live,
    Pixels,
    distance,
    opened,
    pixels,
    same,
)
from clients.replies import OWN, extra, files, pictures


@pytest.fixture
def guest(locked: Live) -> Iterator[OpenAI]:
    """A client with a wrong key."""
    with OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client:
        yield client


# -- generations -----------------------------------------------------------------------------------


def test_the_picture_of_a_seed_is_that_of_the_native_api(live: Live, client: OpenAI) -> None:
    response = client.images.generate(
        prompt=PROMPT, model="doodle", size=SIZE, response_format="b64_json", extra_body=OWN
    )
    assert same(pictures(response), live.draw(seed=SEED))
    assert response.data is not None
    assert response.data[0].url is None
    assert isinstance(response.created, int)
    assert response.output_format == "png"
    assert response.size == SIZE
    assert extra(response, "model") == "doodle"
    assert extra(response, "warnings") == []
    assert opened(files(response)[0]).format == "PNG"


def test_without_fields_of_ours_it_draws_what_the_native_api_does(
    live: Live, client: OpenAI
) -> None:
    response = client.images.generate(prompt=PROMPT, size=SIZE, extra_body={"seed": SEED})
    assert same(pictures(response), live.draw(seed=SEED, steps=None))


def test_one_seed_twice_is_one_picture_and_none_are_two(client: OpenAI) -> None:
    def draw(**own: Any) -> Pixels:
        own = {"steps": 2, **own}
        (found,) = pictures(client.images.generate(prompt=PROMPT, size=SIZE, extra_body=own))
        return found

    assert np.array_equal(draw(seed=SEED), draw(seed=SEED))
    assert not np.array_equal(draw(), draw())


def test_two_pictures_have_two_seeds_each_with_its_own(live: Live, client: OpenAI) -> None:
    response = client.images.generate(prompt=PROMPT, n=2, size=SIZE, extra_body=OWN)
    assert response.data is not None
    assert [extra(each, "seed") for each in response.data] == [str(SEED), str(SEED + 1)]
    assert same(pictures(response), live.draw(seed=SEED, n=2))
    assert not same(pictures(response)[:1], pictures(response)[1:])


def test_a_seed_that_no_double_holds_arrives_whole(live: Live, client: OpenAI) -> None:
    seed = 2**64 - 3
    own = {"seed": seed, "steps": STEPS}
    response = client.images.generate(prompt=PROMPT, size=SIZE, extra_body=own)
    assert response.data is not None
    assert extra(response.data[0], "seed") == str(seed)
    assert same(pictures(response), live.draw(seed=str(seed)))


@pytest.mark.parametrize(
    "own",
    [
        {
            "negative_prompt": "a blue car",
            "guidance_scale": 4.5,
            "sampler": "euler a",
            "noise_schedule": "karras",
            "clip_skip": 2,
            "deterministic": True,
        },
        {
            "neg": "a blue car",
            "guidance": 4.5,
            "sampler": "euler a",
            "schedule": "karras",
            "clip": 2,
            "deterministic": True,
        },
    ],
    ids=["names of the library", "names of the native API"],
)
def test_every_setting_of_ours_reaches_the_picture(
    live: Live, client: OpenAI, own: dict[str, Any]
) -> None:
    response = client.images.generate(prompt=PROMPT, size=SIZE, extra_body={**OWN, **own})
    native = {
        "neg": "a blue car",
        "guidance": 4.5,
        "sampler": "euler a",
        "schedule": "karras",
        "clip": 2,
    }
    assert same(pictures(response), live.draw(seed=SEED, **native))
    assert not same(pictures(response), live.draw(seed=SEED))
    assert extra(response, "warnings") == []


def test_auto_means_the_models_own(live: Live, client: OpenAI) -> None:
    response = client.images.generate(
        prompt=PROMPT, size="auto", quality="auto", background="auto", extra_body=OWN
    )
    detail = live.send("GET", "/models/doodle").json()
    width, height = detail["recommended_size"]
    assert opened(files(response)[0]).size == (width, height)
    assert response.size == f"{width}x{height}"
    assert same(pictures(response), live.draw(seed=SEED, width=width, height=height))


def test_quality_scales_the_steps_unless_they_are_said(client: OpenAI) -> None:
    def draw(quality: Any, **own: Any) -> Pixels:
        own = {"seed": SEED, **own}
        (found,) = pictures(
            client.images.generate(prompt=PROMPT, size=SIZE, quality=quality, extra_body=own)
        )
        return found

    auto = draw("auto")
    assert not np.array_equal(draw("low"), auto)
    assert not np.array_equal(draw("high"), auto)
    assert np.array_equal(draw("low", steps=STEPS), draw("high", steps=STEPS))


@pytest.mark.parametrize(("output_format", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_come_as_they_are_called_and_as_small_as_asked(
    live: Live, client: OpenAI, output_format: Any, name: str
) -> None:
    def draw(compression: int) -> bytes:
        response = client.images.generate(
            prompt=PROMPT,
            size=SIZE,
            output_format=output_format,
            output_compression=compression,
            extra_body=OWN,
        )
        assert response.output_format == output_format
        return files(response)[0]

    best, worst = draw(100), draw(5)
    assert opened(best).format == opened(worst).format == name
    assert len(worst) < len(best) / 2
    (lossless,) = live.draw(seed=SEED)
    assert distance(pixels(best), lossless) < 3 < distance(pixels(worst), lossless)


def test_a_client_of_asyncio_draws_the_same(live: Live) -> None:
    async def draw() -> list[Pixels]:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="any") as client:
            generate = client.images.generate
            one, other, models = await asyncio.gather(
                generate(prompt=PROMPT, size=SIZE, extra_body={**OWN, "deterministic": True}),
                generate(prompt="a blue boat", size=SIZE, extra_body=OWN),
                client.models.list(),
            )
            assert {"doodle", "twin"} <= {model.id for model in models.data}
            assert len(pictures(other)) == 1
            return pictures(one)

    assert same(asyncio.run(draw()), live.draw(seed=SEED))


# -- addresses of pictures -------------------------------------------------------------------------


def test_an_address_of_a_picture_needs_no_key_and_cannot_be_guessed(locked: Live) -> None:
    with OpenAI(base_url=f"{locked.url}/v1", api_key=locked.key) as client:
        response = client.images.generate(
            prompt=PROMPT, n=2, size=SIZE, response_format="url", extra_body=OWN
        )
    assert response.data is not None
    urls = [each.url or "" for each in response.data]
    assert [each.b64_json for each in response.data] == [None, None]
    assert len(set(urls)) == 2
    assert all(url.startswith(f"{locked.url}/v1/images/") for url in urls)
    answers = [httpx.get(url) for url in urls]
    assert [each.headers["content-type"] for each in answers] == ["image/png"] * 2
    assert same([pixels(each.content) for each in answers], locked.draw(seed=SEED, n=2))
    made_up = httpx.get(urls[0].replace("/v1/images/", "/v1/images/0"))
    assert made_up.status_code == 404
    assert httpx.get(urls[0].replace("/0.png", "/2.png")).status_code == 404


def test_a_client_that_says_no_format_has_the_picture_in_both(live: Live, client: OpenAI) -> None:
    response = client.images.generate(prompt=PROMPT, size=SIZE, extra_body=OWN)
    assert response.data is not None
    assert httpx.get(response.data[0].url or "").content == files(response)[0]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("size", {"size": "300x301"}),
        ("size", {"size": "16x16"}),
        ("size", {"size": "huge"}),
        ("n", {"n": 0}),
        ("steps", {"extra_body": {"steps": "many"}}),
        ("output_format", {"output_format": "gif"}),
        ("output_compression", {"output_format": "jpeg", "output_compression": 101}),
    ],
)
def test_a_wrong_field_is_a_bad_request_that_names_it(
    client: OpenAI, param: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": PROMPT, "size": SIZE, **wrong})
    error = caught.value
    assert (error.param, error.type) == (param, "invalid_request_error")
    assert isinstance(error.code, str)
    assert error.code
    assert param in error.message


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_the_nearest_is_named(
    client: OpenAI, *, stream: bool
) -> None:
    with pytest.raises(openai.NotFoundError, match="doodle") as caught:
        client.images.generate(prompt=PROMPT, model="doodl", size=SIZE, stream=stream)
    assert caught.value.code == "model_not_found"


def test_a_wrong_key_is_an_error_of_authentication(guest: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        guest.images.generate(prompt=PROMPT, size=SIZE)
    assert caught.value.message != "Error code: 401"  # then it had found no sentence
    with pytest.raises(openai.AuthenticationError):
        guest.models.list()
