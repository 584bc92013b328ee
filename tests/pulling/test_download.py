"""Downloads of one file from servers with faults."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from hub_server import FileServer, Served
from imagine_core.errors import Offline, ServerFailed, SettingsError
from imagine_plugins.pulling.download import Downloader, Remote
from imagine_plugins.pulling.retries import TRIES
from imagine_plugins.pulling.web import Web

DATA = bytes(range(256)) * 4096
TOKEN = "a token"  # noqa: S105 - of nobody
SHA256 = hashlib.sha256(DATA).hexdigest()


class Watch:
    """Counts bytes, and remembers what was said and how long the pauses were."""

    def __init__(self) -> None:
        self.size = 0
        self.said: list[str] = []
        self.pauses: list[float] = []

    def advance(self, size: int) -> None:
        self.size += size

    def say(self, text: str) -> None:
        self.said.append(text)


def fetch(server: FileServer, target: Path, *, web: Web | None = None, **known: object) -> Watch:
    watch = Watch()
    downloader = Downloader(web or Web(), watch, pause=watch.pauses.append)
    remote = replace(Remote(url=f"{server.url}/f", name="f"), **known)  # type: ignore[arg-type]
    downloader.fetch(remote, target)
    return watch


def leftovers(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


# -------------------------------------------------------------------------------- going well


def test_a_file_arrives_whole_and_alone(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA)
    watch = fetch(server, tmp_path / "f", size=len(DATA), sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == DATA
    assert leftovers(tmp_path / "f") == {"f"}
    assert watch.size == len(DATA)
    assert watch.pauses == []


def test_a_file_that_is_there_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    assert fetch(server, tmp_path / "f").size == len(DATA)
    assert server.asked == []


def test_a_server_without_lengths_is_believed(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, etag=None, length=-1)
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


# --------------------------------------------------------------------------------- going on


def test_a_broken_connection_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, drops=[300_000, 200_000])
    watch = fetch(server, tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == DATA
    ranges = [asked.headers.get("Range") for asked in server.asked]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert [asked.headers.get("If-Range") for asked in server.asked[1:]] == ['"one"', '"one"']
    assert watch.size == len(DATA)
    assert any("trying again" in said for said in watch.said)


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA, drops=[100_000] + [0] * TRIES)
    with pytest.raises(ServerFailed, match="the same command goes on from there"):
        fetch(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    server.files["/f"].drops.clear()
    server.asked.clear()
    watch = fetch(server, tmp_path / "f")
    assert [asked.headers.get("Range") for asked in server.asked] == ["bytes=100000-"]
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)


def test_pauses_grow_while_nothing_comes_and_end(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, statuses=[503] * 20)
    watch = Watch()
    downloader = Downloader(Web(), watch, pause=watch.pauses.append)
    with pytest.raises(ServerFailed, match="503"):
        downloader.fetch(Remote(url=f"{server.url}/f", name="f"), tmp_path / "f")
    assert watch.pauses == [1, 2, 4, 8]


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, statuses=[503, 429])
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(b"x" * len(DATA), drops=[100_000] + [0] * TRIES)
    with pytest.raises(ServerFailed):
        fetch(server, tmp_path / "f")
    server.files["/f"] = Served(DATA, etag='"two"')
    watch = fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_server_without_ranges_starts_again(
    server: FileServer, tmp_path: Path, sha256: str | None
) -> None:
    server.files["/f"] = Served(DATA, ranges=False, drops=[500_000])
    watch = fetch(server, tmp_path / "f", sha256=sha256)
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)


def test_without_an_etag_a_part_is_worth_nothing_unless_the_hash_is_known(
    server: FileServer, tmp_path: Path
) -> None:
    for sha256, second in ((None, None), (SHA256, "bytes=500000-")):
        server.files["/f"] = Served(DATA, etag=None, drops=[500_000])
        server.asked.clear()
        target = tmp_path / str(second)
        fetch(server, target, sha256=sha256)
        assert target.read_bytes() == DATA
        assert server.asked[1].headers.get("Range") == second


def test_a_weak_etag_does_not_vouch_for_a_part(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, etag='W/"one"', drops=[500_000])
    fetch(server, tmp_path / "f")
    assert "Range" not in server.asked[1].headers
    assert (tmp_path / "f").read_bytes() == DATA


LONG_AGO = "Wed, 21 Oct 2015 07:28:00 GMT"


def test_a_date_long_ago_vouches_for_a_part_where_there_is_no_etag(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(
        DATA, etag=None, headers={"Last-Modified": LONG_AGO}, drops=[500_000]
    )
    fetch(server, tmp_path / "f")
    assert server.asked[1].headers.get("Range") == "bytes=500000-"
    assert server.asked[1].headers.get("If-Range") == LONG_AGO
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_a_date_of_just_now_or_beside_a_weak_etag_does_not(
    server: FileServer, tmp_path: Path, etag: str | None
) -> None:
    changed = formatdate(usegmt=True) if etag is None else LONG_AGO
    server.files["/f"] = Served(
        DATA, etag=etag, headers={"Last-Modified": changed}, drops=[500_000]
    )
    fetch(server, tmp_path / "f")
    assert "Range" not in server.asked[1].headers
    assert (tmp_path / "f").read_bytes() == DATA


# ------------------------------------------------------------------- going on, oddly answered


ODD_RANGES = {
    "a part with the status of a whole": {"partial": 200},
    "a part that starts earlier": {"shift": 10},
    "a part that starts later": {"shift": -10},
    "a part with status 200 that starts earlier": {"partial": 200, "shift": 10},
    "a part that says nothing of its place": {"content_range": None},
    "a part with status 200 that says nothing of its place": {
        "partial": 200,
        "content_range": None,
    },
    "a total that is the length of the part": {"content_range": "bytes {first}-{last}/1"},
    "a total that is too large": {"content_range": "bytes {first}-{last}/99999999"},
    "no total": {"content_range": "bytes {first}-{last}/*"},
    "a place that does not fit its length": {"content_range": "bytes {first}-{first}/{total}"},
    "another unit": {"content_range": "pages {first}-{last}/{total}"},
    "a unit in capitals": {"content_range": "BYTES {first}-{last}/{total}"},
    "small parts": {"most": 100_000},
    "small parts of unknown total": {
        "most": 100_000,
        "content_range": "bytes {first}-{last}/*",
    },
}


@pytest.mark.parametrize("odd", ODD_RANGES)
@pytest.mark.parametrize("known", [{"size": len(DATA)}, {"sha256": SHA256}])
def test_whatever_a_server_makes_of_a_range_the_file_is_right_in_the_end(
    server: FileServer, tmp_path: Path, odd: str, known: dict[str, Any]
) -> None:
    server.files["/f"] = Served(DATA, drops=[500_000], **ODD_RANGES[odd])  # type: ignore[arg-type]
    try:
        watch = fetch(server, tmp_path / "f", **known)
    except ServerFailed:  # the hash alone told that a part was taken for the whole
        assert "size" not in known
        watch = fetch(server, tmp_path / "f", **known)
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)
    assert leftovers(tmp_path / "f") == {"f"}


@pytest.mark.parametrize(
    ("odd", "second"),
    [
        ("a part with the status of a whole", len(DATA) - 500_000),
        ("a part that starts earlier", len(DATA) - 500_000 + 10),
        ("a unit in capitals", len(DATA) - 500_000),
    ],
)
def test_what_is_there_is_kept_where_the_answer_tells_its_place(
    server: FileServer, tmp_path: Path, odd: str, second: int
) -> None:
    server.files["/f"] = Served(DATA, drops=[500_000], **ODD_RANGES[odd])  # type: ignore[arg-type]
    fetch(server, tmp_path / "f")
    assert len(server.asked) == 2
    assert second <= server.sent("/f")[1] < second + 2**16
    assert (tmp_path / "f").read_bytes() == DATA


def test_small_parts_follow_each_other_without_a_pause(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, drops=[500_000], most=100_000)
    watch = fetch(server, tmp_path / "f")
    assert len(server.asked) == 1 + 6
    assert watch.pauses == [1]


def test_a_server_that_breaks_every_continuation_is_given_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA, drops=[500_000] * 100, content_range=None)
    with pytest.raises(ServerFailed, match="the download stopped"):
        fetch(server, tmp_path / "f")
    assert len(server.asked) < 2 * TRIES + 2


@pytest.mark.parametrize("data", [DATA[::-1], DATA[::-1] + b"more", DATA[:-1000]])
@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("have", [100_000, len(DATA)])
def test_a_part_of_another_version_is_not_used(
    server: FileServer, tmp_path: Path, data: bytes, have: int, *, condition: bool
) -> None:
    (tmp_path / "f.part").write_bytes(DATA[:have])
    (tmp_path / "f.part.validator").write_text('"one"')
    server.files["/f"] = Served(data, etag='"two"', condition=condition)
    watch = fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == data
    assert watch.size == len(data)


def test_a_total_that_is_not_the_listed_one_begins_again(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "f.part").write_bytes(b"old" * 1000)
    (tmp_path / "f.part.validator").write_text('"one"')
    server.files["/f"] = Served(DATA, content_range="bytes {first}-{last}/2000000")
    fetch(server, tmp_path / "f", size=len(DATA))
    assert (tmp_path / "f").read_bytes() == DATA


# -------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("known", [{}, {"size": len(DATA), "sha256": SHA256}])
def test_a_file_that_comes_compressed_is_unpacked(
    server: FileServer, tmp_path: Path, encoding: str, known: dict[str, Any]
) -> None:
    server.files["/f"] = Served(DATA, encoding=encoding, drops=[3000])
    watch = fetch(server, tmp_path / "f", **known)
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)
    assert "If-Range" not in server.asked[1].headers or encoding == "identity"


def test_a_compression_that_nobody_here_reads_is_named(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA, encoding="br")
    with pytest.raises(ServerFailed, match=r"came compressed \('br'\)"):
        fetch(server, tmp_path / "f")
    assert len(server.asked) == 1


def test_a_body_that_is_not_compressed_as_it_says_is_given_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA, headers={"Content-Encoding": "gzip"})
    with pytest.raises(ServerFailed, match="nothing came"):
        fetch(server, tmp_path / "f")


# ------------------------------------------------------------------------------- whole already


def test_a_part_that_is_whole_already_only_has_to_be_checked(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA)
    (tmp_path / "f.part").write_bytes(DATA)
    (tmp_path / "f.part.validator").write_text('"one"')
    fetch(server, tmp_path / "f")  # answered with 416
    assert (tmp_path / "f").read_bytes() == DATA
    assert sum(server.sent("/f")) == 0


def test_a_part_that_is_too_long_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(DATA)
    (tmp_path / "f.part").write_bytes(DATA + b"more")
    (tmp_path / "f.part.validator").write_text('"one"')
    watch = fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert watch.size == len(DATA)


# ------------------------------------------------------------------------------------- lies


def test_a_server_that_promises_more_than_it_sends_is_found_out(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA, etag=None, length=len(DATA) + 5)
    with pytest.raises(ServerFailed, match="the download stopped"):
        fetch(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_size_that_is_not_the_listed_one_is_refused_before_anything_is_fetched(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA)
    with pytest.raises(ServerFailed, match=r"has 1,048,576 bytes, and should have 99"):
        fetch(server, tmp_path / "f", size=99)
    assert leftovers(tmp_path / "f") == set()


def test_a_hash_that_is_not_the_listed_one_deletes_the_file(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA)
    with pytest.raises(ServerFailed, match="came damaged: its sha256 is") as caught:
        fetch(server, tmp_path / "f", sha256="0" * 64)
    assert SHA256 in caught.value.message
    assert leftovers(tmp_path / "f") == set()


def test_a_hash_that_only_the_server_states_is_checked(server: FileServer, tmp_path: Path) -> None:
    linked = {"X-Linked-ETag": f'"{"1" * 64}"'}
    server.files["/f"] = Served(location="/stored", headers=linked)
    server.files["/stored"] = Served(DATA)
    with pytest.raises(ServerFailed, match="came damaged"):
        fetch(server, tmp_path / "f")
    server.files["/f"].headers["X-Linked-ETag"] = f'"{SHA256}"'
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_hashes_that_disagree_are_refused(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(location="/stored", headers={"X-Linked-ETag": f'"{SHA256}"'})
    server.files["/stored"] = Served(DATA)
    with pytest.raises(ServerFailed, match="not the file that was asked for"):
        fetch(server, tmp_path / "f", sha256="0" * 64)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "set HF_TOKEN"),
        (403, "accept the model's conditions"),
        (404, "there is nothing at .*/f"),
        (418, "answered 418"),
    ],
)
def test_what_a_server_refuses_is_said_in_words_at_once(
    server: FileServer, tmp_path: Path, status: int, says: str
) -> None:
    server.files["/f"] = Served(DATA, statuses=[status])
    with pytest.raises(ServerFailed, match=says):
        fetch(server, tmp_path / "f")
    assert len(server.asked) == 1


def test_no_server_is_an_error_after_some_tries(tmp_path: Path, server: FileServer) -> None:
    url = server.url
    server.server_close()
    watch = Watch()
    downloader = Downloader(Web(), watch, pause=watch.pauses.append)
    with pytest.raises(ServerFailed, match=r"^nothing came \(127\.0\.0\.1: \w") as caught:
        downloader.fetch(Remote(url=f"{url}/f", name="f"), tmp_path / "f")
    assert "Errno" not in caught.value.message
    assert len(watch.pauses) == TRIES - 1


@pytest.mark.parametrize("header", ["X-Linked-Size", "Content-Range"])
def test_a_length_of_thousands_of_digits_is_none(
    server: FileServer, tmp_path: Path, header: str
) -> None:
    value = "bytes 0-1/" if header == "Content-Range" else ""
    server.files["/f"] = Served(DATA, headers={header: value + "9" * 5000})
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_redirects_without_end_are_given_up(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(location="/f")
    with pytest.raises(ServerFailed, match="too many redirects"):
        fetch(server, tmp_path / "f")


def test_only_https_leaves_this_machine(server: FileServer, tmp_path: Path) -> None:
    server.files["/f"] = Served(location="http://models.example/f")
    with pytest.raises(SettingsError, match="unencrypted"):
        fetch(server, tmp_path / "f")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://models.example/f",
        "file:///etc/passwd",
        "https://",
        "https://[/f",
        "https://127.0.0.1:x/f",
        "https://127.0.0.1:99999/f",
        "https://models..example/f",
        f"https://{'m' * 64}.example/f",
        "https://\u2603..example/f",
    ],
)
def test_other_kinds_of_urls_are_refused(tmp_path: Path, url: str) -> None:
    downloader = Downloader(Web(), Watch())
    with pytest.raises(SettingsError, match="no https URL"):
        downloader.fetch(Remote(url=url, name="f"), tmp_path / "f")


@pytest.mark.parametrize("location", ["http://127.0.0.1:x/f", "https://models..example/f"])
def test_a_redirect_to_what_is_no_url_is_the_servers_fault(
    server: FileServer, tmp_path: Path, location: str
) -> None:
    server.files["/f"] = Served(location=location)
    with pytest.raises(ServerFailed, match=r"no URL|Invalid port"):
        fetch(server, tmp_path / "f")


def test_nothing_elsewhere_is_asked_while_offline(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_OFFLINE", "1")
    server.files["/f"] = Served(location="https://models.example/f")
    with pytest.raises(Offline, match=r"models.example"):
        fetch(server, tmp_path / "f")


# -------------------------------------------------------------------------------------- tokens


def test_a_token_goes_to_its_own_server_and_to_no_other(
    server: FileServer, elsewhere: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(location=f"{elsewhere.url}/stored")
    elsewhere.files["/stored"] = Served(location="/there")
    elsewhere.files["/there"] = Served(DATA, drops=[1000])
    fetch(server, tmp_path / "f", web=Web(endpoint=server.url, token=TOKEN))
    assert [asked.headers.get("Authorization") for asked in server.asked] == [f"Bearer {TOKEN}"] * 2
    assert len(elsewhere.asked) == 4
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)


def test_a_token_does_not_go_to_a_server_that_merely_has_the_file(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/f"] = Served(DATA)
    fetch(server, tmp_path / "f", web=Web(endpoint="https://hub.example", token=TOKEN))
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize("token", ["secret\nvalue", "secr\u00e9t"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError, match="HF_TOKEN") as caught:
        Web(token=token)
    assert "secr" not in caught.value.message


def test_errors_show_no_secrets_of_an_address(server: FileServer) -> None:
    watch = Watch()
    url = f"{server.url.replace('http://', 'http://me:password@')}/f?signature=secret"
    with pytest.raises(ServerFailed) as caught:
        Downloader(Web(), watch).beginning(Remote(url=url, name="f"))
    assert "secret" not in caught.value.message
    assert "password" not in caught.value.message


# --------------------------------------------------------------------------------- beginnings


def test_the_beginning_of_a_model_is_its_header_and_no_more(
    server: FileServer, checkpoint: bytes
) -> None:
    server.files["/f"] = Served(checkpoint)
    data, size = Downloader(Web(), Watch()).beginning(Remote(url=f"{server.url}/f", name="f"))
    assert data == checkpoint[: 8 + int.from_bytes(checkpoint[:8], "little")]
    assert size == len(checkpoint)


def test_the_beginning_of_something_else_is_short(server: FileServer) -> None:
    server.files["/f"] = Served(b"<!doctype html>" + b" " * 10**6)
    data, size = Downloader(Web(), Watch()).beginning(Remote(url=f"{server.url}/f", name="f"))
    assert data.startswith(b"<!doctype")
    assert len(data) < 1000
    assert size == 10**6 + 15
