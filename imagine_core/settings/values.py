"""Settings: what an engine and a server are built with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - the contract's default; `serve` warns without a key
DEFAULT_PORT = 5000


def default_models_folder() -> Path:
    """The models folder, unless a flag names another."""
    return Path.home() / ".imagine" / "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one request, and of the queue.

    Attributes:
        pixels: Width times height of a picture, hires scale included.
        steps: Sampling steps.
        images: Pictures per request.
        queue: Requests that may wait; further ones are refused as busy.
        body: Bytes of a request body.
        prompt: Characters of a prompt.
    """

    pixels: int = 2048 * 2048
    steps: int = 1000
    images: int = 16
    queue: int = 64
    body: int = 64 * 2**20
    prompt: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an engine is built with.

    Attributes:
        models: The user's models folder; may be missing.
        device: Name of a registered device, or "auto".
        full_precision: float32 instead of the device's own choice.
        default_model: The model of requests that name none.
        preload: Models to load at the start, beside the default one if that is set.
        keep_alive: Seconds that an idle model stays loaded; 0 unloads at once, -1 never.
        max_rows: Most rows of one forward; None measures where sharing stops paying.
        sampler_seconds: How long a sampler may take between two evaluations of the model.
        limits: The bounds of one request and of the queue.
    """

    models: Path = field(default_factory=default_models_folder)
    device: str = "auto"
    full_precision: bool = False
    default_model: str | None = None
    preload: tuple[str, ...] = ()
    keep_alive: float = 300.0
    max_rows: int | None = None
    sampler_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the HTTP server is built with, beside its engine.

    Attributes:
        host, port: Where it listens.
        api_key: The key that clients send, or None for none.
        origins: Origins of web pages that may call, beside those of this machine.
        hosts: Host names that the server answers to, beside IP addresses and this machine's names.
        keep_results: Seconds that results are kept for clients that asked for it; 0 keeps none.
        heartbeat: Seconds after which a silent stream sends something, so that proxies keep it;
            0 for never.
        strict_models: Whether the model names of cloud services, such as "dall-e-3", are unknown;
            otherwise they mean the default model.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    keep_results: float = 600.0
    heartbeat: float = 10.0
    strict_models: bool = False
