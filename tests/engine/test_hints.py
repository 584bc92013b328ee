"""ControlNets of requests: hints, preprocessors, steps and modes, on a fake model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from engines import RED, pixels, png, together, until
from imagine_core import (
    GenerationRequest,
    Preprocessor,
    UpscaleRequest,
    UpscalerSpec,
    hookimpl,
)
from imagine_core.engine import Engine, admitting
from imagine_core.errors import GenerationFailed, RequestError, UnknownName
from imagine_core.parts import AppliedControl, AppliedLora, Parts
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, draw_one
from imagine_core.testing.fake_parts import FakePart
from imagine_core.types import ControlUse, LoraUse
from sent_pictures import box_mask, encoded, noise


class Preparing:
    """Registers a preprocessor that works, and one that cannot."""

    def __init__(self) -> None:
        self.prepared: list[tuple[int, int]] = []

    @hookimpl
    def register_preprocessors(self, register: Callable[[Preprocessor], None]) -> None:
        register(Preprocessor(name="negative", label="Negative", prepare=self.negative))
        register(Preprocessor(name="failing", label="Failing", prepare=lambda image: 1 / 0))  # type: ignore[arg-type,return-value]
        register(Preprocessor(name="empty", label="Empty", prepare=lambda image: None))  # type: ignore[arg-type,return-value]
        register(
            Preprocessor(
                name="lacking",
                label="Lacking",
                prepare=self.negative,
                unavailable=lambda: "install package x",
            )
        )

    def negative(self, image: Image.Image) -> Image.Image:
        self.prepared.append(image.size)
        return ImageOps.invert(image)


@pytest.fixture
def preparing() -> Preparing:
    return Preparing()


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin, preparing: Preparing) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", *(f"controlnet/{name}.fake" for name in ("edges", "pose", "other"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, max_rows=32)
    engine = build_test_engine(folder, fake, settings=settings, extra=[("prep", preparing)])
    yield engine
    engine.close(grace=0)


HINT = png((200, 40, 90))


def guided(*uses: ControlUse, **changes: Any) -> GenerationRequest:
    return replace(RED, controls=uses, **changes)


def edges(**changes: Any) -> ControlUse:
    return replace(ControlUse(name="edges", image=HINT), **changes)


def refused(engine: Engine, request: GenerationRequest) -> dict[str, str]:
    with pytest.raises(RequestError) as error:
        asyncio.run(engine.admit(request))
    return {each.field: each.message for each in error.value.fields}


def test_a_controlnet_steers_its_request_and_no_other(engine: Engine) -> None:
    plain, steered = pixels(draw_one(engine, RED)), pixels(draw_one(engine, guided(edges())))
    assert (plain != steered).any()
    assert (pixels(draw_one(engine, RED)) == plain).all()
    nothing = pixels(draw_one(engine, guided(edges(weight=0.0))))
    assert (nothing == plain).all()


def test_requests_with_other_hints_share_forwards_and_get_what_they_get_alone(
    engine: Engine, fake: FakePlugin
) -> None:
    wants = [
        replace(each, steps=60)
        for each in (
            RED,
            guided(edges()),
            guided(edges(image=png((0, 250, 0)))),
            guided(edges(), ControlUse(name="pose", image=HINT, weight=0.5)),
            guided(edges(mode="control")),
        )
    ]
    alone = [pixels(draw_one(engine, want)) for want in wants]
    assert len({each.tobytes() for each in alone}) == 5
    fake.loader.models[0].forwards.clear()
    shared = [pixels(result) for result in together(engine, wants)]
    assert max(fake.loader.models[0].forwards) == 2 * len(wants)
    for one, other in zip(alone, shared, strict=True):
        assert (one == other).all()


def test_a_hint_is_prepared_at_the_size_of_the_largest_pass(
    engine: Engine, preparing: Preparing
) -> None:
    use = edges(image=png((200, 40, 90), (100, 100)), preprocessor="NEGATIVE")
    admitted = asyncio.run(engine.admit(guided(use, hires_scale=2.0)))
    assert preparing.prepared == [(128, 128)]
    assert np.asarray(admitted.hints[0])[0, 0].tolist() == [55, 215, 165]
    finished = asyncio.run(engine.admit(guided(edges(preprocessor="none"))))
    assert np.asarray(finished.hints[0])[0, 0].tolist() == [200, 40, 90]
    assert len(preparing.prepared) == 1


def test_a_controlnet_acts_in_its_steps_alone(engine: Engine) -> None:
    request = guided(edges(start=0.5), steps=8)
    late = pixels(draw_one(engine, request))
    always, never = (
        pixels(draw_one(engine, replace(request, controls=(edges(),)))),
        pixels(draw_one(engine, replace(request, controls=()))),
    )
    assert (late != always).any()
    assert (late != never).any()
    idle = draw_one(engine, guided(edges(start=0.5, end=0.5)))
    assert any("acts in no step" in warning for warning in idle.warnings)


def test_a_hint_for_a_part_of_the_picture_is_cut_out_of_it(engine: Engine) -> None:
    hint = Image.new("RGB", (256, 256), (255, 0, 0))
    hint.paste((0, 0, 255), (128, 128, 256, 256))
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (80, 80, 112, 112))
    request = guided(
        edges(image=encoded(hint)),
        init_image=png((9, 9, 9), (128, 128)),
        mask=encoded(mask),
        mask_padding=0,
    )
    admitted = asyncio.run(engine.admit(request))
    assert admitted.hints[0].size == (64, 64)
    assert np.asarray(admitted.hints[0]).reshape(-1, 3).mean(0).tolist() == [0, 0, 255]


def test_a_hint_far_smaller_than_the_picture_has_a_pixel_for_every_part(engine: Engine) -> None:
    photo, mask = encoded(noise((256, 256))), encoded(box_mask((100, 100, 104, 104), (256, 256)))
    for side in (1, 8):
        hint = Image.new("RGB", (side, side), (255, 0, 0))
        hint.putpixel((side * 100 // 256, side * 100 // 256), (0, 0, 255))
        use = edges(image=encoded(hint))
        request = guided(use, init_image=photo, mask=mask, mask_padding=0, mask_blur=0.0)
        (found,) = asyncio.run(engine.admit(request)).hints
        assert found.size == (64, 64)
        assert np.asarray(found).reshape(-1, 3).mean(0).tolist() == [0, 0, 255]


def test_the_negative_row_leaves_out_what_acts_on_the_prompt_alone() -> None:
    part = FakePart("edges", (0.0, 0.0, 0.0, 0.0))
    hint = Image.new("RGB", (8, 8))
    balanced, strict = (
        AppliedControl(part, edges(mode=mode), hint) for mode in ("balanced", "control")
    )
    lora = AppliedLora(part, LoraUse(name="ink"))
    parts = Parts((lora,), {}, (balanced, strict), "x")
    negative = parts.unconditional
    assert negative is not None
    assert (negative.loras, negative.controls, negative.seamless) == ((lora,), (balanced,), "x")
    assert parts.unconditional is negative  # so that what is kept for it is found again
    assert Parts((), {}, (strict,)).unconditional is None
    assert Parts((lora,), {}, (balanced,)).unconditional is not None


def test_a_controlnet_of_another_family_is_refused_by_name(engine: Engine) -> None:
    found = refused(engine, guided(ControlUse(name="other", image=HINT)))
    said = "'other' is for other, and the model 'tiny' is fake; for that there are edges, pose"
    assert found == {"controls": said}
    with pytest.raises(UnknownName, match="unknown ControlNet 'edgse'; did you mean 'edges'"):
        asyncio.run(engine.admit(guided(ControlUse(name="edgse", image=HINT))))


def test_an_unknown_controlnet_is_told_with_those_that_fit_the_model(engine: Engine) -> None:
    with pytest.raises(UnknownName) as caught:
        asyncio.run(engine.admit(guided(ControlUse(name="depth", image=HINT))))
    assert str(caught.value) == "unknown ControlNet 'depth'; known: edges, pose"
    for fitting in ("edges", "pose"):
        (engine.catalogue.folder / "controlnet" / f"{fitting}.fake").unlink()
    with pytest.raises(UnknownName, match="there is no ControlNet for fake here"):
        asyncio.run(engine.admit(guided(ControlUse(name="depth", image=HINT))))
    found = refused(engine, guided(ControlUse(name="other", image=HINT)))
    assert found["controls"].endswith("; for that there is none here")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (edges(image=b"x"), "the picture of 'edges' is not a picture in a format"),
        (edges(preprocessor="negatives"), "unknown preprocessor 'negatives'; did you mean"),
        (edges(preprocessor="lacking"), "preprocessor 'lacking' cannot be used: install package x"),
        (edges(weight=11.0), "weight of 'edges' must be from 0.0 to 10.0"),
    ],
)
def test_bad_hints_are_one_sentence(engine: Engine, use: ControlUse, message: str) -> None:
    found = refused(engine, guided(use, steps=0))
    assert set(found) == {"controls", "steps"}
    assert found["controls"].startswith(message)


@pytest.mark.parametrize(
    ("name", "said"),
    [("failing", "failed: ZeroDivisionError"), ("empty", "must give a picture of .* NoneType")],
)
def test_a_preprocessor_that_fails_is_named(engine: Engine, name: str, said: str) -> None:
    with pytest.raises(GenerationFailed, match=f"preprocessor '{name}' {said}"):
        asyncio.run(engine.admit(guided(edges(preprocessor=name))))


@pytest.mark.parametrize("size", [(64, 64), (640, 640), (64, 200)])
def test_a_hint_of_another_size_is_scaled_and_of_other_proportions_remarked_on(
    engine: Engine, size: tuple[int, int]
) -> None:
    result = draw_one(engine, guided(edges(image=png((200, 40, 90), size))))
    remarks = [each for each in result.warnings if "distorted" in each]
    assert remarks == (
        []
        if size[0] == size[1]
        else ["the hint of 'edges' is distorted, from 64 x 200 to 64 x 64 pixels"]
    )
    same = size[0] == size[1]
    assert not same or (pixels(result) == pixels(draw_one(engine, guided(edges())))).all()


def test_hashes_name_the_controlnets(engine: Engine) -> None:
    assert draw_one(engine, guided(edges())).hashes == {"control:edges": "abcdef012345"}


# ------------------------------------------------------------- preprocessors that do not return


class Hanging:
    """Registers preprocessors that wait in C until `release` is set, or loop in Python."""

    def __init__(self) -> None:
        self.release = threading.Event()

    @hookimpl
    def register_preprocessors(self, register: Callable[[Preprocessor], None]) -> None:
        for name, prepare in (("waits", self._waits), ("loops", self._loops), ("ends", self._ends)):
            register(Preprocessor(name=name, label=name, prepare=prepare))

    @hookimpl
    def register_upscalers(self, register: Callable[[UpscalerSpec], None]) -> None:
        register(UpscalerSpec(name="loops", label="Loops", enlarge=self._loops))

    def _waits(self, image: Image.Image) -> Image.Image:
        self.release.wait(60)
        return image

    def _loops(self, image: Image.Image, size: object = None) -> Image.Image:
        while not self.release.is_set():
            pass
        return image

    def _ends(self, image: Image.Image) -> Image.Image:
        raise SystemExit(3)


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(admitting, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(admitting, "MERCY_SECONDS", 1.0)
    folder = tmp_path / "hanging"
    for name in ("tiny.fake", "controlnet/edges.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    plugin = Hanging()
    settings = Settings(models=folder, sampler_seconds=1.0)
    engine = build_test_engine(folder, settings=settings, extra=[("hanging", plugin)])
    yield engine
    plugin.release.set()
    engine.close(grace=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("waits", "did not come back within 1 s and cannot be stopped"),
        ("loops", "did not come back within 1 s; it was stopped"),
        ("ends", "failed: SystemExit"),
    ],
)
def test_a_preprocessor_that_hangs_fails_its_own_request_alone(
    hanging: Engine, name: str, said: str
) -> None:
    async def main() -> None:
        bad = [
            asyncio.create_task(hanging.admit(guided(edges(preprocessor=name)))) for _ in range(3)
        ]
        good = asyncio.create_task(hanging.admit(guided(edges())))
        if name == "waits":
            await good
            assert not any(each.done() for each in bad)  # it did not wait for them
        for each in bad:
            with pytest.raises(GenerationFailed, match=f"preprocessor '{name}' {said}"):
                await each
        await good

    asyncio.run(main())


def test_a_preprocessor_that_never_returns_is_called_no_more(hanging: Engine) -> None:
    preprocessor = hanging.plugins.preprocessors.get("waits")
    for _ in range(admitting.MOST_LOST):
        with pytest.raises(GenerationFailed, match="cannot be stopped"):
            hanging.prepare(preprocessor, Image.new("RGB", (8, 8)))
    with pytest.raises(GenerationFailed, match="has not come back 4 times; start the server"):
        hanging.prepare(preprocessor, Image.new("RGB", (8, 8)))


def test_an_admission_keeps_its_place_until_it_ends_although_its_caller_left(
    hanging: Engine,
) -> None:
    async def main() -> None:
        task = asyncio.create_task(hanging.admit(guided(edges(preprocessor="waits"))))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(hanging._admitting._busy) == 1
        await until(lambda: not hanging._admitting._busy)

    asyncio.run(main())


def test_an_upscaler_that_loops_is_stopped_and_named(hanging: Engine) -> None:
    said = "upscaler 'loops' did not come back within 1 s; it was stopped"
    with pytest.raises(GenerationFailed, match=said):
        draw_one(hanging, replace(RED, hires_scale=2.0, hires_upscaler="loops"))

    async def alone() -> None:
        async for _ in hanging.upscale(UpscaleRequest(image=HINT, upscaler="loops")):
            pass

    with pytest.raises(GenerationFailed, match=said):
        asyncio.run(alone())
    assert draw_one(hanging, RED).images
