"""The dialect, spoken to in memory."""

import asyncio
import base64
import json

import httpx
import imagine_dialect_paint

from imagine_core.testing import build_test_app


def ask(folder, query, prompt):
    """The response of a server with one model."""
    app = build_test_app(folder, extra=[("dialect-paint", imagine_dialect_paint)])

    async def call():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(f"/paint?{query}", content=prompt)

    return asyncio.run(call())


def test_steps_and_the_picture_are_events(tmp_path):
    """And the last one has a PNG."""
    response = ask(tmp_path / "models", "width=64&height=64&steps=3&seed=7", "red")
    assert response.headers["content-type"] == "text/event-stream"
    parts = response.text.strip().split("\n\n")
    events = [part.split("\n") for part in parts if part != ":"]  # a comment keeps it alive
    assert [name for name, _ in events] == ["event: step"] * 3 + ["event: picture"]
    picture = json.loads(events[-1][1].removeprefix("data: "))
    assert picture["seed"] == "7"
    assert base64.b64decode(picture["url"].partition(",")[2]).startswith(b"\x89PNG")


def test_what_is_wrong_is_told_in_its_own_words(tmp_path):
    """All of it at once, what the engine finds included."""
    response = ask(tmp_path / "models", "steps=many&width=7", " ")
    assert response.status_code == 422
    assert set(response.json()) == {"problem"}
    for field in ("prompt", "width", "steps"):
        assert f"{field}: must" in response.json()["problem"]
