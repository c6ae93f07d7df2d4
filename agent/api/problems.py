"""What goes wrong, said as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from agent.core.store import StoreError
from common.errors import RefusedError

MEDIA_TYPE: Final = "application/problem+json"

_REFUSED: Final = {
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unknown-channel": HTTPStatus.NOT_FOUND,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "no-space": HTTPStatus.INSUFFICIENT_STORAGE,
}


class ProblemBody(BaseModel):
    """A problem as JSON."""

    type: str
    title: str
    status: int
    detail: str
    reason: str


class Problem(Exception):
    """A request that is answered with a problem.

    Args:
        status: of the answer.
        reason: a short slug.
        detail: one sentence for people.
    """

    def __init__(self, status: HTTPStatus, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


def describe(error: Problem | RefusedError | StoreError) -> ProblemBody:
    """Return the problem that an error is to the one who asked."""
    if isinstance(error, Problem):
        return _body(error.status, error.reason, error.detail)
    otherwise = HTTPStatus.CONFLICT if isinstance(error, RefusedError) else HTTPStatus.INTERNAL_SERVER_ERROR
    return _body(_REFUSED.get(error.reason, otherwise), error.reason, error.detail)


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem; of a WebSocket, in place of its handshake."""

    @app.exception_handler(Problem)
    @app.exception_handler(RefusedError)
    @app.exception_handler(StoreError)
    async def on_error(_: HTTPConnection, error: Problem | RefusedError | StoreError) -> Response:
        return _answer(describe(error))

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(WebSocketRequestValidationError)
    async def on_invalid(_: HTTPConnection, error: ValidationException) -> Response:
        places = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()[:3]]
        return _answer(_body(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "; ".join(places)))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return _answer(_body(status, status.phrase.lower().replace(" ", "-"), str(error.detail)))


def _body(status: HTTPStatus, reason: str, detail: str) -> ProblemBody:
    return ProblemBody(
        type=f"urn:arborcast:problem:{reason}",
        title=status.phrase,
        status=status,
        detail=detail,
        reason=reason,
    )


def _answer(body: ProblemBody) -> Response:
    return JSONResponse(body.model_dump(), status_code=body.status, media_type=MEDIA_TYPE)
