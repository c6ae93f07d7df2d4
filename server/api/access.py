"""Who may do what: the administrator everything, a reader look, a joiner enrol, a device what is its own.

Every answer to a token that proves nothing is the same 401, whether or not the group exists: names are not for
strangers. An address that shows many of them is put off with 429; whoever has a valid token never is.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, NoReturn, cast

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from common.errors import RefusedError
from common.ids import ID_PATTERN, DeviceId, GroupId
from common.tokens import matches
from server.core.failures import FailureLimit, TooManyFailures
from server.core.group import Group
from server.services.coordinator import Coordinator
from server.services.metrics import Metrics


class Role(Enum):
    """What a token proves."""

    ADMINISTRATOR = "administrator"
    READER = "reader"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Backend:
    """What the routes work on; there is nobody who only reads if `read_token_hash` is None."""

    coordinator: Coordinator
    metrics: Metrics
    failures: FailureLimit
    admin_token_hash: str
    read_token_hash: str | None = None

    def role_of(self, token: str) -> Role | None:
        """Tell whether a token is one of the whole server; None for any other."""
        if matches(token, self.admin_token_hash):
            return Role.ADMINISTRATOR
        if self.read_token_hash is not None and matches(token, self.read_token_hash):
            return Role.READER
        return None


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a token proved; `device` is None unless it is a device."""

    role: Role
    device: DeviceId | None = None

    def check_is(self, device: DeviceId) -> None:
        """Refuse anybody but a device itself and the administrator.

        Raises:
            RefusedError: read-only, or foreign-token.
        """
        if self.role is Role.READER:
            raise _read_only()
        if self.device is not None and self.device != device:
            raise RefusedError("foreign-token", f"this is the token of device {self.device!r}, not of {device!r}")

    def check_is_itself(self, device: DeviceId) -> None:
        """Refuse anybody but a device itself.

        Raises:
            RefusedError: read-only, or foreign-token.
        """
        self.check_is(device)
        if self.device is None:
            raise RefusedError("foreign-token", f"only device {device!r} itself may do this, by its own token")


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


def authenticate(connection: HTTPConnection, name: GroupId, token: str) -> Who:
    """Tell whom a token proves in a group.

    Raises:
        RefusedError: bad-token, too-many-failures; for the tokens of the whole server unknown-group.
    """
    found = backend(connection)
    role = found.role_of(token)
    if role is not None:
        found.coordinator.group(name)
        return Who(role)
    device = _member(found, name, token)
    if device is None:
        turn_away(connection, "the token is not valid here")
    return Who(Role.DEVICE, device)


def turn_away(connection: HTTPConnection, detail: str) -> NoReturn:
    """Refuse a token that proves nothing, and count it against the address that it came from.

    Raises:
        RefusedError: bad-token, or too-many-failures.
    """
    found = backend(connection)
    host = "" if connection.client is None else connection.client.host
    wait = found.failures.fail(host, now=found.coordinator.now())
    if wait > 0:
        raise TooManyFailures(wait)
    raise RefusedError("bad-token", detail)


@dataclass(frozen=True, slots=True)
class Admission:
    """What lets a device in.

    Attributes:
        replaces: its own token does, so that the enrolment replaces the one before.
        join_token: the join token that does, which is to be spent.
    """

    replaces: bool = False
    join_token: str | None = None


def check_may_enrol(connection: HTTPConnection, name: GroupId, device: DeviceId, token: str) -> Admission:
    """Let in who has a join token, the administrator, or the device itself.

    Raises:
        RefusedError: bad-token, too-many-failures, foreign-token, read-only; for the administrator unknown-group.
    """
    found = backend(connection)
    role = found.role_of(token)
    if role is Role.READER:
        raise _read_only()
    if role is Role.ADMINISTRATOR:
        found.coordinator.group(name)
        return Admission()
    own = _member(found, name, token)
    if own is not None:
        Who(Role.DEVICE, own).check_is(device)
        return Admission(replaces=True)
    group = _group(found, name)
    if group is None or not group.entrance.admits(token, wall=found.coordinator.wall()):
        turn_away(connection, "the token is not valid here; a device enrols with a join token of its group")
    return Admission(join_token=token)


def _group(found: Backend, name: GroupId) -> Group | None:
    try:
        return found.coordinator.group(name)
    except RefusedError:
        return None


def _member(found: Backend, name: GroupId, token: str) -> DeviceId | None:
    group = _group(found, name)
    device = None if group is None else group.authenticate(token)
    if group is not None and device is not None and group.entrance.awaits_token(device):
        found.coordinator.apply(
            name, lambda machine, now, wall: machine.entrance.confirm_token(token, now=now, wall=wall)
        )
    return device


def _read_only() -> RefusedError:
    return RefusedError("read-only", "this token is for looking only")


# HTTPBearer stands here for the OpenAPI document; reading the header is `bearer_of`'s.
_scheme = HTTPBearer(
    auto_error=False, description="The administrator's token, the reader's, a join token, or a device's token."
)
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
    role = found.role_of(token)
    if role is not Role.ADMINISTRATOR:
        if role is Role.READER or _proves_something(connection, token):
            raise RefusedError("admin-only", "this is for the administrator's token only")
        turn_away(connection, "the token is not valid here")


async def _reader(connection: HTTPConnection, found: Found, token: Token) -> None:
    if found.role_of(token) is None:
        if _proves_something(connection, token):
            raise RefusedError("admin-only", "this is for the administrator's token or the reader's only")
        turn_away(connection, "the token is not valid here")


def _proves_something(connection: HTTPConnection, token: str) -> bool:
    """Tell whether a token is good for something in the group that the request names, or in any if it names none."""
    found = backend(connection)
    name = connection.path_params.get("group")
    groups = found.coordinator.groups() if name is None else (_group(found, name),)
    wall = found.coordinator.wall()
    return any(
        group is not None and (group.authenticate(token) or group.entrance.admits(token, wall=wall)) for group in groups
    )


async def _member_or_wide(connection: HTTPConnection, token: Token, group: GroupPath) -> Who:
    return authenticate(connection, group, token)


Administrator = Depends(_administrator)
Reader = Depends(_reader)
Member = Annotated[Who, Depends(_member_or_wide)]
