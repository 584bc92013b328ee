"""Masks, borders and what they keep, from admission to the picture, on a fake model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from engines import RED, pixels, png, together
from imagine_core import ResolvedRequest
from imagine_core.engine import Engine
from imagine_core.engine.masking import FILL_BLURS, canvas_of, finished, repaints_of
from imagine_core.errors import RequestError
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, draw_one
from imagine_core.types import MaskFill
from sent_pictures import Box, box_mask, encoded, inside, noise

START = noise()
BOX = (16, 16, 40, 48)
MASKED = replace(
    RED, init_image=encoded(START), mask=encoded(box_mask(BOX)), mask_blur=0.0, strength=0.75
)


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("tiny", "inpaint"):
        (folder / f"{name}.fake").write_bytes(b"fake")
    settings = Settings(models=folder, max_rows=32, default_model="tiny")
    engine = build_test_engine(folder, fake, settings=settings)
    yield engine
    engine.close(grace=0)


def refused(engine: Engine, **changes: Any) -> dict[str, str]:
    with pytest.raises(RequestError) as error:
        asyncio.run(engine.admit(replace(MASKED, **changes)))
    return {each.field: each.message for each in error.value.fields}


@pytest.mark.parametrize("model", ["tiny", "inpaint"])
@pytest.mark.parametrize("fill", ["original", "noise", "blank", "average"])
def test_outside_the_mask_the_result_is_the_picture_pixel_for_pixel(
    engine: Engine, model: str, fill: MaskFill
) -> None:
    drawn = pixels(draw_one(engine, replace(MASKED, model=model, mask_fill=fill)))
    painted = inside(BOX)
    assert (drawn[~painted] == np.asarray(START)[~painted]).all()
    assert (drawn[painted] != np.asarray(START)[painted]).any(axis=1).mean() > 0.9


def test_only_the_feathered_edge_is_mixed(engine: Engine) -> None:
    box = (24, 24, 40, 40)
    request = replace(MASKED, mask=encoded(box_mask(box)), mask_blur=2.0)
    drawn, start = pixels(draw_one(engine, request)), np.asarray(START)
    far = ~inside((16, 16, 48, 48))  # three deviations of the blur and a pixel
    assert (drawn[far] == start[far]).all()
    hard = pixels(draw_one(engine, replace(request, mask_blur=0.0)))
    edge = inside((22, 22, 42, 42)) & ~inside(box)
    assert (drawn[edge] != start[edge]).any()
    assert (hard[edge] == start[edge]).all()
    assert (drawn[32, 32] == hard[32, 32]).all()


def test_a_mask_that_is_white_all_over_is_img2img_of_what_it_starts_from(engine: Engine) -> None:
    white = replace(MASKED, mask=encoded(Image.new("L", (64, 64), 255)), mask_blur=4.0)
    plain = replace(MASKED, mask=None)
    assert (pixels(draw_one(engine, white)) == pixels(draw_one(engine, plain))).all()
    average = replace(white, mask_fill="average")
    grey = replace(plain, init_image=png((127, 127, 127)))  # there are no colours around it
    assert (pixels(draw_one(engine, average)) == pixels(draw_one(engine, grey))).all()


@pytest.mark.parametrize("padding", [None, 8])
def test_a_mask_that_is_black_all_over_gives_the_picture_back(
    engine: Engine, fake: FakePlugin, padding: int | None
) -> None:
    black = encoded(Image.new("L", (64, 64), 0))
    result = draw_one(engine, replace(MASKED, mask=black, mask_padding=padding, hires_scale=2.0))
    assert (pixels(result) == np.asarray(START)).all()
    assert any("repaints nothing" in warning for warning in result.warnings)
    assert result.steps_run == 0
    assert [model.forwards for model in fake.loader.models] == [[]]


def test_an_inverted_mask_repaints_what_the_mask_keeps(engine: Engine) -> None:
    drawn, start = pixels(draw_one(engine, replace(MASKED, mask_invert=True))), np.asarray(START)
    assert (drawn[inside(BOX)] == start[inside(BOX)]).all()
    assert (drawn[~inside(BOX)] != start[~inside(BOX)]).any()


def test_transparent_parts_of_a_mask_repaint(engine: Engine) -> None:
    alpha = START.convert("RGBA")
    alpha.putalpha(Image.eval(box_mask(BOX), lambda value: 255 - value))
    white = pixels(draw_one(engine, MASKED))
    assert (pixels(draw_one(engine, replace(MASKED, mask=encoded(alpha)))) == white).all()
    opaque = box_mask(BOX).convert("RGBA")  # with an alpha channel that says nothing
    assert (pixels(draw_one(engine, replace(MASKED, mask=encoded(opaque)))) == white).all()


@pytest.mark.parametrize(
    "mask",
    [
        encoded(box_mask(BOX).resize((128, 128), 0)),
        encoded(box_mask(BOX).convert("RGB")),
        encoded(box_mask(BOX).convert("1")),
        encoded(box_mask(BOX).convert("P")),
        encoded(Image.fromarray(np.asarray(box_mask(BOX), dtype=np.uint16) * 257)),
        encoded(box_mask(BOX), "GIF", save_all=True, append_images=[Image.new("L", (64, 64))] * 2),
        encoded(box_mask(BOX).convert("RGB"), "BMP"),
    ],
    ids=["another size", "colours", "one bit", "palette", "16 bits", "animated", "another format"],
)
def test_masks_of_every_form_mean_the_same(engine: Engine, mask: bytes) -> None:
    drawn = pixels(draw_one(engine, replace(MASKED, mask=mask)))
    assert (drawn == pixels(draw_one(engine, MASKED))).all()


def test_every_sampler_ends_at_the_picture_where_the_mask_keeps_it(engine: Engine) -> None:
    flat = Image.new("RGB", (64, 64), (64, 128, 160))
    names = [spec.name for spec in engine.plugins.samplers if "vp" in spec.noise]
    requests = [
        replace(MASKED, init_image=encoded(flat), sampler=name, steps=8, mask_blur=64.0)
        for name in names
    ]
    assert len(names) > 20
    kept = ~inside((8, 8, 48, 56))
    for name, result in zip(names, together(engine, requests), strict=True):
        drawn = pixels(result).astype(int)  # the blur shows what was drawn everywhere
        assert abs(drawn[kept] - np.asarray(flat)[kept]).max() <= 1, name


def test_masked_and_other_requests_share_forwards_and_get_what_they_get_alone(
    engine: Engine, fake: FakePlugin
) -> None:
    for model in ("tiny", "inpaint"):
        wants = [
            replace(each, model=model, steps=60)
            for each in (
                MASKED,
                RED,
                replace(MASKED, mask=None),
                replace(MASKED, mask_fill="noise", seed=9),
                replace(MASKED, mask_padding=8, mask_invert=True),
            )
        ]
        alone = [pixels(draw_one(engine, want)) for want in wants]
        mine = next(each for each in fake.loader.models if each.paints_masks == (model != "tiny"))
        mine.forwards.clear()
        shared = [pixels(result) for result in together(engine, wants)]
        assert max(mine.forwards) == 2 * len(wants)
        for ours, theirs in zip(shared, alone, strict=True):
            assert abs(ours.astype(int) - theirs).max() <= 1


def test_a_stroke_thinner_than_a_latent_cell_repaints(engine: Engine) -> None:
    stroke = encoded(box_mask((20, 10, 22, 50)))
    drawn = pixels(draw_one(engine, replace(MASKED, mask=stroke)))
    painted = inside((20, 10, 22, 50))
    assert (drawn[painted] != np.asarray(START)[painted]).any()
    assert (drawn[~painted] == np.asarray(START)[~painted]).all()


# ------------------------------------------------------------------------ a part of the picture


def test_only_masked_draws_the_surroundings_large_and_keeps_the_size_of_the_picture(
    engine: Engine,
) -> None:
    start, box = noise((200, 120)), (100, 40, 120, 60)
    request = replace(
        MASKED,
        init_image=encoded(start),
        mask=encoded(box_mask(box, start.size)),
        mask_padding=10,
    )
    drawn = pixels(draw_one(engine, request))
    painted = inside(box, start.size)
    assert drawn.shape == (120, 200, 3)
    assert (drawn[~painted] == np.asarray(start)[~painted]).all()
    assert (drawn[painted] != np.asarray(start)[painted]).any(axis=1).mean() > 0.9
    canvas, _ = canvas_of(request)
    (part,) = repaints_of(request, canvas)
    assert part.box == (90, 30, 130, 70)
    assert part.picture.size == part.mask.size == (64, 64)


@pytest.mark.parametrize(
    ("box", "padding", "size", "found"),
    [
        ((0, 0, 10, 10), 4, (64, 64), (0, 0, 14, 14)),  # at the corner
        ((50, 50, 60, 60), 0, (128, 64), (45, 50, 65, 60)),  # as wide again
        ((50, 50, 60, 60), 0, (64, 128), (50, 45, 60, 65)),
        ((0, 40, 200, 60), 8, (64, 64), (0, 0, 200, 120)),  # there is no room for a square
        ((190, 100, 200, 120), 200, (64, 64), (0, 0, 200, 120)),
    ],
)
def test_the_part_has_the_proportions_of_the_request_where_there_is_room(
    box: tuple[int, int, int, int],
    padding: int,
    size: tuple[int, int],
    found: tuple[int, int, int, int],
) -> None:
    request = replace(
        MASKED,
        width=size[0],
        height=size[1],
        init_image=png((1, 2, 3), (200, 120)),
        mask=encoded(box_mask(box, (200, 120))),
        mask_padding=padding,
    )
    canvas, _ = canvas_of(request)
    assert repaints_of(request, canvas)[0].box == found


@pytest.mark.parametrize("blur", [0.0, 0.4, 5.0, 9.7])
@pytest.mark.parametrize("box", [(90, 90, 110, 110), (0, 60, 12, 200), (40, 199, 41, 200)])
@pytest.mark.parametrize("extend", [(0, 0, 0, 0), (16, 0, 8, 0)])
def test_the_part_has_room_for_the_feather(blur: float, box: Box, extend: Box) -> None:
    black = Image.new("RGB", (200, 200))
    request = replace(
        MASKED,
        init_image=encoded(black),
        mask=encoded(box_mask(box, black.size)),
        mask_padding=0,
        mask_blur=blur,
        extend=extend,
    )
    canvas, _ = canvas_of(request)
    repaints = repaints_of(request, canvas)
    (whole,) = finished(request, repaints, [Image.new("RGB", (64, 64), (255, 255, 255))])
    feather = canvas.mask.filter(ImageFilter.GaussianBlur(blur)) if blur else canvas.mask
    assert whole.size == canvas.picture.size
    assert (np.asarray(whole) == np.asarray(feather)[:, :, None]).all()
    if box == (90, 90, 110, 110) and not any(extend):
        reach = 3 * math.ceil(blur)
        assert repaints[0].box == (90 - reach, 90 - reach, 110 + reach, 110 + reach)


def test_a_picture_is_extended_and_stays_what_it_is(engine: Engine) -> None:
    request = replace(MASKED, mask=None, extend=(8, 0, 24, 16))
    result = draw_one(engine, request)
    drawn = pixels(result)
    assert drawn.shape == (80, 96, 3)
    assert (drawn[:64, 8:72] == np.asarray(START)).all()
    canvas, _ = canvas_of(request)
    assert (np.asarray(canvas.mask) > 0).sum() == 80 * 96 - 64 * 64
    assert (np.asarray(canvas.picture)[:64, 72:] == np.asarray(START)[:, -1:]).all()
    assert result.request.extend == (8, 0, 24, 16)


def test_a_picture_is_extended_at_its_own_size_where_only_the_mask_is_drawn(
    engine: Engine,
) -> None:
    start = noise((120, 80))
    drawn = pixels(
        draw_one(
            engine,
            replace(
                MASKED,
                init_image=encoded(start),
                mask=None,
                extend=(0, 0, 40, 0),
                mask_padding=16,
            ),
        )
    )
    assert drawn.shape == (80, 160, 3)
    assert (drawn[:, :120] == np.asarray(start)).all()


def test_the_hires_fix_keeps_the_enlarged_picture_outside_the_mask(engine: Engine) -> None:
    small = draw_one(engine, replace(MASKED, hires_scale=2.0))
    assert (pixels(small)[~inside(BOX)] == np.asarray(START)[~inside(BOX)]).all()
    large = draw_one(engine, replace(MASKED, hires_scale=2.0, hires_keeps=True))
    doubled = START.resize((128, 128), Image.Resampling.LANCZOS)
    painted = np.asarray(box_mask(BOX).resize((128, 128), Image.Resampling.LANCZOS)) > 0
    assert (pixels(large)[~painted] == np.asarray(doubled)[~painted]).all()


# ------------------------------------------------------------------- what it starts from


def test_the_average_carries_the_colours_around_into_the_mask() -> None:
    halves = Image.new("RGB", (64, 64), (255, 0, 0))
    halves.paste((0, 0, 255), (32, 0, 64, 64))
    request = replace(MASKED, init_image=encoded(halves), mask_fill="average")
    canvas, _ = canvas_of(request)
    filled = np.asarray(repaints_of(request, canvas)[0].filled("average")).astype(int)
    assert (filled[~inside(BOX)] == np.asarray(halves)[~inside(BOX)]).all()
    left, right = filled[32, 17], filled[32, 38]
    assert left[0] > 200
    assert right[2] > 200
    assert len(FILL_BLURS) == 5


# --------------------------------------------------------------------------------------- bad input


def test_a_mask_that_is_none_is_one_sentence(engine: Engine) -> None:
    assert refused(engine, mask=b"no picture") == {
        "mask": "is not a picture in a format that is known here"
    }
    broken = encoded(box_mask(BOX))[:60]
    assert "truncated" not in refused(engine, mask=broken)["mask"]


def test_a_mask_or_borders_without_a_picture_are_refused(engine: Engine) -> None:
    assert refused(engine, init_image=None) == {"mask": "needs a picture to start from"}
    assert refused(engine, init_image=None, mask=None, extend=(8, 8, 8, 8)) == {
        "extend": "needs a picture to start from"
    }


def test_borders_beyond_the_limit_are_refused_before_anything_is_made(engine: Engine) -> None:
    assert list(refused(engine, extend=(65_000, 0, 65_000, 0))) == ["extend"]
    found = refused(engine, width=2048, height=2048, extend=(8, 0, 0, 0))
    assert found == {"extend": "the extended size must be at most 4,194,304 pixels"}


def test_a_mask_of_other_proportions_is_scaled_with_a_remark(engine: Engine) -> None:
    tall = encoded(box_mask(BOX).resize((64, 128)))
    result = draw_one(engine, replace(MASKED, mask=tall))
    assert result.warnings[-1].startswith("the mask is distorted, from 64 x 128 to 64 x 64")


def test_all_bad_pictures_are_told_at_once(engine: Engine) -> None:
    found = refused(engine, init_image=b"x", mask=b"y", steps=0)
    assert set(found) == {"init_image", "steps"}  # the mask is read after the picture
    assert set(refused(engine, mask=b"y", mask_blur=-1.0)) == {"mask", "mask_blur"}


def test_a_cancelled_repainting_leaves_nothing(engine: Engine) -> None:
    async def main() -> None:
        events = engine.generate(MASKED)
        async for event in events:
            if type(event).__name__ == "StepEvent":
                break
        await events.aclose()

    asyncio.run(main())
    assert pixels(draw_one(engine, MASKED)).shape == (64, 64, 3)
    _: ResolvedRequest = MASKED
