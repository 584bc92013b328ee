"""What the pictures of a request may be, and what they take while it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines import RED, pixels, together
from imagine_core.engine import Engine, masking
from imagine_core.engine.admission import Admitted
from imagine_core.engine.sent import IDLE
from imagine_core.errors import RequestError
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, draw_one
from imagine_core.types import ControlUse
from sent_pictures import box_mask, encoded, noise

BOX = (16, 16, 40, 48)
MASKED = replace(RED, init_image=encoded(noise()), mask=encoded(box_mask(BOX)), strength=0.75)
LARGE = encoded(Image.new("RGB", (8192, 8192), (9, 9, 9)))
BLACK = encoded(Image.new("L", (8, 8), 0))


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "controlnet/edges.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    engine = build_test_engine(folder, fake, settings=Settings(models=folder, max_rows=32))
    yield engine
    engine.close(grace=0)


def admitted(engine: Engine, **changes: Any) -> Admitted:
    return asyncio.run(engine.admit(replace(MASKED, **changes)))


def refused(engine: Engine, **changes: Any) -> dict[str, str]:
    with pytest.raises(RequestError) as error:
        admitted(engine, **changes)
    return {each.field: each.message for each in error.value.fields}


@pytest.mark.parametrize("mask", [None, MASKED.mask])
def test_a_picture_is_extended_at_its_own_size_up_to_that_of_the_largest(
    engine: Engine, mask: bytes | None
) -> None:
    asked = {"mask": mask, "mask_padding": 0}
    found = refused(engine, **asked, extend=(65_536, 65_536, 65_536, 65_536))
    assert found == {
        "extend": "makes 131136 x 131136 pixels of it; the largest picture must have at most "
        "67,108,864 pixels, and 1,000,000 a side"
    }
    assert list(refused(engine, **asked, extend=(0, 512, 0, 512), init_image=LARGE)) == ["extend"]
    row = encoded(noise((800, 8)))
    assert admitted(engine, **asked, init_image=row, extend=(65_536, 0, 65_536, 8)).held < 2**20


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("mask_padding", -20, "must be 0 (the mask alone) or more"),
        ("mask_blur", -1.0, "must be from 0.0 to 256.0"),
        ("mask_blur", 1e9, "must be from 0.0 to 256.0"),
        ("mask_blur", float("nan"), "must be from 0.0 to 256.0"),
        ("mask_fill", "nothing", "must be 'original' or 'noise'"),
    ],
)
def test_nothing_is_made_of_a_picture_before_the_fields_are_right(
    engine: Engine, field: str, value: Any, says: str
) -> None:
    for padding in (None, 0):
        found = refused(engine, **{"mask_padding": padding, field: value})
        assert list(found) == [field]
        assert found[field].startswith(says)


def test_pictures_of_their_own_size_are_together_no_larger_than_the_largest(
    engine: Engine,
) -> None:
    black = {"init_image": LARGE, "mask": BLACK, "mask_padding": 0}
    found = refused(engine, images=2, **black)
    assert found == {
        "images": "makes 8192 x 8192 pixels of each; together they must have at most "
        "67,108,864 pixels, and 1,000,000 a side"
    }
    admitted(engine, images=1, **black)
    admitted(engine, images=16, **{**black, "mask_padding": None})


@pytest.mark.parametrize("mask", [BLACK, encoded(box_mask((1, 1, 2, 2), (8, 8)))])
def test_a_waiting_request_holds_what_it_draws_and_not_the_picture_that_it_came_with(
    engine: Engine, mask: bytes
) -> None:
    small = admitted(engine, mask_padding=0)
    large = admitted(engine, init_image=LARGE, mask=mask, mask_padding=0)
    assert small.held == large.held == 64 * 64 * (4 + 1 + 1)


def test_what_a_waiting_request_holds_counts_hints_passes_and_fills(engine: Engine) -> None:
    hint = ControlUse(name="edges", image=encoded(noise((8, 8))))
    assert admitted(engine, init_image=None, mask=None).held == 0
    assert admitted(engine, mask=None).held == 64 * 64 * 4
    assert admitted(engine, mask_fill="average").held == 64 * 64 * (6 + 4)
    assert admitted(engine, controls=(hint, hint)).held == 64 * 64 * (6 + 2 * 4)
    assert admitted(engine, hires_scale=2.0).held == (64 * 64 + 128 * 128) * 6


@pytest.mark.parametrize("padding", [None, 8])
def test_the_thread_of_the_device_neither_fills_nor_puts_together_nor_decodes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, padding: int | None
) -> None:
    calls: list[tuple[str, str]] = []

    def noted(name: str) -> Callable[..., Any]:
        work = getattr(masking, name)

        def call(*args: Any, **named: Any) -> Any:
            calls.append((name, threading.current_thread().name))
            return work(*args, **named)

        return call

    for name in ("_averaged", "resized", "load_mask", "_feathered"):
        monkeypatch.setattr(masking, name, noted(name))
    result = draw_one(
        engine, replace(MASKED, mask_fill="average", images=4, mask_padding=padding, hires_scale=2)
    )
    assert len(result.images) == 4
    assert [name for name, _ in calls].count("_averaged") == 1
    threads = {thread.rpartition("_")[0] for _, thread in calls}
    assert threads == {"imagine-admit", "imagine-finish"}


def test_a_blur_in_which_a_mask_vanishes_is_said_and_nothing_is_drawn(
    engine: Engine, fake: FakePlugin
) -> None:
    dot = encoded(box_mask((30, 30, 32, 32)))
    for padding in (None, 4):
        result = draw_one(engine, replace(MASKED, mask=dot, mask_blur=64.0, mask_padding=padding))
        (warning,) = result.warnings
        assert warning == f"mask_blur 64 is too wide for the mask: {IDLE}"
        assert (pixels(result) == noise()).all()
        assert result.steps_run == 0
    assert all(not model.forwards for model in fake.loader.models)


def test_a_blur_that_leaves_less_than_half_of_a_mask_is_said(engine: Engine) -> None:
    small = encoded(box_mask((28, 28, 36, 36)))
    result = draw_one(engine, replace(MASKED, mask=small, mask_blur=8.0))
    (warning,) = result.warnings
    assert warning.startswith("mask_blur 8 is too wide for the mask: at most 1")
    assert warning.endswith("% of the result shows")
    assert draw_one(engine, replace(MASKED, mask=small, mask_blur=2.0)).warnings == ()


def test_repainted_pictures_of_several_requests_at_once_are_those_of_each(engine: Engine) -> None:
    wants = [replace(MASKED, images=3, mask_padding=pad, mask_blur=2.0) for pad in (None, 0, 8)]
    alone = [draw_one(engine, want) for want in wants]
    for one, other in zip(alone, together(engine, wants), strict=True):
        for index, made in enumerate(one.images):
            assert other.images[index].seed == made.seed
            assert abs(pixels(one, index).astype(int) - pixels(other, index)).max() <= 1
