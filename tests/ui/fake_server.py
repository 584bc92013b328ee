"""A server that speaks the wire contract with instant pictures, and fails on demand."""

from __future__ import annotations

import asyncio
import base64
import colorsys
import contextlib
import functools
import io
import json
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from PIL import Image, ImageDraw, ImageOps
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from imagine_plugins import page

Json = dict[str, Any]

SAMPLERS: list[Json] = [
    {
        "name": "dpm++ 2m",
        "label": "DPM++ 2M",
        "aliases": ["dpmpp_2m"],
        "evaluations": 1,
        "stochastic": False,
        "schedules": ["default", "karras", "exponential"],
        "plugin": "imagine-samplers-diffusers",
    },
    {
        "name": "heun",
        "label": "Heun",
        "aliases": [],
        "evaluations": 2,
        "stochastic": False,
        "schedules": ["default"],
        "plugin": "imagine-samplers-diffusers",
    },
    {
        "name": "euler a",
        "label": "Euler a",
        "aliases": [],
        "evaluations": 1,
        "stochastic": True,
        "schedules": ["default", "karras"],
        "plugin": "imagine-samplers-diffusers",
    },
]
MODELS: list[Json] = [
    {
        "name": "doodle",
        "family": "doodle",
        "size": 31_000_000,
        "recommended_size": [512, 512],
        "clip_layers": 3,
    },
    {
        "name": "dreamshaper_8",
        "takes": ["lora", "embedding", "vae", "controlnet"],
        "family": "sd1",
        "size": 2_132_626_066,
        "recommended_size": [512, 512],
        "clip_layers": 12,
    },
    {
        "name": "sdxl_base",
        "takes": ["lora", "embedding", "vae", "controlnet"],
        "family": "sdxl",
        "size": 6_938_078_334,
        "recommended_size": [1024, 1024],
        "clip_layers": 12,
    },
]
PARTS: dict[str, list[Json]] = {
    "lora": [
        {
            "name": "watercolour",
            "family": "sd1",
            "size": 37_861_176,
            "fits": ["sd1"],
            "details": {"triggers": ["watercolour style", "wet paper"], "ranks": [16]},
        },
        {
            "name": "ink",
            "family": "sd1",
            "size": 18_200_000,
            "fits": ["sd1", "sd2"],
            "details": {"ranks": [4, 8]},
        },
        {"name": "pixels_xl", "family": "sdxl", "size": 170_000_000, "fits": ["sdxl"]},
        {
            "name": "torn",
            "family": "unknown",
            "size": 12,
            "fits": [],
            "problem": "the file is cut short; fetch it again",
        },
    ],
    "embedding": [
        {
            "name": "badhands",
            "family": "sd1",
            "size": 25_000,
            "fits": ["sd1"],
            "details": {"vectors": 8},
        },
        {"name": "glow_xl", "family": "sdxl", "size": 33_000, "fits": ["sdxl"]},
    ],
    "vae": [],
    "controlnet": [
        {"name": "canny", "family": "sd1", "size": 722_000_000, "fits": ["sd1"]},
        {"name": "depth", "family": "sd1", "size": 722_000_000, "fits": ["sd1"]},
        {"name": "canny_xl", "family": "sdxl", "size": 2_500_000_000, "fits": ["sdxl"]},
    ],
}
PREPROCESSORS: list[Json] = [
    {"name": "canny", "label": "Canny"},
    {"name": "invert", "label": "Invert"},
]
UPSCALERS: list[Json] = [
    {"name": "lanczos", "label": "Lanczos"},
    {"name": "nearest", "label": "Nearest"},
]
LIMITS: Json = {
    "pixels": 2048 * 2048,
    "steps": 200,
    "images": 16,
    "queue": 64,
    "body": 64 * 2**20,
    "prompt": 20_000,
    "smallest": 64,
    "multiple": 8,
}
READY: Json = {"status": "ready", "ready": True, "device": "cpu"}
PHASES = ("queued", "loading", "encoding", "denoising")


@functools.cache
def picture(seed: int, width: int, height: int, *, blur: int = 0) -> bytes:
    """A little landscape, another for each seed; blurred where it is not finished."""
    rng = random.Random(seed)
    hue = rng.random()
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for row in range(height):
        low = row / height
        draw.line((0, row, width, row), fill=colour(hue + 0.15 * low, 0.55, 0.45 + low / 2))
    x, y, radius = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.5) * height, height / 8
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(hue + 0.5, 0.25, 1))
    for layer in range(3):
        phase, shade = rng.uniform(0, 6), colour(hue + 0.3, 0.5, 0.5 - layer * 0.13)
        ridge = [
            (at, height * (0.62 + layer * 0.13 + 0.08 * math.sin(phase + at / width * (4 + layer))))
            for at in range(0, width + 8, 8)
        ]
        draw.polygon([(0, height), *ridge, (width, height)], fill=shade)
    if blur:
        coarse = (max(1, width // blur), max(1, height // blur))
        image = image.reduce(max(1, min(blur, width, height))).resize(coarse)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return as_png(image)


def colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, min(1, value))
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass
class FakeServer:
    """The server and its switches; a test turns them, and reads what was asked for."""

    step_seconds: float = 0.0
    models: list[Json] = field(default_factory=lambda: [dict(model) for model in MODELS])
    parts: dict[str, list[Json]] = field(
        default_factory=lambda: {
            kind: [{"kind": kind, **part} for part in parts] for kind, parts in PARTS.items()
        }
    )
    samplers: list[Json] = field(default_factory=lambda: [dict(sampler) for sampler in SAMPLERS])
    limits: Json = field(default_factory=lambda: dict(LIMITS))
    enhancers: list[Json] = field(default_factory=list)
    preprocessors: list[Json] | None = field(default_factory=lambda: [*PREPROCESSORS])
    upscalers: list[Json] | None = field(default_factory=lambda: [*UPSCALERS])
    health: Json = field(default_factory=lambda: dict(READY))
    key: str | None = None
    queue_position: int = 0
    hold_at_step: int | None = None
    hold_at_phase: str | None = None
    lose_at_step: int | None = None
    fail_at_step: int | None = None
    fail_for_seed: int | None = None
    hold_for_seed: int | None = None
    nonsense: bool = False
    down: bool = False
    refuse: tuple[int, Json] | None = None
    warnings: list[str] = field(default_factory=list)
    requests: list[Json] = field(default_factory=list)
    enhanced: list[Json] = field(default_factory=list)
    preprocessed: list[Json] = field(default_factory=list)
    enlarged: list[Json] = field(default_factory=list)
    hold_enlarging: bool = False
    steps_done: int = 0
    running: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    # ------------------------------------------------------------------------------- routes

    def app(self) -> Starlette:
        routes: list[BaseRoute] = [
            Route("/generate", self.generate, methods=["POST"]),
            Route("/models", self.get_models),
            Route("/samplers", self.get_samplers),
            Route("/health", self.get_health),
            Route("/version", self.get_version),
            Route("/enhancers", self.get_enhancers),
            Route("/enhance", self.post_enhance, methods=["POST"]),
            Route("/preprocessors", self.get_preprocessors),
            Route("/preprocess", self.post_preprocess, methods=["POST"]),
            Route("/upscalers", self.get_upscalers),
            Route("/upscale", self.post_upscale, methods=["POST"]),
        ]
        page.register_routes(register=routes.append)
        cors = Middleware(
            CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]
        )
        return Starlette(routes=routes, middleware=[cors])

    async def get_models(self, request: Request) -> Response:
        kind = request.query_params.get("kind", "model")
        found = self.models if kind == "model" else self.parts[kind]
        names = [each["name"] for each in found if not each.get("problem")]
        default = names[0] if kind == "model" else None
        body = {"models": names, "details": found, "limits": self.limits, "default": default}
        return self.locked(request) or JSONResponse(body)

    async def get_samplers(self, request: Request) -> Response:
        body = {
            "samplers": [sampler["name"] for sampler in self.samplers],
            "details": self.samplers,
        }
        return self.locked(request) or JSONResponse(body)

    async def get_health(self, request: Request) -> Response:
        if self.down:
            return error(503, "shutting_down", "the server is shutting down")
        return JSONResponse(self.health)

    async def get_version(self, request: Request) -> Response:
        return self.locked(request) or JSONResponse({"version": "0.1.0", "limits": self.limits})

    async def get_enhancers(self, request: Request) -> Response:
        names = [enhancer["name"] for enhancer in self.enhancers if not enhancer.get("problem")]
        body = {"enhancers": names, "default": names[:1], "details": self.enhancers}
        return self.locked(request) or JSONResponse(body)

    async def post_enhance(self, request: Request) -> Response:
        body = await request.json()
        self.enhanced.append(body)
        reply = {"prompt": f"{body['prompt']}, golden light, detailed"}
        if body.get("neg"):
            reply["neg"] = "blurry, dull"
        return JSONResponse(reply)

    async def get_preprocessors(self, request: Request) -> Response:
        return listed("preprocessors", self.preprocessors)

    async def get_upscalers(self, request: Request) -> Response:
        return listed("upscalers", self.upscalers)

    async def post_preprocess(self, request: Request) -> Response:
        body = await request.json()
        self.preprocessed.append(body)
        with Image.open(io.BytesIO(base64.b64decode(body["img"]))) as image:
            hint = ImageOps.invert(image.convert("RGB"))
        return JSONResponse({"img": encode(as_png(hint)), "preprocessor": body["preprocessor"]})

    async def post_upscale(self, request: Request) -> Response:
        body = await request.json()
        self.enlarged.append(body)
        if self.refuse is not None:
            status, problem = self.refuse
            return JSONResponse({"error": problem}, status)
        return StreamingResponse(self.enlarging(body), media_type="application/x-ndjson")

    async def enlarging(self, body: Json) -> AsyncIterator[bytes]:
        self.running += 1
        try:
            for step in range(5):
                line = {"id": "up1", "status": "progress", "step": step, "steps": 4}
                yield (json.dumps(line) + "\n").encode()
                if step == 2 and self.hold_enlarging:
                    await self.held()
            with Image.open(io.BytesIO(base64.b64decode(body["img"]))) as image:
                large = image.resize([round(side * body["scale"]) for side in image.size])
            reply = {"id": "up1", "status": "final", "img": encode(as_png(large))}
            yield (json.dumps(reply | {"timings": {"enlarging": 2.0}, "warnings": []})).encode()
        finally:
            self.running -= 1

    def locked(self, request: Request) -> Response | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "unauthorized", "this server wants its API key")
        return None

    # --------------------------------------------------------------------------- generating

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        refused = self.locked(request)
        if refused:
            return refused
        self.requests.append(body)
        body = self.complete(body)
        if self.refuse is not None:
            status, problem = self.refuse
            headers = {"retry-after": "7"} if status == 503 else {}
            return JSONResponse({"error": problem}, status, headers)
        if self.nonsense:
            return Response("<html>Welcome to my router</html>", media_type="text/html")
        return StreamingResponse(self.lines(body), media_type="application/x-ndjson")

    def complete(self, body: Json) -> Json:
        """The request with what the model draws with where it says nothing."""
        name = body.get("model", self.models[0]["name"])
        own = [model.get("defaults", {}) for model in self.models if model["name"] == name]
        return {**(own[0] if own else {}), **body}

    async def lines(self, body: Json) -> AsyncIterator[bytes]:
        job = f"job{len(self.requests)}"
        self.running += 1
        try:
            async for line in self.events(body):
                yield (json.dumps({"id": job, **line}) + "\n").encode()
        finally:
            self.running -= 1

    async def events(self, body: Json) -> AsyncIterator[Json]:
        seed, steps, every = int(body["seed"]), body["steps"], body.get("stream") or 0
        for phase in PHASES:
            yield {"status": phase, "position": self.queue_position if phase == "queued" else 0}
            if self.hold_at_phase == phase:
                await self.held()
        for step in range(1, steps + 1):
            await asyncio.sleep(self.step_seconds)
            await self.fault(step, seed)
            if self.fail_at_step == step or (self.fail_for_seed == seed and step == steps):
                yield {"error": {"type": "out_of_memory", "message": "the device has no memory"}}
                return
            self.steps_done += 1
            line: Json = {"status": "progress", "step": step, "steps": steps}
            if every and step % every == 0 and step < steps:
                blur = 64 if step < steps / 2 else 16
                image = picture(seed, body["width"], body["height"], blur=blur)
                line |= {"status": "intermediate", "seed": str(seed), "img": encode(image)}
            yield line
        yield {"status": "decoding"}
        yield self.final(body, seed)

    async def fault(self, step: int, seed: int) -> None:
        if self.lose_at_step == step:
            raise ConnectionResetError
        if self.hold_at_step == step or self.hold_for_seed == seed:
            await self.held()

    async def held(self) -> None:
        while not self.released.is_set():  # noqa: ASYNC110 - a test sets it from its own thread
            await asyncio.sleep(0.01)

    def final(self, body: Json, seed: int) -> Json:
        image = picture(seed, body["width"], body["height"])
        reply: Json = {"status": "final", "img": encode(image), "seed": str(seed)}
        reply |= {"model": body.get("model", self.models[0]["name"]), "warnings": self.warnings}
        return reply

    # ------------------------------------------------------------------------------ serving

    @contextlib.contextmanager
    def serve(self) -> Iterator[FakeServer]:
        """Listen on a free port of this machine for as long as the block runs."""
        config = uvicorn.Config(
            self.app(),
            host="127.0.0.1",
            port=0,
            log_level="critical",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            self.released.set()
            server.should_exit = True
            thread.join(10)


def listed(name: str, details: list[Json] | None) -> Response:
    """A list of the server's; a server of before knows none."""
    if details is None:
        return error(404, "not_found", "there is nothing here")
    return JSONResponse({name: [each["name"] for each in details], "details": details})


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message, "fields": []}}, status)


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    with FakeServer(step_seconds=0.1).serve() as fake:
        print(fake.url)
        threading.Event().wait()
