import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import doodle
from doodle.captions import caption
from doodle.facts import (
    NEON,
    NOTHING,
    RIDER,
    SIDES,
    SIZES,
    Picture,
    Scene,
    random_scene,
    training_scene,
)
from doodle.scenes import draw
from doodle.styles import STYLES
from doodle.subjects import COLORS, SUBJECTS
from doodle.view import PLACES, TIMES
from doodle.words import COLOR_WORDS, SIDE_WORDS, SIZE_WORDS

CAT = Scene("cat", "orange", "meadow", "day")
Pixels = np.ndarray[Any, Any]


def pixels(picture: Picture) -> Pixels:
    return np.asarray(picture.image).astype(int)


def mask(picture: Picture) -> Pixels:
    return np.asarray(picture.mask) > 200


def nearest_color(values: Pixels) -> str:
    palette = np.array(list(COLORS.values()))
    distance = np.abs(values[:, None] - palette).sum(2)
    votes = np.bincount(distance.argmin(1), minlength=len(palette))
    return tuple(COLORS)[int(votes.argmax())]


def captions_of(scene: Scene, count: int = 200) -> list[str]:
    rng = random.Random(4)
    return [caption(scene, rng).lower() for _ in range(count)]


def test_the_vocabulary_is_as_large_as_promised() -> None:
    assert len(SUBJECTS) >= 25
    assert len(COLORS) == 11
    assert len(PLACES) == 8
    assert set(TIMES) == {"day", "night", "sunset"}
    assert set(STYLES) == {"plain", "watercolor", "pixel art", "sketch"}


def test_the_same_seed_draws_the_same_picture() -> None:
    first, second = draw(CAT, 256, 256, seed=5), draw(CAT, 256, 256, seed=5)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.tobytes() != draw(CAT, 256, 256, seed=6).image.tobytes()


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (768, 512), (256, 448), (600, 520)])
@pytest.mark.parametrize("style", STYLES)
def test_any_canvas_is_filled_in_any_style(size: tuple[int, int], style: str) -> None:
    picture = draw(dataclasses.replace(CAT, style=style), *size, seed=1)
    assert picture.image.size == picture.mask.size == size
    assert picture.image.mode == "RGB"
    assert pixels(picture).std() > 10


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("color", COLORS)
def test_the_asked_color_dominates_the_subject(subject: str, color: str) -> None:
    picture = draw(Scene(subject, color, "meadow", "day"), 256, 256, seed=3)
    assert nearest_color(pixels(picture)[mask(picture)]) == color


@pytest.mark.parametrize("place", PLACES)
def test_the_sky_tells_the_time(place: str) -> None:
    top = {
        time: pixels(draw(Scene(NOTHING, "", place, time), 256, 256, seed=2))[:20].mean((0, 1))
        for time in TIMES
    }
    assert top["night"].sum() < 200 < top["sunset"].sum() < top["day"].sum()
    assert top["sunset"][0] > top["sunset"][1] + 20
    assert top["day"][1] > top["sunset"][1] + 40


@pytest.mark.parametrize("time", TIMES)
def test_every_place_has_a_ground_of_its_own(time: str) -> None:
    grounds = [
        pixels(draw(Scene(NOTHING, "", place, time), 256, 256, seed=2))[200:].mean((0, 1))
        for place in PLACES
    ]
    for i, one in enumerate(grounds):
        assert all(np.abs(one - other).sum() > 12 for other in grounds[:i])


def test_sizes_grow_in_their_order() -> None:
    areas = [
        mask(draw(dataclasses.replace(CAT, size=size), 256, 256, seed=2)).sum() for size in SIZES
    ]
    assert areas == sorted(areas)
    assert areas[-1] > 8 * areas[0]


@pytest.mark.parametrize("size", [(256, 256), (384, 256), (256, 384)])
def test_sides_are_where_they_say(size: tuple[int, int]) -> None:
    def middle(side: str) -> float:
        drawn = mask(draw(dataclasses.replace(CAT, side=side), *size, seed=2))
        columns = np.nonzero(drawn.any(0))[0]
        return float(columns.mean() / size[0])

    assert middle("left") < 0.42 < middle("centre") < 0.58 < middle("right")


@pytest.mark.parametrize("side", [256, 512])
@pytest.mark.parametrize("subject", ["horse", "rocket", "lighthouse", RIDER])
def test_a_subject_has_one_shape_and_stands_on_the_grid_of_latents(subject: str, side: int) -> None:
    scene = Scene(subject, "brown", "meadow", "day")
    corners, shapes = set(), set()
    for seed in range(8):
        rows, columns = np.nonzero(mask(draw(scene, side, side, seed=seed)))
        corners.add((int(rows.min()) % 16, int(columns.min()) % 16))
        shapes.add((rows - rows.min()).tobytes() + (columns - columns.min()).tobytes())
    assert len(corners) == len(shapes) == 1


def test_a_hat_sits_above_the_animal() -> None:
    bare, hatted = (
        np.nonzero(mask(draw(dataclasses.replace(CAT, hat=hat), 256, 256, seed=2)).any(1))[0].min()
        for hat in (False, True)
    )
    assert hatted < bare


@pytest.mark.parametrize("subject", [RIDER, NEON, NOTHING])
@pytest.mark.parametrize("time", TIMES)
def test_composed_scenes_are_drawn(subject: str, time: str) -> None:
    color = "brown" if subject == RIDER else ""
    picture = draw(Scene(subject, color, "city", time), 256, 256, seed=1)
    assert bool(mask(picture).any()) == (subject == RIDER)


def test_random_scenes_cover_everything() -> None:
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(4000)]
    assert {s.subject for s in scenes} == {*SUBJECTS, NOTHING, NEON, RIDER}
    assert {s.color for s in scenes} == {*COLORS, ""}
    assert {s.place for s in scenes} == set(PLACES)
    assert {s.style for s in scenes} == set(STYLES)
    assert {s.side for s in scenes} == set(SIDES)
    assert {s.hat for s in scenes} == {True, False}


def test_training_shows_what_is_hard_more_often() -> None:
    rng = random.Random(0)
    usual, taught = ([pick(rng) for _ in range(4000)] for pick in (random_scene, training_scene))

    def share(scenes: list[Scene], subject: str) -> float:
        return sum(s.subject == subject for s in scenes) / len(scenes)

    assert {s.subject for s in taught} == {*SUBJECTS, NOTHING, NEON, RIDER}
    assert share(taught, RIDER) > 1.2 * share(usual, RIDER)
    assert sum(s.hat for s in taught) > 2 * sum(s.hat for s in usual)
    assert sum(s.size == "huge" for s in taught) > 2 * sum(s.size == "huge" for s in usual)
    assert sum(s.side == "left" for s in taught) > 1.3 * sum(s.side == "left" for s in usual)


def test_captions_are_never_empty_and_differ() -> None:
    texts = captions_of(CAT)
    assert all(texts)
    assert len(set(texts)) > 150


def test_captions_name_the_subject_by_one_of_its_words() -> None:
    assert all(any(word in text for word in SUBJECTS["cat"].words) for text in captions_of(CAT))


@pytest.mark.parametrize("color", COLORS)
def test_captions_name_no_other_color(color: str) -> None:
    others = {word for name, words in COLOR_WORDS.items() if name != color for word in words}
    # "a green field", "blue sky" and "golden hour" are places and times.
    scene = Scene("car", color, "city", "night")
    for text in captions_of(scene):
        assert not others & set(text.replace(",", " ").split()), text


def test_sizes_and_sides_are_said_when_they_matter() -> None:
    huge = dataclasses.replace(CAT, size="huge", side="left")
    texts = captions_of(huge)
    assert all(any(word in text for word in SIZE_WORDS["huge"]) for text in texts)
    assert sum(any(word in text for word in SIDE_WORDS["left"]) for text in texts) > 170
    assert not any(word in text for text in captions_of(CAT) for word in SIZE_WORDS["huge"])


def test_a_subject_whose_color_goes_unsaid_has_its_usual_one() -> None:
    def unsaid(color: str) -> int:
        texts = captions_of(dataclasses.replace(CAT, color=color))
        return sum(not any(word in text for word in COLOR_WORDS[color]) for text in texts)

    assert unsaid("orange") > 60
    assert unsaid("gray") < 10


def test_short_prompts_occur() -> None:
    assert min(len(text.split()) for text in captions_of(CAT, 600)) <= 2


def test_the_drawer_loads_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, doodle.scenes, doodle.captions;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'transformers')))"
    )
    training = Path(doodle.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=training).returncode == 0
