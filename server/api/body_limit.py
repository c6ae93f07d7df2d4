"""The limits on a request's body, its length and the time it takes, as a problem document.

FastAPI has one of its own, but it answers in plain text before the application's error handlers are reached.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.problems import STATUS, response

READ_BODY_S = 30.0
"""Seconds in which the body has to come."""


class BodyLimit:
    """Answers 413 to a request whose body is, or grows, too long, and 408 if it is slow; the rest of it is not read."""

    def __init__(self, app: ASGIApp, most_bytes: int, count: Callable[[str], None], within_s: float) -> None:
        """Stand before an application.

        Args:
            app: the application.
            most_bytes: how long a body may be.
            count: told the reason of each refusal.
            within_s: how long it may take to come.
        """
        self._app = app
        self._most_bytes = most_bytes
        self._count = count
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        declared = int(length) if length.isdigit() else 0
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self._within_s):
                while more and len(body) <= self._most_bytes and declared <= self._most_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            await self._refuse("too-slow", f"a request has to come within {self._within_s:g} s", scope, receive, send)
            return
        if more or len(body) > self._most_bytes:
            detail = f"a request may have at most {self._most_bytes} bytes"
            await self._refuse("too-large", detail, scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, reason: str, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._count(reason)
        answer = response(STATUS[reason], reason, detail, headers={"Connection": "close"})
        await answer(scope, receive, send)
