"""Query parameters that an operation does not have: a slip of the pen must not get the answer to another question."""

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from common.errors import RefusedError


async def check_parameters(connection: HTTPConnection) -> None:
    """Refuse a request that names a query parameter which its operation does not have.

    Raises:
        RefusedError: invalid.
    """
    route = connection.scope.get("route")
    if not isinstance(route, APIRoute) or not connection.query_params:
        return
    known = sorted(_names(route.dependant))
    unknown = sorted(name for name in connection.query_params if name not in known)
    if unknown:
        there = f"there are: {', '.join(known)}" if known else "there are none"
        raise RefusedError("invalid", f"there is no query parameter {unknown[0][:80]!r} here; {there}")


def _names(dependant: Dependant) -> Iterator[str]:
    """Yield the query parameters of an operation, or of what it depends on."""
    for parameter in dependant.query_params:
        yield parameter.alias
    for other in dependant.dependencies:
        yield from _names(other)
