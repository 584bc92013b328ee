"""Errors stay the same when pickled to another process, or copied."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from imagine_core import errors
from imagine_core.errors import FieldError, ImagineError, RemoteCause

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

EXAMPLES = (
    ImagineError("port 1 is taken"),
    errors.RequestError([FieldError("steps", "too many"), FieldError("seed", "too long")]),
    errors.MalformedRequest("no Host: header"),
    errors.MalformedBody("this is no JSON"),
    errors.BodyTooLarge(1000),
    errors.EncodedBody("gzip"),
    errors.UnknownName("sampler", "eulr", known=["euler", "heun"]),
    errors.NoModel(known=["tiny", "big"]),
    errors.NoModel(known=[]),
    errors.UnusableModel("tiny", "it is broken"),
    errors.Unauthorized(),
    errors.Forbidden("Origin", "http://evil.example"),
    errors.Busy("the queue is full", retry_after=7),
    errors.ShuttingDown(),
    errors.Stalled("sampler 'slow'", SINCE),
    errors.Cancelled(),
    errors.OutOfMemory("take a smaller picture"),
    errors.GenerationFailed("the sampler failed"),
    errors.EnhancerFailed("ollama", "it does not answer"),
    errors.Offline("example.com"),
    errors.ServerFailed("it hung up", lost=True),
    errors.InvalidFile("this is no PNG"),
    errors.SettingsError("--port is no number"),
    errors.PluginError("mine", "the name is taken"),
)

WAYS: dict[str, Callable[[ImagineError], ImagineError]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}

each_way = pytest.mark.parametrize("remake", WAYS.values(), ids=WAYS)


def every_error() -> Iterator[type[ImagineError]]:
    pending = [ImagineError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        if error.__module__ == errors.__name__:
            yield error


def test_every_error_has_an_example_here() -> None:
    assert {type(error) for error in EXAMPLES} == set(every_error())


@each_way
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_remade_with_its_type_its_message_and_its_fields(
    error: ImagineError, remake: Callable[[ImagineError], ImagineError]
) -> None:
    again = remake(error)
    assert again is not error
    assert type(again) is type(error)
    assert again.message == error.message != ""
    assert vars(again) == vars(error)
    assert again.args == error.args
    assert again.__cause__ is None
    assert not again.__suppress_context__


@each_way
def test_an_error_keeps_what_it_was_given_after_it_was_made(
    remake: Callable[[ImagineError], ImagineError],
) -> None:
    error = errors.Busy("the queue is full")
    error.observed = True
    error.add_note("at request 7")
    again = remake(error)
    assert isinstance(again, errors.Busy)
    assert again.observed
    assert again.__notes__ == ["at request 7"]


class Unpicklable(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.lock = threading.Lock()


def fall_over() -> None:
    raise Unpicklable(code=7)


def failed() -> ImagineError:
    """An error with a cause of ours, which has a stranger's."""
    cause = errors.EnhancerFailed("ollama", "it fell over")
    try:
        fall_over()
    except Unpicklable as error:
        cause.__cause__ = error
    failed = errors.GenerationFailed("no prompt, no picture")
    failed.__cause__ = cause
    return failed


def test_an_error_keeps_the_text_of_its_causes_however_often_it_is_pickled() -> None:
    again = failed()
    for _ in range(2):
        again = WAYS["pickle"](again)
        cause = again.__cause__
        assert isinstance(cause, errors.EnhancerFailed)
        assert cause.message == "enhancer 'ollama': it fell over"
        assert isinstance(cause.__cause__, RemoteCause)
        text = str(cause.__cause__)
        assert text.count("Traceback") == 1
        assert "in fall_over\n" in text
        assert text.endswith("Unpicklable: code 7\n")


def test_a_copy_of_an_error_has_the_cause_itself() -> None:
    error = failed()
    assert copy.copy(error).__cause__ is error.__cause__


class Strangers(ImagineError):
    """An error of a plugin, whose constructor takes what it likes."""

    def __init__(self, *, queue: list[str]) -> None:
        self.queue = queue
        super().__init__(f"{len(queue)} wait")


@each_way
def test_an_error_of_a_plugin_needs_nothing_more(
    remake: Callable[[ImagineError], ImagineError],
) -> None:
    again = remake(Strangers(queue=["a", "b"]))
    assert isinstance(again, Strangers)
    assert (again.queue, again.message) == (["a", "b"], "2 wait")
