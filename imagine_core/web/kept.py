"""Serves pictures of orders that keep theirs, at addresses that need no key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from imagine_core.errors import UnknownName
from imagine_core.pictures.formats import MEDIA_TYPES, converted
from imagine_core.web.openapi import described
from imagine_core.web.security import open_to_files, without_key

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service

__all__ = [
    "kept_pictures",
]

HEADERS = {"Cache-Control": "private, max-age=60", "X-Content-Type-Options": "nosniff"}
PICTURE = {"type": "string", "contentMediaType": "application/octet-stream"}
DESCRIPTION = {
    "summary": "A picture of a request that keeps its result",
    "responses": {
        "200": {
            "description": "The picture.",
            "content": {kind: {"schema": PICTURE} for kind in MEDIA_TYPES.values()},
        },
        "404": {"description": "It is not kept, or not any more."},
    },
}


def kept_pictures(service: Service, path: str) -> Route:
    """The route under `path` of the pictures of orders with `keeps`: `{path}/JOB/INDEX.FORMAT`.

    The id of a job is a secret that only its client knows; so is the address of its pictures. The
    detail "output_compression" of the order is the quality of JPEG and WebP.
    """

    async def picture(request: Request) -> Response:
        try:
            record = service.jobs.get(request.path_params["id"])
        except UnknownName:
            raise HTTPException(404, "this picture is not kept, or not any more") from None
        index, _, to = request.path_params["name"].partition(".")
        pngs = record.finished.pngs if record.order.keeps and record.finished else ()
        known = [str(each) for each in range(len(pngs))]
        if index not in known or to not in MEDIA_TYPES:
            raise HTTPException(404, "this picture is not kept, or not any more")
        quality = record.order.details.get("output_compression")
        data = await asyncio.to_thread(converted, pngs[int(index)], to, quality=quality)
        return Response(data, media_type=MEDIA_TYPES[to], headers=HEADERS)

    route = Route(path + "/{id}/{name}", picture, methods=["GET"])
    return without_key(open_to_files(described(route, DESCRIPTION)))
