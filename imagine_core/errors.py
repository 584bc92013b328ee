"""Every error that Imagine raises on purpose.

ImagineError
├── RequestError          a request has fields that cannot be served; all of them at once
├── MalformedRequest      what came is no HTTP/1.1
├── MalformedBody         the body of a request is not a JSON object
├── EncodedBody           the body of a request is compressed
├── BodyTooLarge          the body of a request exceeds the server's limit
├── UnknownName           no such model, sampler, schedule, device, ...; carries the nearest names
│   └── NoModel           a request names no model, and there is no default
├── UnusableModel         the model exists, but cannot make pictures; says why
├── Unauthorized          the API key is missing or wrong
├── Forbidden             the Origin or the Host of a request is not on the list
├── Busy                  the queue is full; worth another try later
│   ├── ShuttingDown      the server is stopping
│   └── Stalled           a sampler holds the device and cannot be stopped
├── Cancelled             a client cancelled this generation by its id
├── OutOfMemory           the device has no memory left for this picture
├── GenerationFailed      a sampler or a model failed while it made the picture
├── EnhancerFailed        an enhancer could not make a prompt; says which, why and what to do
├── Offline               a connection to elsewhere was wanted, and --offline forbids those
├── ServerFailed          a remote server answered with an error, or not at all
├── InvalidFile           a picture or metadata file is not what the command needs
├── SettingsError         a flag or a setting has a value that cannot work
└── PluginError           a plugin registered something that cannot be accepted

Errors carry fields beside their text. `type` is the name on the wire; the HTTP status of each is
decided in one table, `imagine_core.web.app.STATUS`. Every error can be pickled and copied.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

__all__ = [
    "BodyTooLarge",
    "Busy",
    "Cancelled",
    "EncodedBody",
    "EnhancerFailed",
    "FieldError",
    "Forbidden",
    "GenerationFailed",
    "ImagineError",
    "InvalidFile",
    "MalformedBody",
    "MalformedRequest",
    "NoModel",
    "Offline",
    "OutOfMemory",
    "PluginError",
    "RemoteCause",
    "RequestError",
    "ServerFailed",
    "SettingsError",
    "ShuttingDown",
    "Stalled",
    "Unauthorized",
    "UnknownName",
    "UnusableModel",
]

FAULTS = (Exception, SystemExit)
"""What to catch from a plugin's code: `sys.exit` too, but not Ctrl-C."""


class ImagineError(Exception):
    """The root: `except ImagineError` catches whatever Imagine raises on purpose."""

    type: ClassVar[str] = "error"

    @property
    def message(self) -> str:
        """What, which, and what to do, in one line."""
        return str(self)

    def __reduce__(self) -> tuple[Callable[..., ImagineError], tuple[Any, ...]]:
        # Exception would call the constructor with the message as its only argument.
        cause = self.__cause__
        if cause is not None and not isinstance(cause, (ImagineError, RemoteCause)):
            cause = RemoteCause("".join(traceback.format_exception(cause)))
        return _remade, (type(self), self.args, self.__dict__, cause)


class RemoteCause(Exception):
    """The traceback of a cause that is no ImagineError, since such a cause may not pickle."""

    def __str__(self) -> str:
        return f"\n{super().__str__()}"


def _remade(
    kind: type[ImagineError],
    args: tuple[Any, ...],
    fields: Mapping[str, Any],
    cause: BaseException | None,
) -> ImagineError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    if cause is not None:
        error.__cause__ = cause
    return error


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a request that cannot be served."""

    field: str
    message: str


class RequestError(ImagineError):
    """Fields of a request cannot be served; `fields` holds every one of them."""

    type = "invalid_request"

    def __init__(self, fields: Iterable[FieldError]) -> None:
        self.fields = tuple(fields)
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in self.fields))


class MalformedRequest(ImagineError):
    """What came over a connection is no HTTP/1.1; `problem` says where it fails."""

    type = "malformed_request"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"this is not HTTP/1.1 as it should be: {problem}")


class MalformedBody(ImagineError):
    """The body of a request is not a JSON object."""

    type = "malformed_body"


class EncodedBody(ImagineError):
    """The body of a request is compressed; `encoding` is what its Content-Encoding says."""

    type = "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        super().__init__(
            f"the request body is encoded as {encoding[:40]!r}, which this server does not read; "
            "send it plain, without Content-Encoding"
        )


class BodyTooLarge(ImagineError):
    """The body of a request exceeds `limit` bytes."""

    type = "body_too_large"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the request body is larger than this server's limit of {limit:,} bytes")


class UnknownName(ImagineError):
    """No `kind` (model, sampler, ...) is called `name`; `nearest` are the closest known names.

    `aliases` may be among the nearest, and are not listed beside the names of what they mean.
    """

    type = "unknown_name"

    def __init__(
        self, kind: str, name: str, *, known: Iterable[str], aliases: Iterable[str] = ()
    ) -> None:
        import difflib  # only needed here, and slow for `imagine --help`

        self.kind, self.name = kind, name
        names = {known_name.casefold(): known_name for known_name in known}
        all_names = {**{alias.casefold(): alias for alias in aliases}, **names}
        matches = difflib.get_close_matches(name.casefold(), all_names, n=3)
        self.nearest = tuple(all_names[match] for match in matches)
        if self.nearest:
            hint = "did you mean " + " or ".join(repr(near) for near in self.nearest) + "?"
        elif names:
            hint = "known: " + ", ".join(sorted(names.values())[:24])
        else:
            hint = f"there is no {kind} here"
        super().__init__(f"unknown {kind} {name[:200]!r}; {hint}")


class NoModel(UnknownName):
    """A request names no model, and there is none to take for it; `known` are those to name."""

    type = "no_model"

    def __init__(self, *, known: Iterable[str]) -> None:
        self.kind, self.name, self.nearest = "model", "", tuple(known)
        if self.nearest:
            names = ", ".join(repr(name) for name in self.nearest[:12])
            message = f"no model is named, and none is the default; there are {names}"
        else:
            message = (
                "there is no model that can make pictures: get one with 'imagine pull', or put a "
                "file into the models folder; 'imagine list' says what is wrong with one there"
            )
        ImagineError.__init__(self, message)


class UnusableModel(ImagineError):
    """The model `name` exists, but cannot make pictures; `problem` says why and what to do.

    Or what changes one: `kind` is what messages call it.
    """

    type = "unusable_model"

    def __init__(self, name: str, problem: str, *, kind: str = "model") -> None:
        self.name, self.problem, self.kind = name, problem, kind
        super().__init__(f"{kind} {name!r} cannot be used: {problem}")


class Unauthorized(ImagineError):
    """The API key is missing or wrong."""

    type = "unauthorized"

    def __init__(self) -> None:
        super().__init__(
            "this server wants its API key: send 'Authorization: Bearer KEY', "
            "or the key as the password of HTTP Basic"
        )


class Forbidden(ImagineError):
    """The `header` (Origin or Host) of a request has a `value` that is not on the list."""

    type = "forbidden"

    def __init__(self, header: str, value: str) -> None:
        self.header, self.value = header, value
        flag = f"--{header.lower()}s"
        super().__init__(f"{header} {value[:200]!r} is not allowed; the server's {flag} adds it")


class Busy(ImagineError):
    """The queue is full; `retry_after` is the wait in seconds that is likely to help.

    Attributes:
        observed: Whether observers were told of it as a refused generation.
    """

    type = "busy"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        self.retry_after = retry_after
        self.observed = False
        super().__init__(message)


class ShuttingDown(Busy):
    """The server is stopping and takes no more work."""

    type = "shutting_down"

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Stalled(Busy):
    """`culprit`, a sampler, has held the device since `since` and cannot be stopped."""

    type = "stalled"

    def __init__(self, culprit: str, since: datetime) -> None:
        self.culprit, self.since = culprit, since
        super().__init__(
            f"{culprit} has held the device since {since:%Y-%m-%d %H:%M:%S} UTC and cannot be "
            "stopped; the server must be started again",
            retry_after=60,
        )


class Cancelled(ImagineError):
    """Somebody cancelled this generation by its id."""

    type = "cancelled"

    def __init__(self) -> None:
        super().__init__("the generation was cancelled")


class OutOfMemory(ImagineError):
    """The device has no memory left for this picture."""

    type = "out_of_memory"


class GenerationFailed(ImagineError):
    """A sampler or a model failed while it made the picture; the message names which."""

    type = "generation_failed"


class EnhancerFailed(ImagineError):
    """The enhancer `name` could not make a prompt; `problem` says why and what to do."""

    type = "enhancer_failed"

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem
        super().__init__(f"enhancer {name!r}: {problem}")


class Offline(ImagineError):
    """A connection to elsewhere was wanted, and `--offline` forbids those."""

    type = "offline"

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"--offline (or IMAGINE_OFFLINE) forbids a connection to {host[:200]!r}; "
            "only this machine may be asked"
        )


class ServerFailed(ImagineError):
    """A remote server answered with an error, or not at all.

    `lost` tells a lost connection (which may be tried again) from an error that the server stated.
    """

    type = "server_failed"

    def __init__(self, message: str, *, lost: bool = False) -> None:
        self.lost = lost
        super().__init__(message)


class InvalidFile(ImagineError):
    """A picture or metadata file is not what the command needs."""

    type = "invalid_file"


class SettingsError(ImagineError):
    """A flag or a setting has a value that cannot work."""

    type = "invalid_setting"


class PluginError(ImagineError):
    """The plugin `plugin` registered something that cannot be accepted."""

    type = "plugin_error"

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        super().__init__(f"plugin {plugin!r}: {message}")
