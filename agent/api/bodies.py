"""The bodies of requests, read no further than is allowed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from agent.api.problems import Problem
from common.limits import MAX_BODY_BYTES


async def read_body(request: Request, most: int, what: str = "request") -> bytes:
    """Return a request's body.

    Args:
        request: whose.
        most: bytes that are allowed.
        what: the body's name for people.

    Raises:
        Problem: it is longer.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "too-large",
                f"the {what} is longer than the {most} bytes allowed",
            )
    return bytes(body)


class CappedRoute(APIRoute):
    """A route whose body may have MAX_BODY_BYTES; FastAPI itself reads without end."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, behind one that reads the body."""
        handle = super().get_route_handler()

        async def handle_capped(request: Request) -> Response:
            body = await read_body(request, MAX_BODY_BYTES)

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            return await handle(Request(request.scope, receive))

        return handle_capped
