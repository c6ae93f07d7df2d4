"""The OpenAPI document is the contract: schemathesis asks what it allows, and what it does not, of a server in here.

Names that it makes up are replaced by ones that exist, so that requests reach past the access check.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from common.ids import is_id
from server.api.application import create_application
from server.core.join_tokens import id_of
from server.services.coordinator import Coordinator
from server.services.store.memory import MemoryStore
from tests.unit.server.api_harness import ADMIN, READER, Api, serving
from tests.unit.server.harness import key_of

EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
]
# With the wrong token a request may be refused before its form is looked at.
ROLE_CHECKS = [check for check in CHECKS if check is not negative_data_rejection]
KNOWN = {"group": ("lab",), "device": ("A", "B", "C"), "channel": ("files", "messages", "chat")}
JOIN_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
_GROUP = "/v1/groups/{group}"
_DEVICE = f"{_GROUP}/devices/{{device}}"
FOR_ALL = {"GET /healthz", "GET /readyz", "GET /v1"}
LOOKING = {
    *(f"GET {_GROUP}/{what}" for what in ("graph", "links", "channels", "devices")),
    f"GET {_DEVICE}",
}
OWN = {
    *(f"PUT {_DEVICE}/{what}" for what in ("adjacency", "qos", "candidates")),
    f"GET {_DEVICE}/neighbours",
    f"POST {_DEVICE}/token",
    f"DELETE {_DEVICE}",
    f"POST {_GROUP}/devices",
}
ALLOWED = {
    "reader": FOR_ALL | LOOKING | {"GET /metrics"},
    "device": FOR_ALL | LOOKING | OWN,
    "joiner": FOR_ALL | {f"POST {_GROUP}/devices"},
}
"""What each kind of token opens; the administrator's opens all but the change of a device's token."""

_DOCUMENT = create_application(Coordinator(MemoryStore(monotonic=lambda: 0.0)), admin_token=ADMIN).openapi()
schema = schemathesis.openapi.from_dict(_DOCUMENT)
# Tokens are this test's to add.
schema.config.generation.update(
    modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    with_security_parameters=False,
    allow_extra_parameters=False,
)


class Server:
    """A server in this process, with a loop that runs while a request does."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.api: Api = self._runner.run(self._stack.enter_async_context(serving()))
        self.tokens = {"administrator": ADMIN, "reader": READER}

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def ensure(self) -> None:
        """Bring back what an example took away: devices, the first one's token, and a join token."""
        members = [entry.device for entry in self.api.coordinator.group("lab").roster().devices]
        for device in (name for name in KNOWN["device"] if name not in members):
            body = {"device": device, "public_key": key_of(device), "signing_key": key_of(device)}
            answer = self._runner.run(self.api.call("POST", "/v1/groups/lab/devices", body))
            self.api.tokens[device] = answer.json()["token"]
        if self.api.coordinator.group("lab").authenticate(self.api.tokens["A"]) is None:
            self._runner.run(self.api.call("DELETE", "/v1/groups/lab/devices/A"))
            self.ensure()
        self._ensure_join_token()
        self.tokens |= {"device": self.api.tokens["A"], "joiner": self.api.join_token}

    def _ensure_join_token(self) -> None:
        if len(self.api.coordinator.group("lab").entrance.join_tokens(wall=0.0)) > 50:
            self._runner.run(self.api.call("DELETE", "/v1/groups/lab/join-tokens"))
        if not self.api.coordinator.group("lab").entrance.admits(self.api.join_token, wall=0.0):
            answer = self._runner.run(self.api.call("POST", "/v1/groups/lab/join-tokens"))
            self.api.join_token = answer.json()["join_token"]

    def send(self, case: Case[Any], token: str | None) -> httpx.Response:
        case.headers.pop("Authorization", None)
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://test")).prepare()
        headers = {name: value for name, value in sent.headers.items() if name.lower() != "authorization"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        options: dict[str, Any] = {"headers": headers, "content": sent.body}
        request = httpx.Request(sent.method or "", sent.url or "", **options)
        return self._runner.run(self.api.client.send(request))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def lead_to_what_exists(case: Case[Any], server: Server) -> None:
    """Replace names that are well formed by names that are there; leave mistakes as they are."""
    for name, known in KNOWN.items():
        given = case.path_parameters.get(name)
        if isinstance(given, str) and is_id(given):
            case.path_parameters[name] = known[len(given) % len(known)]
    given = case.path_parameters.get("join_token")
    if isinstance(given, str) and JOIN_TOKEN_ID.fullmatch(given):
        case.path_parameters["join_token"] = id_of(server.api.join_token)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_answers_as_its_document_says(case: Case[Any], server: Server) -> None:
    server.ensure()
    lead_to_what_exists(case, server)
    # A device alone changes its token.
    role = "device" if case.operation.label == f"POST {_DEVICE}/token" else "administrator"
    answer = server.send(case, server.tokens[role])
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code < 500


@pytest.mark.parametrize("role", ALLOWED)
@schema.parametrize()
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_each_kind_of_token_opens_what_is_its_own_and_is_answered_as_the_document_says(
    case: Case[Any], server: Server, role: str
) -> None:
    server.ensure()
    lead_to_what_exists(case, server)
    answer = server.send(case, server.tokens[role])
    case.validate_response(answer, checks=ROLE_CHECKS)
    assert answer.status_code < 500
    if case.operation.label not in ALLOWED[role]:
        assert answer.status_code >= 400, (role, case.operation.label, answer.text)
    elif role == "device" and case.operation.label in OWN and answer.is_success:
        assert (case.path_parameters.get("device") or answer.json()["device"]) == "A"
    if role == "reader":
        assert "group_keys" not in answer.text


@schema.include(path_regex="^(/v1/|/metrics)").parametrize()
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_is_answered_without_a_token_that_proves_something(case: Case[Any], server: Server) -> None:
    lead_to_what_exists(case, server)
    for token in (None, "A~stale"):
        answer = server.send(case, token)
        # Who is wrong about the form as well may be told so: it says nothing about what is here.
        assert answer.status_code in (400, 401, 403, 405, 422)


def test_what_each_token_opens_is_named_for_every_operation_there_is() -> None:
    known = {f"{method.upper()} {path}" for path, methods in _DOCUMENT["paths"].items() for method in methods}
    assert set().union(*ALLOWED.values()) <= known
