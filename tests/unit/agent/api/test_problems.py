from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
from fastapi import FastAPI

from agent.api.problems import Problem, install
from agent.core.store import StoreError
from common.errors import RefusedError


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install(app)

    @app.get("/{kind}")
    async def fail(kind: str, number: int = 0) -> None:
        errors: dict[str, Exception] = {
            "problem": Problem(HTTPStatus.IM_A_TEAPOT, "teapot", "it is a teapot"),
            "refused": RefusedError("too-large", "at most 5 bytes"),
            "no-space": StoreError("no-space", "5 bytes left"),
            "io": StoreError("io", "the disk fails"),
        }
        raise errors[kind]

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as made:
        yield made


@pytest.mark.parametrize(
    ("path", "status", "reason", "detail"),
    [
        ("/problem", 418, "teapot", "it is a teapot"),
        ("/refused", 413, "too-large", "at most 5 bytes"),
        ("/no-space", 507, "no-space", "5 bytes left"),
        ("/io", 500, "io", "the disk fails"),
        ("/none/such", 404, "not-found", "Not Found"),
    ],
)
async def test_every_error_is_a_problem(
    client: httpx.AsyncClient, path: str, status: int, reason: str, detail: str
) -> None:
    response = await client.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["reason"], body["detail"]) == (status, reason, detail)
    assert body["type"] == f"urn:arborcast:problem:{reason}"
    assert body["title"] == HTTPStatus(status).phrase


async def test_a_wrong_value_is_named_with_its_place(client: httpx.AsyncClient) -> None:
    response = await client.get("/problem", params={"number": "five"})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("query.number: ")


async def test_a_wrong_method_is_a_problem(client: httpx.AsyncClient) -> None:
    assert (await client.post("/problem")).json()["reason"] == "method-not-allowed"
