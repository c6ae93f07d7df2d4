"""Who may do what: the administrator everything, a joiner enrol, a device what is its own.

Every answer to a token that proves nothing is the same 401, whether or not the group exists: names are not for
strangers.
"""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from common.errors import RefusedError
from common.ids import ID_PATTERN, DeviceId, GroupId
from common.tokens import matches
from server.core.group import Group
from server.services.coordinator import Coordinator
from server.services.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Backend:
    """What the routes work on."""

    coordinator: Coordinator
    metrics: Metrics
    admin_token_hash: str


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a token proved: the administrator (`device` is None) or a device."""

    device: DeviceId | None

    def check_is(self, device: DeviceId) -> None:
        """Refuse anybody but a device itself and the administrator.

        Raises:
            RefusedError: foreign-token.
        """
        if self.device is not None and self.device != device:
            raise RefusedError("foreign-token", f"this is the token of device {self.device!r}, not of {device!r}")


def backend(connection: HTTPConnection) -> Backend:
    """Give a route what it works on."""
    return cast(Backend, connection.app.state.backend)


def bearer_of(connection: HTTPConnection) -> str:
    """Read the token of a request or a socket.

    Raises:
        RefusedError: no-token.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RefusedError("no-token", "this needs a header 'Authorization: Bearer TOKEN'")
    return token.strip()


def authenticate(found: Backend, name: GroupId, token: str) -> Who:
    """Tell whom a token proves in a group.

    Raises:
        RefusedError: bad-token; for the administrator unknown-group.
    """
    if matches(token, found.admin_token_hash):
        found.coordinator.group(name)
        return Who(None)
    device = _member(found, name, token)
    if device is None:
        raise RefusedError("bad-token", "the token is not valid here")
    return Who(device)


def check_may_enrol(found: Backend, name: GroupId, device: DeviceId, token: str) -> bool:
    """Let in who has a join token, the administrator, or the device itself.

    Returns:
        Whether the token is the device's own, so that the enrolment replaces the one before.

    Raises:
        RefusedError: bad-token, foreign-token, or for the administrator unknown-group.
    """
    if matches(token, found.admin_token_hash):
        found.coordinator.group(name)
        return False
    own = _member(found, name, token)
    if own is not None:
        Who(own).check_is(device)
        return True
    if _group(found, name) is None or not found.coordinator.group(name).admits(token):
        raise RefusedError("bad-token", "the token is not valid here; a device enrols with a join token of its group")
    return False


def _group(found: Backend, name: GroupId) -> Group | None:
    try:
        return found.coordinator.group(name)
    except RefusedError:
        return None


def _member(found: Backend, name: GroupId, token: str) -> DeviceId | None:
    group = _group(found, name)
    return None if group is None else group.authenticate(token)


# HTTPBearer stands here for the OpenAPI document; reading the header is `bearer_of`'s.
_scheme = HTTPBearer(auto_error=False, description="The administrator's token, a join token, or a device's token.")
_Documented = Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]

GroupPath = Annotated[GroupId, Path(pattern=ID_PATTERN, description="the group", examples=["lab"])]
DevicePath = Annotated[DeviceId, Path(pattern=ID_PATTERN, description="the device", examples=["A"])]


async def _token(connection: HTTPConnection, _documented: _Documented) -> str:
    return bearer_of(connection)


Token = Annotated[str, Depends(_token)]


async def _found(connection: HTTPConnection) -> Backend:
    # A dependency that is no coroutine would cost each request a trip through a thread.
    return backend(connection)


Found = Annotated[Backend, Depends(_found)]


async def _administrator(connection: HTTPConnection, found: Found, token: Token) -> None:
    if matches(token, found.admin_token_hash):
        return
    name = connection.path_params.get("group")
    groups = found.coordinator.groups() if name is None else (_group(found, name),)
    if any(group is not None and (group.authenticate(token) or group.admits(token)) for group in groups):
        raise RefusedError("admin-only", "this is for the administrator's token only")
    raise RefusedError("bad-token", "the token is not valid here")


async def _member_or_admin(found: Found, token: Token, group: GroupPath) -> Who:
    return authenticate(found, group, token)


Administrator = Depends(_administrator)
Member = Annotated[Who, Depends(_member_or_admin)]
