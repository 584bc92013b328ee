"""An HTTP dialect: `POST /paint` takes the prompt as plain text and answers with events."""

import base64
import json

from imagine_core import GenerationRequest, StepEvent, hookimpl
from imagine_core.errors import FieldError

NUMBERS = ("width", "height", "steps", "seed")


class Paint:
    """Translates between `/paint` and the core."""

    def __init__(self):
        from imagine_core.web.dialect import EVENTS

        self.framing = EVENTS

    def read(self, body, request):
        """The order: the prompt is the body, numbers stand in the query."""
        from imagine_core.web.dialect import Order

        values, errors = {"prompt": body.decode("utf-8", "replace")}, []
        if not values["prompt"].strip():  # the core draws a blank one
            errors.append(FieldError("prompt", "must not be empty"))
        for name in NUMBERS:
            text = request.query_params.get(name, "")
            if text.isascii() and text.isdigit() and len(text) <= 20:
                values[name] = int(text)
            elif text:
                errors.append(FieldError(name, "must be a whole number"))
        asked = GenerationRequest(**values)
        return Order(request=asked, errors=tuple(errors), streams=True)

    def say(self, event, record):  # noqa: ARG002 - of the interface
        """An event for each step and for each picture; nothing of the other phases."""
        from imagine_core.web.dialect import Finished

        if isinstance(event, StepEvent):
            return message("step", {"step": event.step, "steps": event.steps})
        if isinstance(event, Finished):
            url = "data:image/png;base64," + base64.b64encode(event.pngs[0]).decode()
            return message("picture", {"url": url, "seed": str(event.seeds[0])})
        return None

    def fail(self, error, *, begun=False):
        """The status, and the reason in words."""
        from imagine_core.web.app import explain

        status, body = explain(error)
        problem = {"problem": body["error"]["message"]}
        return status, message("problem", problem) if begun else json.dumps(problem).encode()


def message(name, data):
    """A Server-Sent Event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@hookimpl
def register_routes(register, service):
    """Register `/paint`."""
    from starlette.routing import Route

    from imagine_core.web.dialect import speaking
    from imagine_core.web.generation import generation

    paint = Paint()
    route = Route("/paint", generation(service, paint), methods=["POST"])
    register(speaking(route, paint, prefix="/paint/"))
