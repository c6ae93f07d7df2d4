"""The HTTP application: routers, problem documents, and the OpenAPI document that is the contract."""

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from common.limits import MAX_BODY_BYTES
from common.tokens import hash_token
from server.api import channels, devices, graph, groups, health, problems, subscribe, versions
from server.api.access import Backend
from server.api.body_limit import READ_BODY_S, BodyLimit
from server.api.examples import EXAMPLES
from server.api.parameters import check_parameters
from server.core.failures import FailureLimit
from server.services.coordinator import Coordinator
from server.services.metrics import Metrics, StunCounts

_DESCRIPTION = """
Who is adjacent to whom, how good each link is, and the acyclic graph along which data travels.

Every request but `/healthz` and `/readyz` needs `Authorization: Bearer TOKEN`: the administrator's token, the reader's
for looking alone, for enrolment a join token, or a device's token, which opens what is its own. Every error is an
RFC 9457 problem document. An address that shows many tokens that prove nothing is put off with 429.
A query parameter that an operation does not have is refused (422).

`GET /v1/groups/{group}/subscribe` is a WebSocket. Its first message is
`{"type": "subscribe", "scope": "graph" | "neighbours" | "roster", "epoch": LAST_SEEN | null}`; the answer is
`unchanged` or the state with the epochs passed over, and every change follows. A device is also told its group's
members and channels, and the largest datagram that all links take. Reports (the bodies of `adjacency`, `qos` and
`candidates`) may be sent over it.
"""


def create_application(
    coordinator: Coordinator,
    *,
    admin_token: str,
    read_token: str | None = None,
    failures: FailureLimit | None = None,
    stun: StunCounts | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        coordinator: the groups that it serves; started and stopped by the caller.
        admin_token: the administrator's token; only its hash is kept.
        read_token: the token of those who may look and nothing else; None: there is nobody.
        failures: who has failed how often; one with the usual limits if None.
        stun: what the STUN responder counts, if there is one.
    """
    app = FastAPI(
        title="arborcast server",
        version=version("arborcast"),
        description=_DESCRIPTION,
        # The pages would load scripts from elsewhere; the document itself is here.
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(check_parameters)],
    )
    metrics = Metrics(coordinator, stun)
    app.state.backend = Backend(
        coordinator,
        metrics,
        FailureLimit() if failures is None else failures,
        hash_token(admin_token),
        None if read_token is None else hash_token(read_token),
    )
    problems.install(app, metrics)
    app.add_middleware(BodyLimit, most_bytes=MAX_BODY_BYTES, count=metrics.refused, within_s=READ_BODY_S)
    app.add_middleware(versions.VersionCheck, count=metrics.refused)
    for module in (health, versions, groups, devices, graph, channels, subscribe):
        app.include_router(module.router)
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(_document(app))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Write the OpenAPI document: FastAPI's, with the problem schema and an example for each message."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document["components"]["schemas"]
    schemas["Problem"] = problems.Problem.model_json_schema()
    for name, example in EXAMPLES.items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    return document
