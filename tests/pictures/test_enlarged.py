"""An enlarged picture keeps what it was drawn from, and says how it was enlarged."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from imagine_core import UpscaleRequest
from imagine_core.pictures.enlarged import enlarged_png
from imagine_core.pictures.formats import encoded
from imagine_core.pictures.metadata import png_bytes
from upscalers import noise

INFOTEXT = "a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8"
META = {"prompt": "a fox, 狐狸", "seed": "1", "width": 8}


def texts(png: bytes) -> dict[str, Any]:
    return {str(key): value for key, value in Image.open(io.BytesIO(png)).info.items()}


def enlarged(data: bytes, label: str = "4x-UltraSharp", **request: Any) -> dict[str, Any]:
    asked = UpscaleRequest(image=data, **request)
    return texts(enlarged_png(noise(16, 16), asked, label=label))


def test_the_settings_of_a_png_stay_and_what_was_done_is_noted() -> None:
    found = enlarged(png_bytes(noise(8, 8), META, infotext=INFOTEXT), scale=2.0)
    assert json.loads(found["meta"]) == META
    assert found["parameters"] == INFOTEXT
    said = "Postprocess upscale by: 2, Postprocess upscaler: 4x-UltraSharp"
    assert found["postprocessing"] == said


def test_a_size_is_noted_as_one() -> None:
    found = enlarged(png_bytes(noise(8, 8), None), scale=None, size=(20, 30))
    assert found == {
        "postprocessing": "Postprocess upscale to: 20x30, Postprocess upscaler: 4x-UltraSharp"
    }


def test_a_name_that_would_break_the_note_is_quoted() -> None:
    found = enlarged(png_bytes(noise(8, 8), None), label='a, b: "c"', scale=1.5)
    said = r'Postprocess upscale by: 1.5, Postprocess upscaler: "a, b: \"c\""'
    assert found["postprocessing"] == said


@pytest.mark.parametrize("to", ["jpeg", "webp"])
def test_the_comment_of_another_format_becomes_the_infotext(to: str) -> None:
    assert enlarged(encoded(noise(8, 8), to, infotext=INFOTEXT))["parameters"] == INFOTEXT


def test_a_picture_that_was_enlarged_before_says_how_it_was_last() -> None:
    first = enlarged_png(
        noise(16, 16),
        UpscaleRequest(image=png_bytes(noise(8, 8), META), scale=2.0),
        label="Lanczos",
    )
    again = enlarged(first, label="Nearest", scale=3.0)
    assert json.loads(again["meta"]) == META
    assert again["postprocessing"] == "Postprocess upscale by: 3, Postprocess upscaler: Nearest"


@pytest.mark.parametrize("cut", [b"", b"no picture", png_bytes(noise(8, 8), META)[:200]])
def test_metadata_that_cannot_be_read_is_done_without(cut: bytes) -> None:
    assert "postprocessing" in enlarged(cut)
