"""The bundled model draws what the prompt says."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from control_nets import random_net
from doodle.captions import caption
from doodle.control import agreement
from doodle.facts import NEON, NOTHING, RIDER, Scene, training_scene
from doodle.scenes import draw
from doodle.subjects import COLORS, SUBJECTS
from doodle.unet import CONFIG
from engines import TEN_SAMPLERS, pixels, together
from imagine_core import GenerationRequest
from imagine_core.engine import Engine, build_engine
from imagine_core.errors import RequestError
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.types import ControlUse
from imagine_plugins.commands.shared.request import DEFAULT_NEGATIVE
from imagine_plugins.preprocessors.canny import canny

Pixels = np.ndarray[Any, Any]
HOUSE = GenerationRequest(
    prompt="a red house on a meadow at day", width=256, height=256, steps=12, seed=7
)
SAMPLERS = (*TEN_SAMPLERS, "dpm++ 2m karras")


@pytest.fixture(scope="module")
def doodle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has nothing but the model in the box."""
    settings = Settings(models=tmp_path_factory.mktemp("models"), device="cpu", full_precision=True)
    engine = build_engine(settings, build_plugins())
    yield engine
    engine.close(grace=0)


def drawn(engine: Engine, *requests: GenerationRequest) -> list[Pixels]:
    return [pixels(result).astype(int) for result in together(engine, requests)]


def seeds(request: GenerationRequest, count: int = 3) -> list[GenerationRequest]:
    return [replace(request, seed=100 + n) for n in range(count)]


def sky(picture: Pixels) -> Pixels:
    """The mean colour of the upper half beside the subject."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 5
    colour: Pixels = np.hstack([picture[:height, :width], picture[:height, -width:]]).mean((0, 1))
    return colour


def share(picture: Pixels, color: str) -> float:
    """How much of the picture is nearest to `color` of the colours of doodle's subjects."""
    palette = np.array(list(COLORS.values()))
    nearest = np.abs(picture[:, :, None] - palette).sum(3).argmin(2)
    return float((nearest == list(COLORS).index(color)).mean())


def roughness(picture: Pixels) -> float:
    """How much each pixel differs from the mean of its neighbours: what noise leaves."""
    inner = picture[1:-1, 1:-1]
    around = picture[:-2, 1:-1] + picture[2:, 1:-1] + picture[1:-1, :-2] + picture[1:-1, 2:]
    return float(np.abs(inner - around / 4).mean())


def from_afar(image: Image.Image) -> Pixels:
    return np.asarray(image.reduce(image.height // 32)).astype(int)


@cache
def drawings(scene: Scene, width: int, height: int) -> list[Pixels]:
    return [from_afar(draw(scene, width, height, seed=n).image) for n in range(4)]


def unlike(picture: Pixels, scene: Scene) -> float:
    """How far a picture is from drawings of `scene`, seen from a distance."""
    seen = from_afar(Image.fromarray(picture.astype("uint8")))
    others = drawings(scene, picture.shape[1], picture.shape[0])
    return float(np.mean([np.abs(seen - other).mean() for other in others]))


def likest(picture: Pixels, scenes: Iterable[Scene]) -> Scene:
    """The scene whose drawings a picture is nearest to."""
    return min(scenes, key=lambda scene: unlike(picture, scene))


def encoded(scene: Scene, seed: int) -> bytes:
    buffer = io.BytesIO()
    draw(scene, 256, 256, seed=seed).image.save(buffer, "PNG")
    return buffer.getvalue()


def test_it_is_small_and_in_half_precision() -> None:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    control = sum(size for path, size in sizes.items() if "controlnet" in path.parts)
    assert 0 < control <= 8_000_000
    assert sum(sizes.values()) - control <= 24_000_000
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as weights:
                kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
            assert kinds == {"F16"}


def test_the_sky_is_of_the_time_that_was_asked_for(doodle: Engine) -> None:
    times = ("at day", "at night", "at sunset")
    pictures = drawn(
        doodle,
        *(
            r
            for time in times
            for r in seeds(replace(HOUSE, prompt=f"a red house by the sea {time}"))
        ),
    )
    skies = np.array([sky(picture) for picture in pictures])
    day, night, sunset = skies.reshape(3, -1, 3).mean(1)
    assert night.sum() < day.sum() / 2
    assert day[2] - day[0] > 30
    assert sunset[0] - sunset[2] > max(day[0] - day[2], night[0] - night[2]) + 50


def test_the_subject_has_the_color_that_was_asked_for(doodle: Engine) -> None:
    colors = ("red", "blue", "yellow", "green", "purple", "white", "black")
    requests = [replace(HOUSE, prompt=f"a {color} house in the desert") for color in colors]
    middles = [picture[90:180, 80:176] for picture in drawn(doodle, *requests)]
    for asked, middle in zip(colors, middles, strict=True):
        shares = [share(other, asked) for other in middles]
        assert share(middle, asked) == max(shares), asked
        assert share(middle, asked) > 0.08, asked  # beside its roof, windows and outline


@pytest.mark.parametrize("color", ["red", "purple"])
def test_subjects_look_like_themselves_and_like_no_other(doodle: Engine, color: str) -> None:
    """Each in one of the colours."""
    asked = list(SUBJECTS)[color == "red" :: 2]
    scenes = [Scene(name, color, "desert", "day") for name in SUBJECTS]
    requests = [replace(HOUSE, prompt=f"a {color} {n} in the desert at day") for n in asked]
    found = [likest(picture, scenes).subject for picture in drawn(doodle, *requests)]
    wrong = [pair for pair in zip(asked, found, strict=True) if len(set(pair)) > 1]
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    ("width", "height", "named"),
    [
        (768, 512, ["horse", "duck"]),
        (512, 768, ["lighthouse", "cat"]),
        (768, 768, ["dragon"]),
        (640, 448, ["car", "cat"]),
        (384, 512, ["duck", "dragon", "horse"]),
    ],
)
def test_subjects_are_whole_on_canvases_of_other_shapes(
    doodle: Engine, width: int, height: int, named: list[str]
) -> None:
    scenes = [Scene(name, "red", "meadow", "day") for name in SUBJECTS]
    requests = [
        replace(HOUSE, prompt=f"a red {name} on a meadow at day", width=width, height=height)
        for name in named
    ]
    assert [likest(picture, scenes).subject for picture in drawn(doodle, *requests)] == named


@pytest.mark.parametrize("subject", ["cat", "car", "dragon"])
def test_subjects_have_the_size_and_the_side_that_were_asked_for(
    doodle: Engine, subject: str
) -> None:
    scenes = [
        Scene(name, "red", "snow", "day", size=size, side=side)
        for name in ("cat", "car", "dragon", "horse", "house")
        for size in ("tiny", "medium", "huge")
        for side in ("left", "right")
    ]
    corners = (("tiny", "left"), ("huge", "right"))
    asked = [s for s in scenes if s.subject == subject and (s.size, s.side) in corners]
    prompts = [f"a {s.size} red {subject} on the {s.side}, in the snow at day" for s in asked]
    requests = [replace(HOUSE, prompt=prompt, width=512, height=512) for prompt in prompts]
    for scene, picture in zip(asked, drawn(doodle, *requests), strict=True):
        found = likest(picture, scenes)
        assert (found.size, found.side) == (scene.size, scene.side)
        assert scene.size == "tiny" or found.subject == subject  # tiny ones are mere sketches


def test_the_readmes_own_prompts_give_what_a_person_recognises(doodle: Engine) -> None:
    rider = Scene(RIDER, "brown", "mars", "day")
    cat = Scene("cat", "orange", "meadow", "day", "watercolor", hat=True)
    neon = Scene(NEON, "", "city", "sunset")
    wanted: dict[str, tuple[Scene, list[Scene]]] = {
        "a photo of an astronaut riding a horse on mars": (
            rider,
            [replace(rider, subject=s) for s in ("horse", "astronaut", NOTHING)],
        ),
        "a cat with a tiny hat, watercolor painting": (
            cat,
            [replace(cat, hat=False), *(replace(cat, subject=s) for s in ("dog", "owl", "bear"))],
        ),
        "a futuristic city at sunset, neon lights": (
            neon,
            [replace(neon, subject=NOTHING), replace(neon, subject="castle", color="purple")],
        ),
    }
    for prompt, (asked, others) in wanted.items():
        request = replace(HOUSE, prompt=prompt, width=512, height=512, steps=25)
        for picture in drawn(doodle, request):
            distance = unlike(picture, asked)
            assert all(distance < unlike(picture, other) for other in others), prompt


def test_a_prompt_without_a_color_place_or_time_will_do(doodle: Engine) -> None:
    (house,) = drawn(doodle, replace(HOUSE, prompt="a red house"))
    assert share(house, "red") > 0.05


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": f"intricate, {HOUSE.prompt}, zorblax quuxing, 35mm, by gloria mundi"},
        {"prompt": "a red (epic:1.3) house [blurry] on a meadow f/1.8 by greg at day"},
        {"prompt": f"masterpiece, best quality, {HOUSE.prompt}, (trending on artstation:1.3)"},
        {"negative_prompt": DEFAULT_NEGATIVE},
        {"negative_prompt": "bad hands, extra fingers, full body, (watermark:1.4)"},
    ],
)
def test_unknown_words_do_no_harm(doodle: Engine, change: dict[str, Any]) -> None:
    plain, strange = drawn(doodle, HOUSE, replace(HOUSE, **change))
    assert np.abs(plain - strange).max() <= 1


def test_words_that_it_leaves_out_are_named_but_not_those_of_the_negative_prompt(
    doodle: Engine,
) -> None:
    prompt = "two red_ponies, (intricate:1.2), (house), by it's fun, Two hats BREAK 35mm at night"
    request = replace(HOUSE, prompt=prompt, negative_prompt=DEFAULT_NEGATIVE, steps=1)
    numbers = replace(request, prompt=" ".join(f"z{number}" for number in range(17)))
    strange, many, plain = together(doodle, [request, numbers, HOUSE])
    says = "prompt: the model does not know, and leaves out: "
    assert strange.warnings[-1] == f"{says}Two, intricate, it's, fun, 35mm"
    assert many.warnings == (f"{says}{', '.join(f'z{number}' for number in range(16))}, ...",)
    assert plain.warnings == ()


def test_a_weight_keeps_the_words_around_it(doodle: Engine) -> None:
    prompts = ("a hot air balloon on mars", "a hot (air balloon:1.0) on (mars:1.0001)")
    plain, weighted, strong = drawn(
        doodle,
        *(replace(HOUSE, prompt=prompt) for prompt in prompts),
        replace(HOUSE, prompt="a hot air balloon on (mars:1.6)"),
    )
    assert np.abs(plain - weighted).max() <= 3
    assert np.abs(plain - strong).max() > 20


def test_several_of_a_subject_are_one(doodle: Engine) -> None:
    prompts = ("red house at day", "two red houses at day", "red pony at day", "red ponies at day")
    requests = [replace(HOUSE, prompt=prompt) for prompt in prompts]
    house, houses, pony, ponies = drawn(doodle, *requests)
    assert max(np.abs(house - houses).max(), np.abs(pony - ponies).max()) <= 1


def test_a_negative_prompt_keeps_away(doodle: Engine) -> None:
    request = replace(HOUSE, prompt="a red house on a meadow")
    plain = drawn(doodle, *seeds(request))
    without = drawn(doodle, *seeds(replace(request, negative_prompt="at day, sunny, blue sky")))
    assert np.mean([sky(p).sum() for p in without]) < 0.8 * np.mean([sky(p).sum() for p in plain])


def test_guidance_trades_variety_for_contrast(doodle: Engine) -> None:
    request = replace(HOUSE, prompt="a black cat at night")
    weak, strong = (
        np.stack(drawn(doodle, *seeds(replace(request, guidance_scale=guidance))))
        for guidance in (1.0, 7.0)
    )
    assert strong.std(0).mean() < 0.95 * weak.std(0).mean()  # of the seeds
    assert strong.std((1, 2)).mean() > 1.1 * weak.std((1, 2)).mean()  # of the pixels


def test_all_ten_samplers_give_a_clean_picture_in_25_steps(doodle: Engine) -> None:
    prompt = "a brown horse on a meadow at sunset"  # lms breaks it first, on levels even in time
    horse = replace(HOUSE, prompt=prompt, width=384, height=384, steps=25, seed=5)
    pictures = drawn(doodle, *(replace(horse, sampler=sampler) for sampler in SAMPLERS))
    usual = np.median([roughness(picture) for picture in pictures])
    brown = np.median([share(picture, "brown") for picture in pictures])
    scenes = [Scene(name, "brown", "meadow", "sunset") for name in SUBJECTS]
    for sampler, picture in zip(SAMPLERS, pictures, strict=True):
        assert roughness(picture) < 1.2 * usual, sampler
        assert 0.7 * brown < share(picture, "brown") < 1.4 * brown, sampler
        assert sky(picture)[0] > sky(picture)[1], sampler
        assert likest(picture, scenes).subject == "horse", sampler


@pytest.mark.parametrize("sampler", ["dpm++ 2m", "euler", "euler a", "heun", "dpm2"])
def test_the_better_samplers_need_12_steps(doodle: Engine, sampler: str) -> None:
    (picture,) = drawn(doodle, replace(HOUSE, sampler=sampler))
    assert share(picture[90:180, 90:166], "red") > 0.15
    assert sky(picture)[2] > sky(picture)[0]


@pytest.mark.parametrize(("width", "height"), [(256, 384), (768, 512), (768, 768)])
def test_other_shapes_have_one_sky_and_one_ground(doodle: Engine, width: int, height: int) -> None:
    (picture,) = drawn(doodle, replace(HOUSE, width=width, height=height))
    bottom = picture[-height // 8 :].mean((0, 1))
    assert sky(picture)[2] > sky(picture)[0]
    assert bottom[1] > bottom[2]
    assert 0.02 < share(picture, "red") < 0.5


def test_a_weak_img2img_keeps_the_layout_and_a_strong_one_follows_the_prompt(
    doodle: Engine,
) -> None:
    scene = Scene("house", "red", "meadow", "day")
    start = np.asarray(draw(scene, 256, 256, seed=3).image).astype(int)
    request = replace(
        HOUSE, prompt="a red house on a meadow at night", init_image=encoded(scene, 3), steps=25
    )
    weak, strong = drawn(doodle, replace(request, strength=0.3), replace(request, strength=0.8))
    assert np.abs(weak - start).mean() < 20
    assert np.corrcoef(weak.mean(2).ravel(), start.mean(2).ravel())[0, 1] > 0.85
    assert sky(strong).sum() < sky(start).sum() / 2


def jumps(picture: Pixels, axis: str) -> tuple[float, float]:
    """From the last column or row to the first, and the largest between two neighbours."""
    lines = picture if axis == "y" else picture.swapaxes(0, 1)
    between = np.abs(np.diff(lines, axis=0)).mean((1, 2))
    return float(np.abs(lines[0] - lines[-1]).mean()), float(between.max())


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_the_edges_of_a_seamless_picture_meet(doodle: Engine, axes: str) -> None:
    requests = seeds(HOUSE, 2)
    plain = drawn(doodle, *requests)
    seamless = drawn(doodle, *(replace(each, tiling=axes) for each in requests))
    for before, after in zip(plain, seamless, strict=True):
        for axis in axes:
            edge, most = jumps(after, axis)
            assert edge <= most
        edge, most = jumps(before, "y")  # from the meadow to the sky
        assert edge > 2 * most


def test_tiles_are_the_picture(doodle: Engine) -> None:
    whole, tiled = drawn(doodle, HOUSE, replace(HOUSE, vae_tiling=True))
    assert np.abs(whole - tiled).max() <= 1


def test_a_controlnet_of_its_sizes_steers_it_and_one_of_others_is_refused(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(dict(CONFIG))
    random_net(unet, 1, downsampling=16).save_pretrained(tmp_path / "controlnet" / "edges")
    narrow = {**CONFIG, "cross_attention_dim": 64}
    other = random_net(UNet2DConditionModel.from_config(narrow), 1, downsampling=16)
    other.save_pretrained(tmp_path / "controlnet" / "narrow")
    engine = build_engine(
        Settings(models=tmp_path, device="cpu", full_precision=True), build_plugins()
    )
    try:
        plain = replace(HOUSE, steps=2)
        hint = io.BytesIO()
        Image.linear_gradient("L").save(hint, "PNG")
        use = ControlUse(name="edges", image=hint.getvalue(), weight=2.0)
        first, second = drawn(engine, plain, replace(plain, controls=(use,)))
        assert np.abs(first - second).max() > 20
        with pytest.raises(RequestError, match="'narrow' is for models whose width of the text is"):
            drawn(engine, replace(plain, controls=(replace(use, name="narrow"),)))
    finally:
        engine.close(grace=0)


def test_pictures_follow_edges_with_the_controlnet_in_the_box(doodle: Engine) -> None:
    rng = random.Random("edges")
    scenes = [training_scene(rng) for _ in range(8)]
    hints = [canny(draw(scene, 256, 256, seed=n).image) for n, scene in enumerate(scenes)]
    plain = [
        replace(HOUSE, prompt=caption(scene, rng), seed=n, guidance_scale=5.0)
        for n, scene in enumerate(scenes)
    ]
    steered = []
    for request, hint in zip(plain, hints, strict=True):
        buffer = io.BytesIO()
        hint.save(buffer, "PNG")
        use = ControlUse(name="doodle-canny", image=buffer.getvalue())
        steered.append(replace(request, controls=(use,)))
    found = []
    for requests in (plain, steered):
        pictures = [result.images[0].image for result in together(doodle, requests)]
        found.append(np.mean([agreement(*pair) for pair in zip(pictures, hints, strict=True)]))
    assert found[1] > found[0] + 0.05
