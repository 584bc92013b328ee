"""GET requests that check every redirect, and explain refusals of servers in words."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from imagine_core import network
from imagine_core.errors import ServerFailed, SettingsError
from imagine_core.version import version
from imagine_plugins.pulling.retries import Lost, Retries, http_date, wanted_wait

if TYPE_CHECKING:
    import httpx

MOST_REDIRECTS = 8
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
JSON_LIMIT = 16 * 2**20
SHA256 = re.compile(r'"?([0-9a-fA-F]{64})"?')
CONTENT_RANGE = re.compile(
    r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.IGNORECASE
)
LENGTH = re.compile(r"[0-9]{1,19}")
LOGIN = re.compile(r"(?<=://)[^/]*@")
ERRNO = re.compile(r"\[Errno -?[0-9]+\] ")
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
ENCODINGS = {"gzip", "deflate"}
"""The encodings that httpx decodes without further libraries."""

SETTLED_SECONDS = 60
"""Seconds after which a date of change identifies a version (RFC 9110, 8.8.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response, and facts about the file from all servers on the way to it.

    Attributes:
        response: The last response, its body not read yet.
        size: Bytes of the whole file, where stated.
        sha256: Its hash, where stated.
    """

    response: httpx.Response
    size: int | None
    sha256: str | None

    @property
    def span(self) -> tuple[int | None, int | None]:
        """The offset in the file of the first byte of the body, and of the byte behind its last."""
        return _span(self.response)

    @property
    def validator(self) -> str | None:
        """The ETag or date by which If-Range may name this version (RFC 9110, 13.1.5)."""
        headers = self.response.headers
        if _encoding(self.response):
            return None
        if etag := str(headers.get("etag", "")):
            return etag if etag.startswith('"') else None  # weak ones say nothing of the bytes
        changed, now = (http_date(headers.get(name, "")) for name in ("last-modified", "date"))
        settled = changed and now and (now - changed).total_seconds() >= SETTLED_SECONDS
        return str(headers["last-modified"]) if settled else None


class Web:
    """Asks servers for files, and sends a token to its own server alone.

    Args:
        endpoint: The server that the token is for.
        token: The token, if there is one.
        retries: Repeats a request for JSON that failed for a passing reason.

    Raises:
        SettingsError: The endpoint is no URL, or the token holds characters no header can.
    """

    def __init__(
        self, *, endpoint: str = "", token: str | None = None, retries: Retries | None = None
    ) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise SettingsError("HF_TOKEN holds a character that no token has; copy it again")
        self._origin = origin(endpoint) if endpoint else None
        self._token = token
        self._retries = retries or Retries()

    @contextmanager
    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Iterator[Response]:
        """The answer to a request, of any status but a redirect.

        Raises:
            Lost: The connection failed.
            Offline, SettingsError: Imagine must not connect there.
            ServerFailed: There are too many redirects.
        """
        import httpx

        try:
            yield from self._get(url, headers or {})
        except (httpx.TransportError, httpx.DecodingError) as error:
            said = ERRNO.sub("", str(error)) or type(error).__name__
            raise Lost(f"{urlsplit(url).hostname}: {said}") from error

    def json(self, url: str) -> Any:
        """The JSON at `url`."""
        body = self._retries.run(lambda: self._body(url))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServerFailed(f"{shown(url)} answered with something that is no JSON") from error

    def _body(self, url: str) -> bytes:
        with self.get(url) as answer:
            require_good(answer.response)
            return read_at_most(answer.response, JSON_LIMIT)

    def _get(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        import httpx

        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        # A proxy reaches other machines, and its localhost is not ours.
        trust = not network.is_loopback(parts_of(url).hostname or "")
        size: int | None = None
        sha256: str | None = None
        with httpx.Client(timeout=timeout, trust_env=trust) as client:
            for _ in range(MOST_REDIRECTS):
                check_url(url)
                with client.stream("GET", url, headers=self._headers(url, headers)) as response:
                    size = size or _linked_size(response)
                    sha256 = sha256 or _linked_sha256(response)
                    if not response.has_redirect_location:
                        yield Response(
                            response=response, size=_size(response) or size, sha256=sha256
                        )
                        return
                    url = _redirected(url, response.headers["location"])
        raise ServerFailed(f"{shown(url)}: too many redirects")

    def _headers(self, url: str, more: Mapping[str, str]) -> dict[str, str]:
        # Sizes and ranges of a compressed body are not those of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"imagine/{version()}", **more}
        if self._token and origin(url) == self._origin:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


def check_url(url: str) -> None:
    """Raise if Imagine must not connect to `url`: to other machines, only https is allowed."""
    parts = parts_of(url)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host:
        raise SettingsError(f"{shown(url)!r} is no https URL")
    if parts.scheme == "http" and not network.is_loopback(host):
        raise SettingsError(
            f"{shown(url)!r} would come unencrypted, and anybody on the way could replace it; "
            "use https"
        )
    network.check(url)


def parts_of(url: str) -> SplitResult:
    """The parts of a URL; raises `SettingsError` if httpx or the resolver would refuse it."""
    import httpx

    try:
        parts = urlsplit(url)
        httpx.URL(url)
        (parts.hostname or "").encode("idna")  # as the look-up of its address does
        _ = parts.port  # which is only checked when it is asked for
    except (ValueError, httpx.InvalidURL):
        raise SettingsError(f"{shown(url)[:200]!r} is no https URL") from None
    return parts


def require_good(response: httpx.Response) -> None:
    """Raise unless the status is 200 or 206; `Lost` where a later attempt may succeed."""
    status = response.status_code
    if status in (200, 206):
        _require_readable(response)
        return
    url, host = shown(str(response.url)), response.url.host
    said = f"{status} {response.reason_phrase}".strip()
    if status in TRY_AGAIN:
        raise Lost(f"{host}: {said}", wait=wanted_wait(response.headers))
    if status in (401, 403):
        raise ServerFailed(
            f"{host} lets nobody fetch this without permission ({said}): check the name; where it "
            "wants a login, accept the model's conditions on its page and set HF_TOKEN"
        )
    if status in (404, 410):
        raise ServerFailed(f"there is nothing at {url} ({said}); check the name")
    raise ServerFailed(f"{url} answered {said}")


def read_at_most(response: httpx.Response, limit: int) -> bytes:
    """The body of `response`; raises `ServerFailed` where it is longer than `limit` bytes."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise ServerFailed(f"{shown(str(response.url))} is larger than it should be")
    return bytes(body)


def shown(url: str) -> str:
    """`url` without its secrets: the query of a signed address, a password."""
    return LOGIN.sub("", re.split("[?#]", url, maxsplit=1)[0], count=1)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: equal for URLs of the same server."""
    parts = parts_of(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def _redirected(url: str, location: str) -> str:
    """The target of a redirect; other machines must not redirect us to this one."""
    try:
        target = urljoin(url, location)
        here = network.is_loopback(parts_of(target).hostname or "")
    except (ValueError, SettingsError) as error:
        raise ServerFailed(f"{shown(url)} redirects to something that is no URL") from error
    if here and not network.is_loopback(urlsplit(url).hostname or ""):
        raise ServerFailed(f"{shown(url)} redirects to this machine, which is not right")
    return target


def _encoding(response: httpx.Response) -> str:
    """The Content-Encoding of a body, which the request asked not to have; empty for none."""
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    return "" if encoding == "identity" else encoding


def _require_readable(response: httpx.Response) -> None:
    encoding = _encoding(response)
    if encoding and encoding not in ENCODINGS:
        raise ServerFailed(
            f"{shown(str(response.url))} came compressed ({encoding[:40]!r}), which was not asked "
            "for and cannot be read"
        )


def _stated(response: httpx.Response) -> tuple[int, int, int | None] | None:
    """A Content-Range: its first byte, the one behind its last, and the size of the whole file.

    None without one, or if it contradicts itself or the length of the body.
    """
    match = CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if not match or not match[1] or _encoding(response):
        return None
    first, end = int(match[1]), int(match[2]) + 1
    size = None if match[3] == "*" else int(match[3])
    length = _length(response.headers.get("content-length", ""))
    fits = first < end <= (size or end) and length in (None, end - first)
    return (first, end, size) if fits else None


def _span(response: httpx.Response) -> tuple[int | None, int | None]:
    """The offsets of a body in the file; some servers send a part with status 200."""
    if stated := _stated(response):
        return stated[:2]
    whole = response.status_code == http.HTTPStatus.OK
    return (0, _body_length(response)) if whole else (None, None)


def _size(response: httpx.Response) -> int | None:
    """Bytes of the whole file, as the last server states them."""
    if stated := _stated(response):
        return stated[2]
    if response.status_code == http.HTTPStatus.OK:
        return _body_length(response)
    match = CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return int(match[3]) if match and not match[1] and match[3] != "*" else None


def _body_length(response: httpx.Response) -> int | None:
    """The stated length of a body; None if it is compressed, as the file has another length."""
    return None if _encoding(response) else _length(response.headers.get("content-length", ""))


def _linked_size(response: httpx.Response) -> int | None:
    return _length(response.headers.get("x-linked-size", ""))


def _length(text: str) -> int | None:
    """A number of bytes; None for other text, such as numbers too long for `int`."""
    return int(text) if LENGTH.fullmatch(text) else None


def _linked_sha256(response: httpx.Response) -> str | None:
    match = SHA256.fullmatch(response.headers.get("x-linked-etag", ""))
    return match[1].lower() if match else None
