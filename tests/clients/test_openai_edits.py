"""The Python package `openai` starts from pictures: edits and variations."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import ImagesResponse

from clients.native import PROMPT, SEED, SIZE, Live, Pixels, base64_of, distance, pixels, png, same
from clients.replies import OWN, extra, pictures

NIGHT = "a red house on a meadow at night"
HOLE = (slice(32, 80), slice(32, 96))


def holed(house: Pixels) -> bytes:
    """The house with a transparent hole, as the API has masks."""
    alpha = np.full(house.shape[:2], 255)
    alpha[HOLE] = 0
    return png(np.dstack([house, alpha]))


@pytest.fixture
def draw(live: Live, house: Pixels) -> Callable[..., list[Pixels]]:
    """What the native API makes of the house."""

    def draw(**fields: Any) -> list[Pixels]:
        return live.draw(seed=SEED, **{"img": base64_of(png(house)), "prompt": NIGHT, **fields})

    return draw


@pytest.fixture
def edit(client: OpenAI, house: Pixels) -> Callable[..., ImagesResponse]:
    """What the package makes of the house."""

    def edit(*, own: dict[str, Any] | None = None, **fields: Any) -> ImagesResponse:
        image = ("house.png", png(house), "image/png")
        fields = {"image": image, "prompt": NIGHT, "size": SIZE, **fields}
        response: ImagesResponse = client.images.edit(**fields, extra_body={**OWN, **(own or {})})
        return response

    return edit


Draw = Callable[..., list[Pixels]]
Edit = Callable[..., ImagesResponse]


def test_an_edit_is_image_to_image_of_the_native_api(edit: Edit, draw: Draw) -> None:
    response = edit()
    assert same(pictures(response), draw(strength=0.8))
    assert response.data is not None
    assert extra(response.data[0], "seed") == str(SEED)
    assert extra(response, "warnings") == []


def test_an_edit_replaces_as_much_as_it_says(edit: Edit, draw: Draw) -> None:
    assert same(pictures(edit(own={"strength": 0.25})), draw(strength=0.25))
    assert same(pictures(edit(input_fidelity="high")), draw(strength=0.5))
    assert not same(draw(strength=0.25), draw(strength=0.5))


def test_an_edit_takes_a_list_and_text_of_ours_and_makes_many(
    edit: Edit, draw: Draw, house: Pixels
) -> None:
    own = {"guidance_scale": 3.5, "negative_prompt": "a car", "deterministic": True}
    response = edit(image=[png(house)], n=2, own=own)
    assert same(pictures(response), draw(n=2, guidance=3.5, neg="a car", strength=0.8))


def test_of_many_pictures_the_first_is_edited_and_a_warning_says_so(
    edit: Edit, draw: Draw, house: Pixels
) -> None:
    response = edit(image=[png(house), png(house[::-1])])
    assert same(pictures(response), draw(strength=0.8))
    (warning,) = extra(response, "warnings")
    assert "first" in warning


def test_a_file_without_a_name_or_type_is_recognised(edit: Edit, draw: Draw, house: Pixels) -> None:
    assert same(pictures(edit(image=io.BytesIO(png(house)))), draw(strength=0.8))


def test_outside_the_mask_the_picture_is_unchanged(edit: Edit, draw: Draw, house: Pixels) -> None:
    mask = holed(house)
    response = edit(mask=mask, own={"mask_blur": 0})
    (found,) = pictures(response)
    kept = np.ones(house.shape[:2], bool)
    kept[HOLE] = False
    assert np.array_equal(found[kept], house[kept])
    assert not np.array_equal(found[HOLE], house[HOLE])
    assert same([found], draw(mask=base64_of(mask), mask_blur=0, strength=0.8))
    (own,) = pictures(edit(image=mask, own={"mask_blur": 0}))
    assert np.array_equal(own[kept], house[kept])
    assert not np.array_equal(own[HOLE], house[HOLE])


def test_an_edit_streams_its_own_kind_of_events(client: OpenAI, house: Pixels, draw: Draw) -> None:
    events = client.images.edit(
        image=png(house),
        prompt=NIGHT,
        size=SIZE,
        stream=True,
        partial_images=1,
        extra_body={**OWN, "strength": 1.0},
    )
    *partial, last = list(events)
    assert {event.type for event in partial} == {"image_edit.partial_image"}
    assert last.type == "image_edit.completed"
    assert last.b64_json is not None
    assert same([pixels(base64.b64decode(last.b64_json))], draw(strength=1.0))


def vary(client: OpenAI, image: bytes, **fields: Any) -> ImagesResponse:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        response: ImagesResponse = client.images.create_variation(
            image=image, response_format="b64_json", extra_body=OWN, **{"size": SIZE, **fields}
        )
    return response


def test_a_variation_repeats_the_prompts_that_the_picture_carries(
    live: Live, client: OpenAI
) -> None:
    (image,) = live.files(seed=99, neg="a car")
    expected = live.draw(seed=SEED, n=2, neg="a car", strength=0.6, img=base64_of(image))
    assert same(pictures(vary(client, image, n=2)), expected)


def test_a_variation_stays_near_a_picture_that_carries_no_prompt(
    client: OpenAI, house: Pixels
) -> None:
    (found,) = pictures(vary(client, png(house)))
    assert 0 < distance(found, house) < distance(found, house[::-1])


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("image", {"image": b"no picture"}),
        ("mask", {"mask": b"any"}),
        ("strength", {"own": {"strength": 2}}),
        ("size", {"size": "1x1"}),
    ],
)
def test_an_edit_that_cannot_be_made_is_a_bad_request(
    edit: Edit, param: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        edit(**wrong)
    assert caught.value.param == param
    assert param in caught.value.message


def test_an_edit_without_a_prompt_or_a_picture_is_a_bad_request(live: Live) -> None:
    with OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
        for form in ({"prompt": PROMPT}, {}):
            with pytest.raises(openai.BadRequestError) as caught:
                client.post("/images/edits", body=form, cast_to=object)
            assert caught.value.message
