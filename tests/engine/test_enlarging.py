"""Upscalers: in the hires fix, and alone."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from engines import RED, pixels, until
from imagine_core import UpscaleRequest, UpscaleResult, UpscalerSpec, hookimpl
from imagine_core.engine import Engine
from imagine_core.engine.enlarging import MOST_MADE, enlarge
from imagine_core.errors import Busy, GenerationFailed, RequestError, UnknownName, UnusableModel
from imagine_core.pictures.images import resized
from imagine_core.pictures.resizing import resizing
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine, draw_one
from imagine_core.testing.fake_parts import FakePart
from imagine_core.types import PhaseEvent, StepEvent
from upscalers import run as finished

T = TypeVar("T")


class Mirror:
    """Registers an upscaler that mirrors what it scales."""

    @hookimpl
    def register_upscalers(self, register: Callable[[UpscalerSpec], None]) -> None:
        register(UpscalerSpec(name="mirror", label="Mirror", enlarge=mirrored, aliases=("glass",)))


def mirrored(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize(size, Image.Resampling.NEAREST)


class Wrong:
    """A network of a factor that gives what it is told to."""

    hash = None

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.calls = 0

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        self.calls += 1
        yield 1.0
        return image.resize((image.width * self.factor, image.height * self.factor), 0)

    def close(self) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "upscale_models/Twice.fake", "upscale_models/broken.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, max_rows=16)
    engine = build_test_engine(folder, fake, settings=settings, extra=[("mirror", Mirror())])
    yield engine
    engine.close(grace=0)


START = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def events_of(engine: Engine, **changes: Any) -> list[Any]:
    request = replace(UpscaleRequest(image=encoded(START)), **changes)

    async def main() -> list[Any]:
        return [event async for event in engine.upscale(request)]

    return asyncio.run(main())


def enlarged(engine: Engine, **changes: Any) -> UpscaleResult:
    result = events_of(engine, **changes)[-1]
    assert isinstance(result, UpscaleResult)
    return result


def trusted(culprit: str, work: Callable[[], T]) -> T:
    return work()


def run(tiles: Generator[float, None, Image.Image]) -> Image.Image:
    try:
        while True:
            next(tiles)
    except StopIteration as stop:
        image: Image.Image = stop.value
        return image


def test_a_network_is_applied_until_its_picture_is_large_enough() -> None:
    for factor, size, calls in ((2, (128, 96), 1), (2, (130, 96), 2), (4, (65, 48), 1)):
        network = Wrong(factor)
        assert run(enlarge(network, START, size, guard=trusted)).size == size
        assert network.calls == calls
    one = Wrong(1)  # it restores and enlarges nothing
    assert run(enlarge(one, START, (640, 480), guard=trusted)).size == (640, 480)
    assert one.calls == 1


class Sizes(Wrong):
    """A network that makes no pixels, and notes how many it was to make."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.made: list[tuple[int, int]] = []

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        self.made.append((image.width * self.factor, image.height * self.factor))
        assert self.made[-1][0] * self.made[-1][1] <= MOST_MADE
        return (yield from super().enlarge(image))


@pytest.mark.parametrize(
    ("factor", "before", "after", "made"),
    [
        (4, (64, 48), (128, 96), [(256, 192)]),  # as ever: more than is asked for is better
        (2, (64, 48), (256, 192), [(128, 96), (256, 192)]),
        (4, (1600, 1200), (1600, 1200), [(6400, 4800)]),
        (4, (8, 1), (8, 512), [(32, 4), (32, 16), (32, 64), (32, 256), (32, 1024)]),
        (4, (4000, 4000), (40, 40), [(11584, 11584)]),
        (16, (3000, 1000), (300, 100), [(20064, 6688)]),
    ],
)
def test_a_network_makes_no_more_pixels_than_memory_holds(
    factor: int, before: tuple[int, int], after: tuple[int, int], made: list[tuple[int, int]]
) -> None:
    network = Sizes(factor)
    image = Image.new("RGB", before)
    assert run(enlarge(network, image, after, guard=trusted)).size == after
    assert network.made == made


@pytest.mark.parametrize("kernel", ["LANCZOS", "BICUBIC", "NEAREST"])
@pytest.mark.parametrize("size", [(150, 97), (20, 200), (1, 1), (64, 48), (63, 300), (300, 48)])
def test_strips_make_exactly_the_whole(
    monkeypatch: pytest.MonkeyPatch, kernel: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("imagine_core.pictures.resizing.STRIP", 700)
    given, told = finished(resizing(START, size, kernel=kernel))
    assert (np.asarray(given) == np.asarray(resized(START, size, kernel=kernel))).all()
    assert told == sorted(told)
    assert len(told) > 2 or size == (64, 48)
    assert all(0 < each < 1 for each in told)


def test_a_registered_upscaler_may_work_in_parts() -> None:
    closed = []

    def parts(image: Image.Image, size: tuple[int, int]) -> Generator[float, None, Image.Image]:
        try:
            yield 0.5
            yield 7.0
        finally:
            closed.append(1)
        return image.resize(size)

    spec = UpscalerSpec(name="parts", label="Parts", enlarge=parts)
    given, told = finished(enlarge(spec, START, (100, 100), guard=trusted))
    assert (given.size, told, closed) == ((100, 100), [0.5, 1.0], [1])
    begun = enlarge(spec, START, (100, 100), guard=trusted)
    next(begun)
    begun.close()
    assert closed == [1, 1]

    def wrong(image: Image.Image, size: tuple[int, int]) -> Generator[Any, None, Image.Image]:
        yield "half"
        return image

    spec = UpscalerSpec(name="wrong", label="Wrong", enlarge=wrong)
    with pytest.raises(GenerationFailed, match="upscaler 'wrong' failed: ValueError"):
        run(enlarge(spec, START, (100, 100), guard=trusted))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no")])
def test_an_upscaler_that_ends_the_process_fails_its_request_alone(
    error: BaseException,
) -> None:
    def raises(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        raise error

    def unreadable(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        made = Image.new("RGB", size)
        made.convert = lambda mode: raises(image, size)  # type: ignore[method-assign,assignment,misc]
        return made

    for enlarge_ in (raises, unreadable):
        spec = UpscalerSpec(name="bad", label="Bad", enlarge=enlarge_)
        with pytest.raises(GenerationFailed, match="upscaler 'bad' failed"):
            run(enlarge(spec, START, (100, 100), guard=trusted))


def test_a_registered_upscaler_must_give_the_size() -> None:
    wrong = UpscalerSpec(name="wrong", label="Wrong", enlarge=lambda image, size: image)
    with pytest.raises(
        GenerationFailed,
        match=r"upscaler 'wrong' must give a picture of \(100, 100\), and gave \(64, 48\)",
    ):
        run(enlarge(wrong, START, (100, 100), guard=trusted))


def test_a_registered_upscaler_that_fails_is_named() -> None:
    for enlarge_, said in (
        (lambda image, size: 1 / 0, "'bad' failed: ZeroDivisionError"),
        (lambda image, size: None, "'bad' must give a picture of .*, and gave NoneType"),
    ):
        bad = UpscalerSpec(name="bad", label="Bad", enlarge=enlarge_)  # type: ignore[arg-type]
        with pytest.raises(GenerationFailed, match=said):
            run(enlarge(bad, START, (100, 100), guard=trusted))
    grey = UpscalerSpec(name="grey", label="Grey", enlarge=lambda i, s: i.resize(s).convert("LA"))
    assert run(enlarge(grey, START, (100, 100), guard=trusted)).mode == "RGB"


def test_a_picture_is_enlarged_without_any_model(engine: Engine, fake: FakePlugin) -> None:
    result = enlarged(engine)
    assert result.request.size == (128, 96)
    assert (np.asarray(result.image) == np.asarray(resized(START, (128, 96)))).all()
    assert not fake.loader.models
    assert not fake.loader.parts
    assert set(result.timings) >= {"queued", "enlarging"}


def test_an_upscaler_of_a_plugin_is_found_by_any_of_its_names(engine: Engine) -> None:
    result = enlarged(engine, upscaler="GLASS", scale=1.0)
    assert result.request.upscaler == "mirror"
    assert (np.asarray(result.image) == np.asarray(START)[:, ::-1]).all()


def test_a_file_enlarges_a_tile_at_a_time(engine: Engine, fake: FakePlugin) -> None:
    events = events_of(engine, upscaler="twice", scale=4.0)
    steps = [event.step for event in events if isinstance(event, StepEvent)]
    assert steps == [25, 50, 75, 100]  # two turns of two tiles
    assert {event.steps for event in events if isinstance(event, StepEvent)} == {100}
    assert [event.phase for event in events if isinstance(event, PhaseEvent)] == [
        *("queued", "loading", "enlarging")
    ]
    assert events[-1].image.size == (256, 192)
    assert events[-1].request.upscaler == "Twice"
    assert [part.name for part in fake.loader.parts] == ["Twice"]
    assert fake.loader.models == []
    (row,) = engine.status().loaded
    assert row.kind == "upscaler"


def see_through(background: tuple[int, int, int]) -> tuple[Image.Image, Image.Image]:
    """A red disc whose edge fades out over `background`, and how opaque it is."""
    across, down = np.meshgrid(np.arange(64) - 31.5, np.arange(48) - 23.5)
    alpha = Image.fromarray((np.clip(15 - np.hypot(across, down), 0, 1) * 255).astype(np.uint8))
    image = Image.new("RGB", alpha.size, background)
    image.paste((200, 30, 30), mask=alpha.point(lambda value: 255 if value else 0))
    image.putalpha(alpha)
    return image, alpha


@pytest.mark.parametrize("upscaler", ["lanczos", "mirror", "Twice"])
def test_transparency_is_kept_and_hidden_colours_do_not_show_at_its_edges(
    engine: Engine, upscaler: str
) -> None:
    made = []
    for background in ((0, 0, 0), (0, 255, 0)):
        image, alpha = see_through(background)
        larger = enlarged(engine, image=encoded(image), upscaler=upscaler).image
        assert larger.mode == "RGBA"
        expected = (mirrored if upscaler == "mirror" else resized)(alpha, (128, 96))
        difference = np.asarray(larger.getchannel("A"), int) - np.asarray(expected, int)
        assert abs(difference).max() <= 1
        made.append(np.asarray(larger))
    seen = made[0][..., 3] > 0
    assert (made[0] == made[1]).all()
    assert abs(made[0][seen][:, :3].astype(int) - (200, 30, 30)).max() <= 2


def test_an_alpha_channel_that_hides_nothing_is_left_out(engine: Engine) -> None:
    assert enlarged(engine, image=encoded(START.convert("RGBA"))).image.mode == "RGB"
    hidden = Image.new("RGBA", (8, 8), (9, 8, 7, 0))
    image = enlarged(engine, image=encoded(hidden)).image
    assert image.getchannel("A").getextrema() == (0, 0)


def test_a_size_instead_of_a_factor(engine: Engine) -> None:
    assert enlarged(engine, scale=None, size=(100, 30)).image.size == (100, 30)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": b"x"}, "image"),
        ({"scale": 0.0}, "scale"),
        ({"scale": -1.0}, "scale"),
        ({"scale": 65.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": None}, "scale"),
        ({"scale": None, "size": (0, 5)}, "size"),
        ({"scale": None, "size": (10_000, 10_000)}, "size"),
    ],
)
def test_pictures_and_factors_beyond_the_bounds_are_refused_in_a_sentence(
    engine: Engine, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestError) as error:
        enlarged(engine, **changes)
    assert [each.field for each in error.value.fields] == [field]


def test_a_factor_that_makes_too_large_a_picture_is_refused(engine: Engine) -> None:
    large = encoded(Image.new("RGB", (3000, 3000)))
    with pytest.raises(RequestError, match="makes 9000 x 9000 pixels of it"):
        enlarged(engine, image=large, scale=3.0)


def test_unknown_and_broken_upscalers_are_told_by_name(engine: Engine) -> None:
    with pytest.raises(UnknownName, match=r"upscaler 'twise'; did you mean 'Twice'"):
        enlarged(engine, upscaler="twise")
    with pytest.raises(UnusableModel, match="broken"):
        enlarged(engine, upscaler="broken")


def test_an_enlarging_ends_between_two_tiles_when_its_caller_leaves(engine: Engine) -> None:
    async def main() -> None:
        request = UpscaleRequest(image=encoded(START), upscaler="twice", scale=16.0)
        events = engine.upscale(request)
        async for event in events:
            if isinstance(event, StepEvent):
                break
        await events.aclose()
        await until(lambda: not engine.status().jobs)

    asyncio.run(main())
    assert all(row.in_use == 0 for row in engine.status().loaded)


def test_an_enlarging_shows_in_the_status_as_any_job(engine: Engine, fake: FakePlugin) -> None:
    seen = []
    fake.loader.before_load = lambda: seen.extend(engine.status().jobs)
    enlarged(engine, upscaler="twice")
    (status,) = seen
    assert (status.model, status.sampler, status.steps) == ("Twice", "", 100)
    assert (status.width, status.height) == (128, 96)


# ------------------------------------------------------------------------------- the hires fix


def test_the_hires_fix_keeps_the_larger_picture_where_that_is_asked_for(engine: Engine) -> None:
    request = replace(RED, hires_scale=1.5)
    assert pixels(draw_one(engine, request)).shape == (64, 64, 3)
    large = draw_one(engine, replace(request, hires_keeps=True))
    assert pixels(large).shape == (96, 96, 3)
    small = Image.fromarray(pixels(large)).resize((64, 64), Image.Resampling.LANCZOS)
    assert (np.asarray(small) == pixels(draw_one(engine, request))).all()


@pytest.mark.parametrize("upscaler", ["mirror", "Twice"])
def test_the_hires_fix_enlarges_with_any_upscaler(engine: Engine, upscaler: str) -> None:
    request = replace(
        RED, hires_scale=2.0, hires_keeps=True, hires_strength=0.0, hires_upscaler=upscaler
    )
    first = Image.fromarray(pixels(draw_one(engine, RED)))
    expected = mirrored(first, (128, 128)) if upscaler == "mirror" else first.resize((128, 128), 0)
    drawn = pixels(draw_one(engine, request)).astype(int)
    assert abs(drawn - np.asarray(expected)).max() <= 1  # through the fake VAE and back


def test_the_second_pass_has_its_own_steps_strength_and_sampler(engine: Engine) -> None:
    request = replace(
        RED,
        steps=6,
        hires_scale=2.0,
        hires_steps=10,
        hires_strength=0.5,
        hires_sampler="Euler Karras",
    )
    result = draw_one(engine, request)
    assert result.steps_run == 6 + 5
    assert result.request.hires_sampler == "euler karras"
    by_hand = draw_one(
        engine,
        replace(
            RED,
            width=128,
            height=128,
            steps=10,
            strength=0.5,
            sampler="euler",
            noise_schedule="karras",
            init_image=encoded(
                Image.fromarray(pixels(draw_one(engine, replace(RED, steps=6)))).resize(
                    (128, 128), Image.Resampling.LANCZOS
                )
            ),
        ),
    )
    small = Image.fromarray(pixels(by_hand)).resize((64, 64), Image.Resampling.LANCZOS)
    assert (np.asarray(small) == pixels(result)).all()


def test_unknown_names_of_the_second_pass_are_refused(engine: Engine) -> None:
    twice = replace(RED, hires_scale=2.0)
    for request in (replace(twice, hires_upscaler="no"), replace(twice, hires_sampler="eulerr")):
        with pytest.raises(UnknownName):
            draw_one(engine, request)
    assert draw_one(engine, replace(RED, hires_upscaler="none")).images  # not asked for


def test_a_full_queue_refuses_further_enlargings_and_goes_on(
    tmp_path: Path, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def tiles(self: FakePart, image: Image.Image) -> Generator[float, None, Image.Image]:
        while not go_on.is_set():
            time.sleep(0.01)
            yield 0.5
        return image.resize((image.width * 2, image.height * 2))

    monkeypatch.setattr(FakePart, "enlarge", tiles)
    folder = tmp_path / "few"
    (folder / "upscale_models").mkdir(parents=True)
    for name in ("tiny.fake", "upscale_models/Twice.fake"):
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, max_rows=1, limits=Limits(queue=2))
    engine = build_test_engine(folder, fake, settings=settings)
    request = UpscaleRequest(image=encoded(START), upscaler="Twice")

    async def one() -> str:
        try:
            async for event in engine.upscale(request):
                last = type(event).__name__
        except Busy:
            return "Busy"
        return last

    def waiting(number: int) -> bool:
        return len(engine.status().jobs) == number

    async def main() -> list[str]:
        first = asyncio.create_task(one())
        await until(lambda: any(job.phase == "enlarging" for job in engine.status().jobs))
        two = []
        for number in (2, 3):
            two.append(asyncio.create_task(one()))
            await until(partial(waiting, number))
        ends = [await one()]
        go_on.set()
        return [*ends, *[await task for task in (first, *two)]]

    assert asyncio.run(main()) == ["Busy", *["UpscaleResult"] * 3]
    engine.close(grace=0)
