"""Whether the server lives and can serve, for everybody; what it counts, for whoever may look."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from common.messages import Message
from server.api import problems
from server.api.access import Found, Reader

router = APIRouter(tags=["health"])


class Health(Message):
    """That the server answers."""

    status: str = "ok"


@router.get("/healthz", summary="Does the server live?")
async def healthz() -> Health:
    """Answer as long as the process does."""
    return Health()


@router.get(
    "/readyz",
    summary="Can the server serve?",
    response_model=Health,
    responses={503: problems.describe(503)[503]},
)
async def readyz(found: Found) -> Health | Response:
    """Answer 503 while the state cannot be stored."""
    if found.coordinator.failing:
        return problems.response(503, "store-failed", "the state cannot be stored now")
    return Health()


@router.get(
    "/metrics",
    summary="Show the counters",
    response_class=Response,
    dependencies=[Reader],
    responses={
        **problems.describe(403),
        200: {"description": "Prometheus' text form", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
async def metrics(found: Found) -> Response:
    """Show the counters in Prometheus' text form, to the reader's token or the administrator's."""
    return Response(found.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
