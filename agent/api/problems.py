"""What goes wrong, said as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

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


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, problem: Problem) -> Response:
        return _answer(problem.status, problem.reason, problem.detail)

    @app.exception_handler(RefusedError)
    async def on_refused(_: Request, error: RefusedError) -> Response:
        status = _REFUSED.get(error.reason, HTTPStatus.CONFLICT)
        return _answer(status, error.reason, error.detail)

    @app.exception_handler(StoreError)
    async def on_store_error(_: Request, error: StoreError) -> Response:
        status = _REFUSED.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
        return _answer(status, error.reason, error.detail)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        places = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()[:3]]
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "; ".join(places))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return _answer(status, status.phrase.lower().replace(" ", "-"), str(error.detail))


def _answer(status: HTTPStatus, reason: str, detail: str) -> Response:
    body = ProblemBody(
        type=f"urn:arborcast:problem:{reason}",
        title=status.phrase,
        status=status,
        detail=detail,
        reason=reason,
    )
    return JSONResponse(body.model_dump(), status_code=status, media_type=MEDIA_TYPE)
