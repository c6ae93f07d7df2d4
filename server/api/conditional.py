"""Answers that a client may already have (RFC 9110 section 13), and the epochs that it may ask for."""

from collections.abc import Callable

from fastapi import Response

from common.errors import RefusedError
from server.core.group import Group


def answer(
    etag: str, if_none_match: str | None, body: Callable[[], str], media_type: str = "application/json"
) -> Response:
    """Answer with a body, or with 304 if the client has it.

    Args:
        etag: the body's entity tag, in quotes.
        if_none_match: the client's header.
        body: makes the body; not called for 304.
        media_type: the body's.
    """
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if if_none_match is not None and _knows(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body(), media_type=media_type, headers=headers)


def check_epoch(machine: Group, epoch: int | None) -> None:
    """Refuse an epoch that has not been yet; one that is no longer kept is the group's to refuse.

    Raises:
        RefusedError: unknown-epoch.
    """
    current = machine.graph().epoch
    if epoch is not None and epoch > current:
        raise RefusedError("unknown-epoch", f"epoch {epoch} has not been yet; the current one is {current}")


def _knows(if_none_match: str, etag: str) -> bool:
    """Compare weakly, as RFC 9110 section 13.1.2 has it for If-None-Match."""
    known = [entry.strip().removeprefix("W/") for entry in if_none_match.split(",")]
    return "*" in known or etag in known
