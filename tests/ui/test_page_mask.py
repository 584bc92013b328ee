"""The mask painter: what is painted over a picture is what the server is asked to repaint."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

from ui.browsing import OpenPage, asked, draw, drop, message, ready, save_settings, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

SIZE = (240, 160)
KINDS = {"mouse": {}, "touch": {"has_touch": True}}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def give(page: Page, image: Image.Image | None = None) -> None:
    """Start from a picture, with the repainting's fields there."""
    picture = image or Image.new("RGB", SIZE, "#5588aa")
    file = {"name": "start.png", "mimeType": "image/png", "buffer": png(picture)}
    page.set_input_files("#input-file", files=file)  # type: ignore[arg-type]
    page.wait_for_selector("#mask:visible")


def open_painter(page: Page, *, size: int = 20) -> None:
    page.click("#mask")
    page.wait_for_selector("#painter[open]")
    page.locator("#brush-size").fill(str(size))


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture is in the window."""
    box = page.locator(".paint-sheet canvas").bounding_box()
    assert box is not None
    width, height = page.evaluate(
        "(({ width, height }) => [width, height])(document.querySelector('.paint-sheet canvas'))"
    )
    return box["x"] + x * box["width"] / width, box["y"] + y * box["height"] / height


def stroke(page: Page, *points: tuple[float, float]) -> None:
    """Draw with the mouse, from point to point of the picture."""
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up()


def wheel(page: Page, by: int) -> None:
    """Turn the wheel, and wait until the picture has another size."""
    sheet = page.locator(".paint-sheet canvas")
    before = sheet.bounding_box()
    page.mouse.wheel(0, by)
    until(lambda: sheet.bounding_box() != before)


def done(page: Page) -> None:
    page.get_by_role("button", name="Done").click()
    page.wait_for_selector("#painter", state="hidden")


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def sent(page: Page, fake: FakeServer) -> Image.Image:
    """The mask that the server gets."""
    draw(page)
    return decoded(asked(fake)["mask"])


def white(mask: Image.Image, x: int, y: int) -> bool:
    """Whether the mask marks a point; it is plainly black or white there."""
    value = mask.convert("L").getpixel((x, y))
    assert value in (0, 255)
    return value == 255


# ------------------------------------------------------------------------------------ painting


def test_a_stroke_of_the_mouse_is_sent_as_white_on_black_in_the_size_of_the_picture(
    page: Page, fake: FakeServer
) -> None:
    give(page)
    open_painter(page)
    stroke(page, (60, 80), (180, 80))
    done(page)
    mask = sent(page, fake)
    assert mask.size == SIZE
    assert mask.mode == "RGB"  # opaque
    assert all(white(mask, x, 80) for x in range(55, 186))
    assert all(white(mask, 120, y) for y in (72, 88))
    for outside in [(60, 60), (120, 65), (120, 95), (45, 80), (195, 80), (0, 0), (239, 159)]:
        assert not white(mask, *outside)
    marked = sum(mask.convert("L").histogram()[128:])
    assert marked == pytest.approx(120 * 20 + 3.1416 * 100, rel=0.02)


def test_a_click_is_a_dot(page: Page, fake: FakeServer) -> None:
    give(page)
    open_painter(page)
    page.mouse.click(*place(page, 30, 30))
    done(page)
    mask = sent(page, fake)
    assert white(mask, 30, 30)
    assert sum(mask.convert("L").histogram()[128:]) == pytest.approx(314, rel=0.05)


def test_the_eraser_takes_away_and_undo_and_redo_walk_through_the_steps(
    page: Page, fake: FakeServer
) -> None:
    give(page)
    open_painter(page)
    assert page.get_by_role("button", name="Undo").is_disabled()
    stroke(page, (60, 80), (180, 80))
    page.locator("#painter").get_by_text("Eraser", exact=True).click()
    stroke(page, (120, 60), (120, 100))
    done(page)
    mask = sent(page, fake)
    assert (white(mask, 80, 80), white(mask, 120, 80), white(mask, 160, 80)) == (True, False, True)
    open_painter(page)
    page.get_by_role("button", name="Undo").click()
    done(page)
    assert white(sent(page, fake), 120, 80)
    open_painter(page)
    page.keyboard.press("Control+y")
    done(page)
    assert not white(sent(page, fake), 120, 80)
    open_painter(page)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.get_by_text("Nothing is marked yet.").wait_for()


def test_invert_fill_and_clear(page: Page, fake: FakeServer) -> None:
    give(page)
    open_painter(page)
    stroke(page, (60, 80), (180, 80))
    page.get_by_role("button", name="Invert").click()
    done(page)
    mask = sent(page, fake)
    assert (white(mask, 120, 80), white(mask, 120, 20), white(mask, 0, 0)) == (False, True, True)
    open_painter(page)
    page.get_by_role("button", name="Fill").click()
    done(page)
    assert sent(page, fake).convert("L").getextrema() == (255, 255)
    open_painter(page)
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Nothing is marked yet.").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("100% of the picture is marked.").wait_for()


def test_without_a_mark_nothing_is_sent(page: Page, fake: FakeServer) -> None:
    give(page)
    open_painter(page)
    page.get_by_role("button", name="Fill").click()
    page.get_by_role("button", name="Clear").click()
    done(page)
    draw(page)
    named = {name for name in asked(fake) if name.startswith(("mask", "extend"))}
    assert named == set()
    assert page.inner_text("#mask") == "Paint a mask"


def test_painting_while_zoomed_and_moved_lands_where_it_looks(page: Page, fake: FakeServer) -> None:
    give(page)
    open_painter(page, size=4)
    page.mouse.move(*place(page, 200, 40))
    wheel(page, -1000)
    page.keyboard.press("m")
    before = place(page, 200, 40)
    page.mouse.move(600, 400)
    page.mouse.down()
    page.mouse.move(540, 450, steps=3)
    page.mouse.up()
    assert place(page, 200, 40) == pytest.approx((before[0] - 60, before[1] + 50), abs=1)
    page.keyboard.press("b")
    stroke(page, (200, 40), (210, 40))
    done(page)
    mask = sent(page, fake).convert("L")
    box = mask.point(lambda value: 255 * (value > 127)).getbbox()
    assert box == pytest.approx((198, 38, 212, 42), abs=1)


def test_zoom_keeps_the_point_under_the_pointer_and_0_shows_all(page: Page) -> None:
    give(page)
    open_painter(page)
    whole = page.locator(".paint-sheet canvas").bounding_box()
    assert whole is not None
    spot = place(page, 50, 50)
    page.mouse.move(*spot)
    wheel(page, -400)
    assert place(page, 50, 50) == pytest.approx(spot, abs=2)  # the pointer is at a whole pixel
    page.keyboard.press("+")
    larger = page.locator(".paint-sheet canvas").bounding_box()
    assert larger is not None
    assert larger["width"] > 2 * whole["width"]
    page.keyboard.press("0")
    assert page.locator(".paint-sheet canvas").bounding_box() == whole


# ------------------------------------------------------------------------------ touch and keys


def touch(page: Page, *steps: tuple[str, list[tuple[float, float]]]) -> None:
    """Fingers on the screen, as the browser gets them."""
    session = page.context.new_cdp_session(page)
    for kind, points in steps:
        fingers = [{"x": x, "y": y, "id": at} for at, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


@pytest.fixture
def phone(open_page: OpenPage) -> Page:
    """The page on a small screen with a finger."""
    opened = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    ready(opened)
    return opened


def test_a_finger_paints(phone: Page, fake: FakeServer) -> None:
    give(phone)
    open_painter(phone)
    points = [place(phone, x, 80) for x in (60, 90, 120, 150)]
    moves = [("touchMove", [point]) for point in points[1:]]
    touch(phone, ("touchStart", points[:1]), *moves, ("touchEnd", []))
    done(phone)
    mask = sent(phone, fake)
    assert all(white(mask, x, 80) for x in range(60, 151))
    assert not white(mask, 200, 80)


def test_two_fingers_zoom_and_paint_nothing(phone: Page, fake: FakeServer) -> None:
    give(phone)
    open_painter(phone)
    before = phone.locator(".paint-sheet canvas").bounding_box()
    x, y = place(phone, 120, 80)
    spread = [("touchMove", [(x - 20 - by, y), (x + 20 + by, y)]) for by in (10, 20, 40)]
    first = ("touchStart", [(x - 20, y)])
    both = ("touchStart", [(x - 20, y), (x + 20, y)])
    lifted = [("touchEnd", [(x - 60, y)]), ("touchMove", [(x, y + 30)]), ("touchEnd", [])]
    touch(phone, first, both, *spread, *lifted)
    after = phone.locator(".paint-sheet canvas").bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] == pytest.approx(before["width"] * 3, rel=0.05)
    phone.get_by_text("Nothing is marked yet.").wait_for()
    assert phone.get_by_role("button", name="Undo").is_disabled()
    done(phone)
    draw(phone)
    assert "mask" not in asked(fake)


def test_all_of_it_works_with_the_keyboard_alone(page: Page, fake: FakeServer) -> None:
    give(page)
    page.focus("#mask")
    page.keyboard.press("Enter")
    page.wait_for_selector("#painter[open]")
    assert page.locator(".paint-view:focus").count() == 1
    size = int(page.input_value("#brush-size"))  # a tenth of the shorter side
    assert size == 16
    page.keyboard.press("Space")  # a dot in the middle
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.keyboard.down("Space")
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    page.keyboard.up("Space")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("]")
    assert page.input_value("#brush-size") == "20"
    page.keyboard.press("Escape")
    page.wait_for_selector("#painter", state="hidden")
    assert page.locator("#mask:focus").count() == 1
    mask = sent(page, fake)
    assert white(mask, 120, 80)
    assert [white(mask, 80, y) for y in (80, 70, 60, 40)] == [True, True, True, False]
    assert not white(mask, 100, 80)
    page.focus("#mask")
    page.keyboard.press("Enter")
    page.keyboard.press("i")
    page.keyboard.press("Escape")
    page.wait_for_selector("#painter", state="hidden")
    assert not white(sent(page, fake), 120, 80)


# --------------------------------------------------------------------------------- other masks


def spot(size: tuple[int, int], mode: str = "L") -> Image.Image:
    """A mask whose right half is to be repainted."""
    image = Image.new("L", size)
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, size[0], size[1]), fill=255)
    if mode == "L":
        return image
    clear = Image.new("RGBA", size, "red")
    clear.putalpha(image.point(lambda value: 255 - value))
    return clear


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_mask_of_another_size_is_scaled(page: Page, fake: FakeServer, mode: str) -> None:
    give(page)
    drop(page, "#repaint", "mask.png", png(spot((60, 80), mode)), "image/png")
    page.get_by_role("button", name="Remove the mask").wait_for()
    mask = sent(page, fake)
    assert mask.size == SIZE
    assert (white(mask, 60, 80), white(mask, 180, 80)) == (False, True)


def test_a_mask_is_dropped_on_the_painter_and_can_be_undone(page: Page, fake: FakeServer) -> None:
    give(page)
    open_painter(page)
    drop(page, ".paint-view", "mask.png", png(spot(SIZE)), "image/png")
    page.get_by_text("50% of the picture is marked.").wait_for()
    stroke(page, (20, 20), (60, 20))
    done(page)
    mask = sent(page, fake)
    assert (white(mask, 40, 20), white(mask, 40, 120), white(mask, 200, 120)) == (True, False, True)


@pytest.mark.parametrize("target", ["#repaint", ".paint-view"])
def test_a_mask_of_other_proportions_is_remarked_on(page: Page, target: str) -> None:
    words = "The mask is 60 \u00d7 80, the picture 240 \u00d7 160: it is stretched."
    give(page)
    if target == ".paint-view":
        open_painter(page)
    drop(page, target, "mask.png", png(spot((60, 80))), "image/png")
    if target == ".paint-view":
        page.locator(".paint-foot .note", has_text=words).wait_for()
        done(page)
    page.locator(".odd-mask", has_text=words).wait_for()
    drop(page, "#repaint", "mask.png", png(spot((120, 80))), "image/png")  # half as large
    page.locator(".odd-mask", has_text=words).wait_for(state="hidden")
    drop(page, "#repaint", "mask.png", png(spot((60, 80))), "image/png")
    page.locator(".odd-mask", has_text=words).wait_for()
    page.get_by_role("button", name="Remove the mask").click()
    assert page.inner_text(".odd-mask") == ""


@pytest.mark.parametrize("size", [(390, 844), (1366, 768)])
def test_after_the_painter_the_mask_is_seen_over_the_picture(
    open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = open_page(viewport={"width": size[0], "height": size[1]})
    ready(page)
    draw(page)
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    page.keyboard.press("Space")
    done(page)
    frame = page.locator(".frame")
    bar = page.locator(".go")
    frame.wait_for()

    def seen() -> bool:
        inside, below = frame.bounding_box(), bar.bounding_box()
        assert inside is not None
        assert below is not None
        return 0 <= inside["y"] <= below["y"] - inside["height"]

    until(seen)
    assert page.locator("#mask:focus").count() == 1
    at = "(canvas, at) => [...canvas.getContext('2d').getImageData(at, at, 1, 1).data]"
    middle = frame.evaluate(at, 160)
    assert middle[0] > middle[1] + 60  # the mask's colour over whatever is there


@pytest.mark.parametrize("target", ["#repaint", ".paint-view"])
def test_a_file_that_is_no_picture_is_no_mask(page: Page, target: str) -> None:
    give(page)
    if target == ".paint-view":
        open_painter(page)
    drop(page, target, "mask.png", b"\x89PNG\r\n\x1a\n and then nothing", "image/png")
    message(page, "mask.png is not a picture that the browser can read.", "bad")
    assert page.is_hidden(".frame")


def test_a_dragged_picture_finds_a_zone_for_the_mask(page: Page, fake: FakeServer) -> None:
    draw(page)
    give(page)
    zone = "#drop .drop-zone:has-text('Use as the mask')"
    page.hover(".thumb")
    page.mouse.down()
    page.mouse.move(400, 300, steps=3)
    page.hover(zone)
    page.hover(zone)
    page.mouse.up()
    page.get_by_role("button", name="Remove the mask").wait_for()
    assert sent(page, fake).size == SIZE


def test_the_mask_goes_with_its_picture(page: Page, fake: FakeServer) -> None:
    give(page)
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    page.get_by_role("button", name="Remove the mask").click()
    draw(page)
    assert "mask" not in asked(fake)
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    page.get_by_role("button", name="Remove the mask").wait_for()
    give(page, Image.new("RGB", (64, 64), "red"))
    draw(page)
    assert "mask" not in asked(fake)


def test_a_mask_that_was_removed_or_replaced_comes_back_with_undo(
    page: Page, fake: FakeServer
) -> None:
    give(page)
    open_painter(page)
    stroke(page, (60, 80), (100, 80))
    done(page)
    marked = "Imagine.painter && document.querySelector('.paint-foot .note').textContent"
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    until(lambda: "50%" in page.evaluate(marked))
    page.get_by_role("button", name="Remove the mask").click()
    open_painter(page)
    page.get_by_text("Nothing is marked yet.").wait_for()
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    page.get_by_text("50% of the picture is marked.").wait_for()
    undo.click()
    done(page)
    mask = sent(page, fake)
    assert (white(mask, 80, 80), white(mask, 180, 80)) == (True, False)


# ------------------------------------------------------------------------------- what it is for


def test_how_the_mask_acts_is_sent_with_it(page: Page, fake: FakeServer) -> None:
    give(page)
    assert page.is_hidden("#mask_blur")
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    page.wait_for_selector("#mask_blur:visible")
    draw(page)
    plain = {"mask_blur": 4, "mask_fill": "original", "mask_invert": False}
    assert {name: asked(fake)[name] for name in plain} == plain
    assert "mask_padding" not in asked(fake)
    page.fill("#mask_blur", "7.5")
    page.select_option("#mask_fill", "noise")
    page.check("#mask_invert")
    page.check("#mask_padding-on")
    page.fill("#mask_padding", "48")
    draw(page)
    wanted = {"mask_blur": 7.5, "mask_fill": "noise", "mask_invert": True, "mask_padding": 48}
    assert {name: asked(fake)[name] for name in wanted} == wanted


def test_a_picture_is_extended_beyond_its_own_size_and_the_frame_shows_it(
    page: Page, fake: FakeServer
) -> None:
    page.fill("#width", "512")
    page.fill("#height", "768")
    give(page)
    page.fill("#extend-left", "80")
    page.fill("#extend-bottom", "160")
    page.wait_for_selector(".frame:visible")
    assert page.inner_text("#extend-note") == "The picture becomes 592 \u00d7 928."
    page.get_by_role("button", name="Draw in its own size, 240 \u00d7 160").click()
    assert page.inner_text("#extend-note") == "The picture becomes 320 \u00d7 320."
    frame = page.locator(".frame").evaluate("(canvas) => [canvas.width, canvas.height]")
    assert frame == [320, 320]  # of 240 + 80, and 160 + 160
    at = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    picture, border = [
        page.locator(".frame").evaluate(at, point) for point in ([200, 80], [20, 300])
    ]
    assert picture == [0x55, 0x88, 0xAA, 255]
    assert border != picture
    draw(page)
    assert asked(fake)["extend"] == [80, 0, 0, 160]
    assert (asked(fake)["width"], asked(fake)["height"]) == SIZE  # to which the server adds them
    assert asked(fake)["mask_fill"] == "original"
    page.click("#input-remove")
    draw(page)
    assert "extend" not in asked(fake)


def test_the_borders_go_with_their_picture(page: Page, fake: FakeServer, tmp_path: Path) -> None:
    give(page)
    page.fill("#extend-left", "80")
    draw(page)
    saved = save_settings(page, tmp_path)
    page.click("#act-input")
    until(lambda: page.input_value("#extend-left") == "0")
    draw(page)
    assert "extend" not in asked(fake)
    page.fill("#extend-top", "8")
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    done(page)
    assert page.input_value("#extend-top") == "0"
    oldest = page.locator(".thumb").last
    oldest.click()
    until(lambda: oldest.get_attribute("aria-selected") == "true")
    page.click("#act-restore")  # has a picture with borders
    until(lambda: page.input_value("#extend-left") == "80")
    page.click("#input-remove")
    page.set_input_files("#settings-file", saved)
    message(page, "Loaded settings.json.", "good")
    draw(page)
    assert asked(fake)["extend"] == [80, 0, 0, 0]


def test_borders_beyond_the_servers_pixels_are_refused_until_there_is_room(
    page: Page, fake: FakeServer
) -> None:
    give(page)
    fake.limits["pixels"] = 240 * 160
    page.reload()
    ready(page)
    give(page)
    page.fill("#extend-top", "64")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.locator(
        "#extend-error", has_text="38,400 pixels, with what is beyond the edges"
    ).wait_for()
    outline = page.locator("#extend").evaluate("(it) => getComputedStyle(it).boxShadow")
    assert outline == "none"  # which would run through the legend
    page.fill("#extend-top", "0")
    assert page.is_hidden("#extend-error")
    assert fake.requests == []


def test_a_border_that_is_none_is_refused_before_it_is_sent(page: Page, fake: FakeServer) -> None:
    give(page)
    page.fill("#extend-top", "12")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#extend-error:visible")
    assert fake.requests == []


def test_the_picture_on_the_stage_is_repainted(page: Page, fake: FakeServer) -> None:
    draw(page)
    first = asked(fake)
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    page.keyboard.press("Space")
    done(page)
    mask = sent(page, fake)
    assert mask.size == (first["width"], first["height"])
    assert white(mask, first["width"] // 2, first["height"] // 2)
    assert decoded(asked(fake)["img"]).size == mask.size


def test_the_server_says_what_it_does_not_take_beside_the_mask(
    page: Page, fake: FakeServer
) -> None:
    give(page)
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    page.wait_for_selector("#mask_blur:visible")
    wrong = [{"field": "mask", "message": "is no picture"}]
    fake.refuse = (422, {"message": "x", "fields": wrong})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#mask-error:has-text('is no picture')")


# ------------------------------------------------------------------------------------- keeping


def test_the_gallery_and_a_settings_file_bring_the_mask_back(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    give(page)
    drop(page, "#repaint", "mask.png", png(spot(SIZE)), "image/png")
    page.wait_for_selector("#mask_blur:visible")
    page.select_option("#mask_fill", "blank")
    draw(page)
    saved = save_settings(page, tmp_path)
    page.reload()
    ready(page)
    page.wait_for_selector("#act-restore:visible")
    draw(page)
    assert "mask" not in asked(fake)

    def restored() -> dict[str, Any]:
        page.get_by_role("button", name="Remove the mask").wait_for()
        mask = sent(page, fake)
        assert (white(mask, 60, 80), white(mask, 180, 80)) == (False, True)
        return asked(fake)

    page.locator(".thumb").nth(1).click()
    page.click("#act-restore")
    assert restored()["mask_fill"] == "blank"
    page.click("#input-remove")
    page.set_input_files("#settings-file", saved)
    assert restored()["mask_fill"] == "blank"


def test_how_a_mask_acts_is_there_again_at_the_next_visit(page: Page, fake: FakeServer) -> None:
    give(page)
    page.fill("#extend-left", "64")
    page.wait_for_selector("#mask_blur:visible")
    page.fill("#mask_blur", "9")
    page.reload()
    ready(page)
    draw(page)
    assert "extend" not in asked(fake)  # there is no picture
    give(page)
    assert page.input_value("#extend-left") == "0"  # it was for the picture before
    page.fill("#extend-left", "64")
    assert page.input_value("#mask_blur") == "9"


def test_a_page_opened_as_a_file_paints_too(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    give(page)
    open_painter(page)
    stroke(page, (60, 80), (180, 80))
    done(page)
    assert white(sent(page, fake), 120, 80)
