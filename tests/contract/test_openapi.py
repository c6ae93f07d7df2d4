"""The OpenAPI document is the contract: schemathesis asks what it allows, and what it does not, of a server in here.

Names that it makes up are replaced by ones that exist, so that requests reach past the access check.
"""

import asyncio
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
from server.services.coordinator import Coordinator
from server.services.store.memory import MemoryStore
from tests.unit.server.api_harness import ADMIN, Api, serving
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
KNOWN = {"group": ("lab",), "device": ("A", "B", "C"), "channel": ("files", "messages", "chat")}

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

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def ensure_devices(self) -> None:
        """Enrol again whom an example evicted."""
        members = [entry.device for entry in self.api.coordinator.group("lab").roster().devices]
        for device in (name for name in KNOWN["device"] if name not in members):
            self._runner.run(
                self.api.call(
                    "POST",
                    "/v1/groups/lab/devices",
                    {"device": device, "public_key": key_of(device), "signing_key": key_of(device)},
                )
            )

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


def lead_to_what_exists(case: Case[Any]) -> None:
    """Replace names that are well formed by names that are there; leave mistakes as they are."""
    for name, known in KNOWN.items():
        given = case.path_parameters.get(name)
        if isinstance(given, str) and is_id(given):
            case.path_parameters[name] = known[len(given) % len(known)]


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
    server.ensure_devices()
    lead_to_what_exists(case)
    answer = server.send(case, ADMIN)
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code < 500


@schema.include(path_regex="^/v1/").parametrize()
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_is_answered_without_a_token_that_proves_something(case: Case[Any], server: Server) -> None:
    lead_to_what_exists(case)
    for token in (None, "A~stale"):
        answer = server.send(case, token)
        # Who is wrong about the form as well may be told so: it says nothing about what is here.
        assert answer.status_code in (400, 401, 403, 405, 422)
