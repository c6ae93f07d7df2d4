"""Errors as RFC 9457 problem documents: one form for all of them, those of the framework included."""

import logging
import math
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from common.errors import RefusedError, StaleEpoch, TransportError
from server.core.failures import TooManyFailures
from server.services.metrics import Metrics

MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger(__name__)

STATUS: Final = {
    "malformed": 400,
    "other-version": 400,
    "no-token": 401,
    "bad-token": 401,
    "foreign-token": 403,
    "admin-only": 403,
    "read-only": 403,
    "unknown-group": 404,
    "unknown-device": 404,
    "unknown-channel": 404,
    "unknown-join-token": 404,
    "unknown-epoch": 404,
    "epoch-gone": 410,
    "device-exists": 409,
    "device-in-use": 409,
    "key-taken": 409,
    "group-exists": 409,
    "group-full": 409,
    "too-many-groups": 409,
    "too-many-channels": 409,
    "too-many-join-tokens": 409,
    "too-slow": 408,
    "too-large": 413,
    "self-adjacency": 422,
    "strangers": 422,
    "invalid": 422,
    "name-mismatch": 422,
    "too-many-failures": 429,
    "store-failed": 503,
}
"""The status of each reason for which a request is declined."""


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="a URN that names the kind of problem", examples=["urn:arborcast:problem:strangers"])
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what was wrong with this request, with the limit in it where there is one")
    reason: str = Field(description="the last part of the type, for programs", examples=["strangers"])
    errors: list[dict[str, str]] | None = Field(None, description="each field that is wrong, and what was expected")


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's problem answers for the OpenAPI document; 401, 413, 422 and 429 can come from any route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": f"Problem: {HTTPStatus(status).phrase}", "content": content}
        for status in sorted({400, 401, 413, 422, 429, *statuses})
    }


def response(
    status: int,
    reason: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> JSONResponse:
    """Write a problem document.

    Args:
        status: the HTTP status.
        reason: the slug.
        detail: a sentence for the user.
        headers: further headers.
        errors: each wrong field, if that is what is wrong.
    """
    problem = Problem(
        type=f"urn:arborcast:problem:{reason}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason,
        errors=errors,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True), status_code=status, headers=headers, media_type=MEDIA_TYPE
    )


def refusal(refused: RefusedError) -> JSONResponse:
    """Write the problem document of a refusal."""
    status = STATUS.get(refused.reason, 409)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="arborcast"'
    if isinstance(refused, TooManyFailures):
        headers["Retry-After"] = str(math.ceil(refused.retry_after_s))
    return response(status, refused.reason, refused.detail, headers=headers)


class _Answers:
    """Turns each kind of error into its problem document, and counts it by its reason."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def on_refused(self, _request: Request, error: Exception) -> JSONResponse:
        refused = cast(RefusedError, error)
        self._metrics.refused(refused.reason)
        return refusal(refused)

    async def on_stale(self, _request: Request, error: Exception) -> JSONResponse:
        self._metrics.refused("epoch-gone")
        return response(STATUS["epoch-gone"], "epoch-gone", str(error))

    async def on_transport(self, _request: Request, error: Exception) -> JSONResponse:
        self._metrics.refused("store-failed")
        return response(STATUS["store-failed"], "store-failed", str(error), headers={"Retry-After": "1"})

    async def on_invalid(self, _request: Request, error: Exception) -> JSONResponse:
        found = cast(RequestValidationError, error).errors()
        errors = [
            {"where": ".".join(str(part)[:80] for part in entry["loc"]), "expected": str(entry["msg"])[:200]}
            for entry in found[:10]
        ]
        reason = "malformed" if any(entry["type"] == "json_invalid" for entry in found) else "invalid"
        self._metrics.refused(reason)
        detail = "; ".join(f"{entry['where']}: {entry['expected']}" for entry in errors[:3])
        return response(STATUS[reason], reason, detail, errors=errors)

    async def on_http(self, request: Request, error: Exception) -> JSONResponse:
        found = cast(HTTPException, error)
        reason = HTTPStatus(found.status_code).phrase.lower().replace(" ", "-")
        headers = dict(found.headers or {})
        detail = str(found.detail)
        if found.status_code == 400:
            # The framework's word for a body that its JSON reader chokes on.
            reason, detail = "malformed", "the body cannot be read as JSON"
        self._metrics.refused(reason)
        if found.status_code == 405:
            headers["Allow"] = ", ".join(_methods(request))
            detail = f"here only {headers['Allow']} will do"
        return response(found.status_code, reason, detail, headers=headers)

    async def on_fault(self, _request: Request, error: Exception) -> JSONResponse:
        _log.error("= a request failed by a fault of ours", exc_info=error)
        return response(500, "fault", "the server failed; its log says how")


def _methods(request: Request) -> list[str]:
    """List the methods of a path, over all its routes: the framework names those of the first only."""
    methods: dict[str, None] = {}
    for route in request.app.openapi()["paths"]:
        if compile_path(route)[0].match(request.url.path):
            methods.update({method.upper(): None for method in request.app.openapi()["paths"][route]})
    return sorted(methods)


def install(app: FastAPI, metrics: Metrics) -> None:
    """Have an application answer every error with a problem document.

    Args:
        app: the application.
        metrics: where to count.
    """
    answers = _Answers(metrics)
    app.add_exception_handler(RefusedError, answers.on_refused)
    app.add_exception_handler(StaleEpoch, answers.on_stale)
    app.add_exception_handler(TransportError, answers.on_transport)
    app.add_exception_handler(RequestValidationError, answers.on_invalid)
    app.add_exception_handler(HTTPException, answers.on_http)
    app.add_exception_handler(Exception, answers.on_fault)
