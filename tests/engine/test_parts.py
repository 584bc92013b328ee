"""What requests bring to a model: LoRAs, embeddings and VAEs, from admission to the picture."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import RED, pixels, together, until
from imagine_core import GenerationRequest, GenerationResult, StepEvent
from imagine_core.engine import Engine
from imagine_core.errors import OutOfMemory, RequestError, UnknownName, UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.parts import MOST_SPANS, AppliedLora, Parts
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, collect, draw_one
from imagine_core.testing.fake_parts import FakePart
from imagine_core.types import LoraUse

FILES = (
    *("tiny.fake", "loras/ink.fake", "loras/wool.fake", "loras/other.fake", "loras/broken.fake"),
    *("loras/styles/paper.fake", "loras/half.fake", "loras/misfit.fake"),
    *("embeddings/BadHand.fake", "embeddings/bad.fake", "embeddings/BadHand v2 other.fake"),
    *("embeddings/broken.fake", "vae/negative.fake", "vae/fast.fake", "vae/other.fake"),
)


@pytest.fixture
def stocked(tmp_path: Path) -> Path:
    """A models folder with something of each kind."""
    folder = tmp_path / "models"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    return folder


@pytest.fixture
def engine(stocked: Path, fake: FakePlugin) -> Any:
    engine = build_test_engine(stocked, fake, settings=Settings(models=stocked, max_rows=32))
    yield engine
    engine.close(grace=0)


def with_loras(*uses: LoraUse | str, **changes: Any) -> GenerationRequest:
    loras = tuple(LoraUse(name=use) if isinstance(use, str) else use for use in uses)
    return replace(RED, loras=loras, **changes)


def idle(engine: Engine) -> bool:
    return all(row.in_use == 0 for row in engine.status().loaded)


def refused(engine: Engine, request: GenerationRequest) -> dict[str, str]:
    with pytest.raises(RequestError) as error:
        asyncio.run(engine.admit(request))
    return {each.field: each.message for each in error.value.fields}


def test_a_lora_changes_its_request_and_no_other(engine: Engine, fake: FakePlugin) -> None:
    plain = pixels(draw_one(engine, RED))
    changed = pixels(draw_one(engine, with_loras("ink")))
    assert (plain != changed).any()
    assert (pixels(draw_one(engine, RED)) == plain).all()
    assert (pixels(draw_one(engine, with_loras("ink"))) == changed).all()
    assert [part.name for part in fake.loader.parts] == ["ink"]  # loaded once


def test_requests_with_other_loras_share_forwards_and_get_what_they_get_alone(
    engine: Engine, fake: FakePlugin
) -> None:
    whole = [
        RED,
        with_loras("ink"),
        with_loras(LoraUse(name="ink", weight=-0.5)),
        with_loras("ink", LoraUse(name="wool", weight=0.3)),
        with_loras(LoraUse(name="wool", weight=0.0)),
    ]
    requests = [replace(each, steps=40) for each in whole]
    alone = [pixels(draw_one(engine, request)) for request in requests]
    assert len({each.tobytes() for each in alone}) == 4
    assert (alone[0] == alone[4]).all()
    model = fake.loader.models[0]
    before = len(model.forwards)
    shared = [pixels(result) for result in together(engine, requests)]
    assert max(model.forwards[before:]) == 2 * len(requests)
    for one, other in zip(alone, shared, strict=True):
        assert (one == other).all()


def test_tags_in_a_prompt_are_loras_and_no_part_of_it(engine: Engine) -> None:
    tagged = draw_one(engine, replace(RED, prompt="red<lora:ink:0.5>"))
    assert (
        pixels(tagged) == pixels(draw_one(engine, with_loras(LoraUse(name="ink", weight=0.5))))
    ).all()
    assert tagged.request.prompt == "red"
    assert tagged.request.loras == (LoraUse(name="ink", weight=0.5),)


def test_tags_follow_the_loras_of_the_request(engine: Engine) -> None:
    found = asyncio.run(engine.admit(with_loras("INK", prompt="red <lora:styles/paper.fake:2>")))
    assert [use.name for use in found.request.loras] == ["ink", "paper"]
    assert [info.name for info in found.infos] == ["tiny", "ink", "paper"]


def test_tags_in_a_negative_prompt_are_left_out_with_a_warning(engine: Engine) -> None:
    found = asyncio.run(engine.admit(replace(RED, negative_prompt="ugly <lora:ink:1>")))
    assert found.request.negative_prompt == "ugly "
    assert found.request.loras == ()
    assert "negative prompt" in found.warnings[0]


def test_a_tag_that_cannot_be_read_is_told_with_all_else_that_is_wrong(engine: Engine) -> None:
    errors = refused(engine, replace(RED, prompt="red <lora:ink:much>", steps=0))
    assert list(errors) == ["prompt", "steps"]
    assert "'much' is no number" in errors["prompt"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loras": (LoraUse(name="inc"),)}, UnknownName, "unknown LoRA 'inc'; did you mean 'ink'"),
        ({"loras": (LoraUse(name="broken"),)}, UnusableModel, "broken; get another one"),
        ({"vae": "negatives"}, UnknownName, "unknown VAE 'negatives'; did you mean 'negative'"),
        ({"vae": "ink"}, UnknownName, "unknown VAE 'ink'"),
    ],
)
def test_a_name_that_is_not_there_is_refused(
    engine: Engine, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asyncio.run(engine.admit(replace(RED, **changes)))


def test_what_is_for_another_family_is_refused_before_anything_is_drawn(
    engine: Engine, fake: FakePlugin
) -> None:
    message = "'other' is for other, and the model 'tiny' is fake; for that there are "
    assert refused(engine, with_loras("other"))["loras"].startswith(message)
    assert refused(engine, replace(RED, vae="other"))["vae"].startswith(message)
    assert fake.loader.models == []


def test_a_model_that_takes_no_loras_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognise = type(engine.plugins.loaders.get("fake")).recognise

    def without(self: Any, path: Path) -> ModelInfo | None:
        info = recognise(self, path)
        return info and replace(info, takes=())

    monkeypatch.setattr(type(engine.plugins.loaders.get("fake")), "recognise", without)
    assert refused(engine, with_loras("ink")) == {"loras": "the model 'tiny' takes no LoRA"}
    assert refused(engine, replace(RED, decoder="fast")).keys() == {"decoder"}


def test_the_model_refuses_what_only_it_can_judge_and_draws_on(engine: Engine) -> None:
    with pytest.raises(RequestError, match="loras: nothing of it fits"):
        draw_one(engine, with_loras("misfit"))
    result = draw_one(engine, with_loras("half"))
    assert result.warnings == ("LoRA 'half': half of it is left out",)


def test_a_lora_acts_in_its_part_of_the_steps(engine: Engine, fake: FakePlugin) -> None:
    seen: list[list[str]] = []
    draw_one(engine, RED)
    model = fake.loader.models[0]
    predict = model.predict

    def watched(latents: Any, timesteps: Any, conditioning: Any) -> Any:
        rows = conditioning.parts or (None,)
        seen.append([use.use.name for use in (rows[0].loras if rows[0] else ())])
        return predict(latents, timesteps, conditioning)

    model.predict = watched  # type: ignore[method-assign]
    draw_one(
        engine,
        with_loras(LoraUse(name="ink", start=0.25), LoraUse(name="wool", end=0.5), steps=4),
    )
    assert seen == [["wool"], ["ink", "wool"], ["ink"], ["ink"]]
    seen.clear()
    draw_one(engine, replace(RED, prompt="red<lora:ink:1:step=1-3>", steps=4))
    assert seen == [[], ["ink"], ["ink"], []]


def test_parts_are_the_same_object_for_the_same_loras() -> None:
    lora = FakePart("ink", (0.0,) * 4)
    uses = [LoraUse(name="ink", start=0.5), LoraUse(name="ink", end=0.75)]
    parts = Parts(tuple(AppliedLora(lora, use) for use in uses))
    assert parts.at(0.0) is parts.at(0.49)
    assert parts.at(0.5) is parts.at(0.74) is parts
    assert parts.at(0.75) is not None
    assert parts.at(0.75) is not parts
    assert Parts().at(0.5) is None
    assert Parts((AppliedLora(lora, uses[0]),)).at(0.1) is None


def test_a_vae_and_a_fast_decoder_take_their_places(engine: Engine) -> None:
    plain = pixels(draw_one(engine, RED))
    negative = draw_one(engine, replace(RED, vae="negative"))
    assert (pixels(negative) == 255 - plain).all()
    assert negative.request.vae == "negative"
    assert (pixels(draw_one(engine, replace(RED, vae="NONE"))) == plain).all()
    assert (pixels(draw_one(engine, replace(RED, decoder="fast"))) == 255 - plain).all()


def test_a_picture_to_start_from_goes_through_the_vae_and_comes_back(engine: Engine) -> None:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(buffer, "PNG")
    start = replace(RED, init_image=buffer.getvalue(), strength=0.0)
    own, other = draw_one(engine, start), draw_one(engine, replace(start, vae="negative"))
    assert np.abs(pixels(own).astype(int) - pixels(other).astype(int)).max() <= 1


def test_the_result_has_the_hashes_of_what_changed_the_model(engine: Engine) -> None:
    result = draw_one(engine, with_loras("ink", vae="negative"))
    assert result.hashes == {"lora:ink": "abcdef012345", "vae": "abcdef012345"}
    assert draw_one(engine, RED).hashes == {}


def test_loras_are_unloaded_as_models_are(engine: Engine, fake: FakePlugin) -> None:
    draw_one(engine, with_loras("ink"))
    asyncio.run(until(lambda: idle(engine)))
    listed = [(row.name, row.kind, row.in_use) for row in engine.status().loaded]
    assert listed == [("tiny", "model", 0), ("ink", "lora", 0)]
    assert engine.unload("ink") == "unloaded"
    assert fake.loader.parts[0].closed
    assert [row.name for row in engine.status().loaded] == ["tiny"]
    assert engine.unload("wool") == "not loaded"


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_whatever_fails_the_lora_is_released_and_others_draw_on(
    engine: Engine, fake: FakePlugin, failing: int
) -> None:
    plain = pixels(draw_one(engine, RED))
    count = 0

    def before(rows: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise ValueError("a forward failed")

    fake.loader.before = before
    with pytest.raises(Exception, match="failed with ValueError"):
        draw_one(engine, with_loras("ink"))
    fake.loader.before = id
    asyncio.run(until(lambda: idle(engine)))
    assert (pixels(draw_one(engine, RED)) == plain).all()


def test_a_load_that_fails_releases_what_was_loaded_before_it(
    engine: Engine, fake: FakePlugin
) -> None:
    def before() -> None:
        if fake.loader.models:
            raise ValueError("the file is damaged")

    fake.loader.before_load = before
    with pytest.raises(Exception, match="'ink' cannot be used: its loader failed with ValueError"):
        draw_one(engine, with_loras("ink"))
    asyncio.run(until(lambda: idle(engine)))
    assert [row.name for row in engine.status().loaded] == ["tiny"]


def test_idle_loras_leave_first_where_memory_is_short(
    stocked: Path, fake: FakePlugin, tmp_path: Path
) -> None:
    size = 10**6
    for name in ("ink", "wool"):
        with (stocked / "loras" / f"{name}.fake").open("wb") as file:
            file.truncate(size)
    engine = build_test_engine(stocked, fake)
    draw_one(engine, with_loras("ink"))
    used = {"free": size + size // 2}

    def free() -> int:
        return used["free"] - size * sum(not part.closed for part in fake.loader.parts)

    asyncio.run(until(lambda: idle(engine)))
    fake.device.free = free
    draw_one(engine, with_loras("wool"))
    assert [(part.name, part.closed) for part in fake.loader.parts] == [
        ("ink", True),
        ("wool", False),
    ]
    asyncio.run(until(lambda: idle(engine)))
    used["free"] = size // 2
    with pytest.raises(OutOfMemory, match="'ink' needs"):
        draw_one(engine, with_loras("ink"))
    engine.close()


def test_previews_are_those_of_the_vae(engine: Engine) -> None:
    def first(request: GenerationRequest) -> np.ndarray[Any, Any]:
        events = asyncio.run(collect(engine, replace(request, preview_every=1)))
        shown = [event.preview for event in events if isinstance(event, StepEvent)]
        assert shown[0] is not None
        return np.asarray(shown[0])

    assert (first(replace(RED, vae="negative")) == 255 - first(RED)).all()


def embeddings_of(engine: Engine, prompt: str, negative: str = "") -> tuple[list[str], str]:
    found = asyncio.run(engine.admit(replace(RED, prompt=prompt, negative_prompt=negative)))
    return [info.name for info in found.brought.embeddings], "; ".join(found.warnings)


def test_embeddings_are_found_where_prompts_name_them(engine: Engine) -> None:
    assert embeddings_of(engine, "red, badhand") == (["BadHand"], "")
    assert embeddings_of(engine, "(BADHAND:1.2) bad", "bad") == (["BadHand", "bad"], "")
    assert embeddings_of(engine, "red badhands") == ([], "")
    assert embeddings_of(engine, "red", "embedding:bad") == (["bad"], "")


def test_an_embedding_that_cannot_be_taken_is_read_as_words_with_a_warning(engine: Engine) -> None:
    found, warning = embeddings_of(engine, "badhand v2 other")
    assert found == ["BadHand"]  # which is what the encoder reads there
    assert "'BadHand v2 other' is read as words: " in warning
    assert "is for other, and the model 'tiny' is fake" in warning
    assert embeddings_of(engine, "broken") == (
        [],
        "'broken' is read as words: it is broken; get another one",
    )
    assert embeddings_of(engine, "embedding:worse") == ([], "there is no embedding 'worse'")


def test_an_embedding_changes_its_request_alone(engine: Engine) -> None:
    plain, named = replace(RED, prompt="red house"), replace(RED, prompt="red badhand")
    alone = [pixels(draw_one(engine, each)) for each in (plain, named)]
    shared = [pixels(each) for each in together(engine, [plain, named])]
    for one, other in zip(alone, shared, strict=True):
        assert (one == other).all()
    assert draw_one(engine, named).hashes == {"embed:BadHand": "abcdef012345"}


def test_only_the_last_sets_of_a_request_are_kept() -> None:
    lora = FakePart("ink", (0.0,) * 4)
    uses = [AppliedLora(lora, LoraUse(name="ink", start=step / 32)) for step in range(32)]
    parts = Parts(tuple(uses))
    sets = [weakref.ref(found) for step in range(31) if (found := parts.at(step / 32)) is not None]
    del found
    gc.collect()
    assert sum(each() is not None for each in sets) <= MOST_SPANS


def test_the_models_own_vae_is_noted_where_it_would_draw_with_another(
    engine: Engine, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = type(engine.plugins.loaders.get("fake"))
    recognise = loader.recognise

    def codec(self: Any, path: Path) -> ModelInfo | None:
        info = recognise(self, path)
        return info and replace(info, vae=None if info.kind != "model" else sidecar[0])

    sidecar = ["negative"]
    monkeypatch.setattr(loader, "recognise", codec)
    assert asyncio.run(engine.admit(RED)).request.vae == "negative"
    assert asyncio.run(engine.admit(replace(RED, vae="none"))).request.vae == "none"
    sidecar[0] = "missing"
    (stocked / "tiny.fake").write_bytes(b"another")
    errors = refused(engine, RED)
    assert errors["vae"].startswith("the JSON beside the model 'tiny' names 'missing': unknown VAE")


@pytest.mark.parametrize(
    "use",
    [LoraUse(name="ink", start=0.6, end=0.5), LoraUse(name="ink", start=1.0)],
    ids=["after its end", "after the last step"],
)
def test_a_lora_that_acts_in_no_step_is_told(engine: Engine, use: LoraUse) -> None:
    result = draw_one(engine, with_loras(use))
    assert (pixels(result) == pixels(draw_one(engine, RED))).all()
    (warning,) = result.warnings
    assert warning.startswith("LoRA 'ink' acts in no step: it starts at ")


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_request_that_is_cancelled_at_any_step_leaves_the_others_as_they_are(
    engine: Engine, steps: int
) -> None:
    long = replace(RED, steps=12)
    alone = pixels(draw_one(engine, long))

    async def cancelled() -> None:
        events = engine.generate(with_loras("ink", steps=12))
        async for event in events:
            if steps == 0 or (isinstance(event, StepEvent) and event.step >= steps):
                break
        await events.aclose()

    async def main() -> GenerationResult:
        result, _ = await asyncio.gather(collect(engine, long), cancelled())
        return result[-1]  # type: ignore[return-value]

    assert (pixels(asyncio.run(main())) == alone).all()
    asyncio.run(until(lambda: idle(engine)))
    assert (pixels(draw_one(engine, long)) == alone).all()
