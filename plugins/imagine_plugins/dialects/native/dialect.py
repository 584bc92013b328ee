"""The native dialect: a reply is one JSON object, or one a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagine_core.errors import RequestError
from imagine_core.fields import on_wire
from imagine_core.pictures.metadata import png_bytes
from imagine_core.types import PhaseEvent, StepEvent
from imagine_core.web.app import explain, json_line
from imagine_core.web.dialect import LINES, Event, Finished, Order
from imagine_plugins.dialects.native.lines import (
    final_line,
    intermediate_line,
    phase_line,
    progress_line,
)
from imagine_plugins.dialects.native.wire import read_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.web.dialect import Record


class Native:
    """Translates between the native wire format and the core.

    Args:
        keeps: Whether the server keeps results of disconnected clients.
    """

    framing = LINES

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps

    def read(self, body: bytes, request: Request) -> Order:
        """The order in the body of `POST /generate`."""
        del request
        return read_order(body, keeps=self._keeps)

    def say(self, event: Event, record: Record) -> bytes | None:
        """The line of an event, or None."""
        line = self._line(event, record)
        return None if line is None else json_line({"id": record.id, **line})

    def fail(self, error: Exception, *, begun: bool = False) -> tuple[int, bytes]:
        """Errors, with the wire's field names; in a stream they are a line."""
        del begun
        status, body = explained(error)
        return status, json_line(body)

    def _line(self, event: Event, record: Record) -> dict[str, Any] | None:
        progress = record.order.details["progress"]
        match event:
            case Finished():
                return final_line(event, record)
            case StepEvent(preview=preview) if preview is not None:
                size = record.request.drawn_size
                return intermediate_line(event, png_bytes(preview.resize(size), None))
            case StepEvent() if progress:
                return progress_line(event)
            case PhaseEvent() if progress:
                return phase_line(event)
        return None


def explained(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and body of an error, with the wire's field names."""
    return explain(on_wire(error) if isinstance(error, RequestError) else error)
