"""What the server gives to who has no token, a foreign one, one of the past, or a request that was recorded."""

import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from common.fields import encode_key
from lab.loopback import GROUP
from tests.harness.attacked import Attacked, make_file, until
from tests.harness.member import Member

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(120)]

REFUSED = {401, 403, 429}
"""No proof, not for this one, too many failures."""
READABLE_BY_MEMBERS = ("GET", "/v1/groups/{group}/devices/{device}")
ENROLMENT = ("POST", "/v1/groups/{group}/devices")
OTHER = "other"


@pytest.fixture
async def attacked(tmp_path: Path) -> AsyncIterator[Attacked]:
    """A server with the group lab and, for the foreigner, another one."""
    system = Attacked(tmp_path / "lab", "")
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def member(attacked: Attacked) -> AsyncIterator[Member]:
    made = Member("M", attacked.url)
    try:
        await made.enrol(attacked.join_token)
        yield made
    finally:
        await made.close()


@pytest.fixture
async def client(attacked: Attacked) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=attacked.url, trust_env=False, timeout=10.0) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that the server does, with a body that it would take."""

    method: str
    path: str
    body: Any

    def filled(self, device: str = "M") -> str:
        path = self.path.replace("{group}", GROUP).replace("{device}", device)
        return re.sub(r"{\w+}", "files", path)


async def operations(client: httpx.AsyncClient) -> list[Operation]:
    """Return everything under /v1 of the server's own document, with its own examples."""
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    found = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            if path.startswith("/v1/"):
                content = described.get("requestBody", {}).get("content", {}).get("application/json")
                found.append(Operation(method.upper(), path, None if content is None else _example(document, content)))
    return found


def _example(document: dict[str, Any], content: dict[str, Any]) -> Any:
    """Return the document's example of a body; of one that may be left out, too."""
    schema = content["schema"]
    reference: str = next(each["$ref"] for each in [schema, *schema.get("anyOf", ())] if "$ref" in each)
    return document["components"]["schemas"][reference.rpartition("/")[2]]["examples"][0]


async def ask(
    client: httpx.AsyncClient, operation: Operation, token: str | None, *, device: str = "M", query: str = ""
) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    path = operation.filled(device) + query
    return (await client.request(operation.method, path, headers=headers, json=operation.body)).status_code


async def foreign_tokens(attacked: Attacked, client: httpx.AsyncClient) -> list[str]:
    """Return what opens another group: its join token, and the token of one of its devices."""
    admin = {"Authorization": f"Bearer {attacked.admin_token}"}
    join = (await client.post("/v1/groups", headers=admin, json={"group": OTHER})).json()["join_token"]
    stranger = Member("M", attacked.url)
    key = encode_key(b"\x09" + bytes(31))
    body = {"device": "M", "public_key": key, "signing_key": encode_key(stranger.signer.public_key)}
    answer = await client.post(f"/v1/groups/{OTHER}/devices", headers={"Authorization": f"Bearer {join}"}, json=body)
    await stranger.close()
    return [join, answer.json()["token"]]


async def test_nothing_but_health_is_answered_without_a_token(member: Member, client: httpx.AsyncClient) -> None:
    found = await operations(client)
    assert len(found) > 10
    for each in found:
        assert await ask(client, each, None) in REFUSED, each
        # A token in the address is none, for addresses end up in logs; that there is no such parameter may come first.
        assert await ask(client, each, None, query=f"?token={member.token}") in REFUSED | {422}, each


async def test_made_up_tokens_open_nothing(member: Member, client: httpx.AsyncClient) -> None:
    for token in ("M~", f"M~{'A' * 43}", "join~x", member.token[:-1], f"{member.token}A", "~", "x" * 5_000):
        for each in await operations(client):
            assert await ask(client, each, token) in REFUSED, (token, each)


async def test_another_group_s_tokens_open_nothing(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    for token in await foreign_tokens(attacked, client):
        for each in await operations(client):
            assert await ask(client, each, token) in REFUSED, each


async def test_another_device_s_token_opens_nothing_of_a_device_s_own(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    other = Member("N", attacked.url)
    try:
        await other.enrol(attacked.join_token)
        for each in await operations(client):
            if "{device}" in each.path and (each.method, each.path) != READABLE_BY_MEMBERS:
                assert await ask(client, each, other.token) == 403, each
        key = encode_key(b"\x09" + bytes(31))
        taken = await other.ask("POST", "devices", device="M", public_key=key, signing_key=key)
        assert taken.status_code == 403
    finally:
        await other.close()


async def test_a_join_token_opens_enrolment_and_nothing_else(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    for each in await operations(client):
        if (each.method, each.path) != ENROLMENT:
            assert await ask(client, each, attacked.join_token) in REFUSED, each


async def test_no_subscription_opens_without_the_groups_own_token(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    url = f"ws{attacked.url.removeprefix('http')}/v1/groups/{GROUP}/subscribe"
    for token in (None, "made-up", attacked.join_token, *await foreign_tokens(attacked, client)):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, additional_headers=headers, proxy=None):
                pass
        assert refused.value.response.status_code in REFUSED


async def test_a_recorded_enrolment_that_is_played_again_makes_no_second_member(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    devices = (await member.ask("GET", "devices")).json()
    entry = next(entry for entry in devices["devices"] if entry["device"] == "M")
    keys = {"public_key": entry["public_key"], "signing_key": entry["signing_key"]}
    for device in ("M", "X"):
        again = await member.ask("POST", "devices", attacked.join_token, device=device, **keys)
        assert again.status_code == 409, again.text
        assert again.json()["reason"] in ("device-exists", "key-taken")
    assert (await member.ask("GET", "devices")).json() == devices


async def test_a_recorded_renewal_that_is_played_again_is_under_a_token_of_the_past(
    attacked: Attacked, member: Member
) -> None:
    devices = (await member.ask("GET", "devices")).json()
    entry = next(entry for entry in devices["devices"] if entry["device"] == "M")
    keys = {"public_key": entry["public_key"], "signing_key": entry["signing_key"]}
    old = member.token
    first = await member.ask("POST", "devices", old, device="M", **keys)
    assert first.status_code == 201
    assert (await member.ask("POST", "devices", old, device="M", **keys)).status_code in REFUSED
    assert (await member.ask("GET", "graph", old)).status_code in REFUSED
    assert (await member.ask("GET", "graph", first.json()["token"])).status_code == 200


async def test_an_evicted_member_s_token_opens_nothing_from_then_on(
    attacked: Attacked, member: Member, client: httpx.AsyncClient
) -> None:
    evicted = await member.ask("DELETE", "devices/M", attacked.admin_token)
    assert evicted.is_success
    for each in await operations(client):
        assert await ask(client, each, member.token) in REFUSED, each


async def test_no_token_and_no_key_is_logged_or_stored_in_the_clear(attacked_pair: Attacked, tmp_path: Path) -> None:
    system = attacked_pair
    await system.send("A", make_file(tmp_path, 100_000))
    await system.arrives("B", tmp_path / "model.bin")
    secrets = {system.admin_token, system.join_token}
    identities = [(system.folder / device / "state" / "identity.json").read_text() for device in "AB"]
    for text in identities:
        secrets |= set(re.findall(r'"(?:token|private_key)": "([^"]+)"', text))
    assert len(secrets) == 6
    for path in (path for path in system.folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found = {secret for secret in secrets if secret.encode() in content}
        if found:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert path.name in ("identity.json", "admin-token", f"join-token-{GROUP}"), path


async def test_state_folders_are_their_owners_alone(attacked_pair: Attacked) -> None:
    folder = attacked_pair.folder
    for state in (folder / "server" / "state", folder / "A" / "state", folder / "B" / "state"):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700, state
    for name in ("admin-token", f"join-token-{GROUP}"):
        assert stat.S_IMODE((folder / "server" / "state" / name).stat().st_mode) == 0o600, name
    for device in "AB":
        assert stat.S_IMODE((folder / device / "agent.sock").stat().st_mode) == 0o600
        kept = folder / device / "state" / "server.json"
        await until(kept.exists)
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600  # the group keys are in it


@pytest.fixture
async def attacked_pair(tmp_path: Path) -> AsyncIterator[Attacked]:
    system = Attacked(tmp_path / "lab", "A B")
    try:
        await system.start()
        await system.span()
        yield system
    finally:
        await system.stop()
