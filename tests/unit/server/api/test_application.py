from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

import common.messages
from server.api import devices, formats, graph, groups, health, problems, versions
from server.api.examples import EXAMPLES
from tests.unit.server.api_harness import Api

_MODULES = (common.messages, devices, formats, graph, groups, health, problems, versions)


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def _document(api: Api) -> dict[str, Any]:
    answer = await api.call("GET", "/openapi.json", token=None)
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def test_the_document_describes_every_operation_of_the_design(api: Api) -> None:
    document = await _document(api)
    group = "/v1/groups/{group}"
    device = f"{group}/devices/{{device}}"
    assert sorted(name for name, _ in _operations(document)) == sorted(
        [
            "GET /healthz",
            "GET /readyz",
            "GET /metrics",
            "POST /v1/groups",
            "GET /v1",
            "GET /v1/groups",
            f"POST {group}/join-tokens",
            f"GET {group}/join-tokens",
            f"DELETE {group}/join-tokens",
            f"DELETE {group}/join-tokens/{{join_token}}",
            f"POST {group}/devices",
            f"GET {group}/devices",
            f"GET {device}",
            f"DELETE {device}",
            f"POST {device}/token",
            f"PUT {device}/adjacency",
            f"PUT {device}/qos",
            f"PUT {device}/candidates",
            f"GET {device}/neighbours",
            f"GET {group}/graph",
            f"GET {group}/links",
            f"GET {group}/channels",
            f"PUT {group}/channels/{{channel}}",
            f"DELETE {group}/channels/{{channel}}",
        ]
    )


async def test_every_operation_has_a_summary_a_description_and_described_parameters(api: Api) -> None:
    for name, operation in _operations(await _document(api)):
        assert operation["summary"], name
        assert operation["description"], name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])


async def test_every_body_has_an_example(api: Api) -> None:
    document = await _document(api)
    schemas = document["components"]["schemas"]
    for name, operation in _operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (found for body in bodies for found in body.get("content", {}).values()):
            schema = content["schema"]
            for reference in [schema, *schema.get("anyOf", ())]:
                if "$ref" in reference:
                    assert schemas[reference["$ref"].rpartition("/")[2]].get("examples"), (name, reference)


async def test_every_operation_needs_a_token_but_those_that_ask_whether_the_server_lives(api: Api) -> None:
    for name, operation in _operations(await _document(api)):
        needs = name not in ("GET /healthz", "GET /readyz", "GET /v1")
        assert ("security" in operation) == needs, name
        assert ("401" in operation["responses"]) == needs, name
        assert ("429" in operation["responses"]) == needs, name


async def test_every_problem_answer_is_a_problem_document(api: Api) -> None:
    for name, operation in _operations(await _document(api)):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (name, status)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_one(name: str) -> None:
    model = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
    assert issubclass(model, BaseModel)
    TypeAdapter(model).validate_python(EXAMPLES[name])
