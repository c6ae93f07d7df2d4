"""Which versions of the interface the server speaks; a device of another one is told so, whatever it asks."""

from collections.abc import Callable
from importlib.metadata import version

from fastapi import APIRouter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from common.errors import RefusedError
from common.versions import API_VERSION, OLDEST_API_VERSION, VERSION_HEADER, Versions, check_api_version
from server.api.problems import STATUS, response

RELEASE = version("arborcast")

router = APIRouter(tags=["health"])


@router.get("/v1", summary="Which versions are spoken?")
async def versions() -> Versions:
    """Show the server's version. No token is needed."""
    return Versions(api=API_VERSION, oldest_api=OLDEST_API_VERSION, release=RELEASE)


class VersionCheck:
    """Refuses who names a version that is not served, and names the server's own in every answer.

    Args:
        app: what serves the others.
        count: told the reason of each refusal.
    """

    def __init__(self, app: ASGIApp, count: Callable[[str], None]) -> None:
        """Stand before an application."""
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one socket."""
        named = Headers(scope=scope).get(VERSION_HEADER)
        try:
            if named is not None:
                check_api_version(named, RELEASE)
        except RefusedError as error:
            self._count(error.reason)
            answer = response(STATUS[error.reason], error.reason, error.detail)
            answer.headers[VERSION_HEADER] = str(API_VERSION)
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(answer)
            else:
                await answer(scope, receive, send)
            return

        async def send_named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                MutableHeaders(scope=message)[VERSION_HEADER] = str(API_VERSION)
            await send(message)

        await self._app(scope, receive, send_named)
