"""The open subscriptions: one sender task each, a bounded outbox each, and an end with a reason for who does not read.

Nobody who publishes ever waits for a subscriber: `Sessions.deliver` only puts a message into its outbox.
"""

import asyncio
from collections.abc import Awaitable, Callable

from common.errors import ConnectError
from common.limits import SLOW_SUBSCRIBER_S
from common.messages import ErrorMessage, ServerMessage, encode_message
from server.core.outbox import Outbox

SLOW = ErrorMessage(reason="slow", detail="the subscriber did not read what waited for it; subscribe again")
_ENCODED_KEPT = 8


class Encoder:
    """Encodes a message that goes to many subscribers once."""

    def __init__(self) -> None:
        """Start with nothing encoded."""
        self._texts: dict[int, tuple[ServerMessage, str]] = {}

    def encode(self, message: ServerMessage) -> str:
        """Give a message's text."""
        known = self._texts.get(id(message))
        if known is not None:
            return known[1]
        text = encode_message(message)
        # The message is kept with its text, so that no other one can get its id.
        self._texts[id(message)] = (message, text)
        if len(self._texts) > _ENCODED_KEPT:
            del self._texts[next(iter(self._texts))]
        return text


class Session:
    """One open subscription."""

    def __init__(self, number: int, send: Callable[[str], Awaitable[None]], encoder: Encoder) -> None:
        """Start with an empty outbox.

        Args:
            number: names it among all sessions.
            send: sends a text; waits while the connection takes no more, raises ConnectError when it is gone.
            encoder: shared by all sessions.
        """
        self.number = number
        self._send = send
        self._encoder = encoder
        self._outbox = Outbox()
        self._wake = asyncio.Event()
        self.last_word: ErrorMessage | None = None

    def offer(self, message: ServerMessage) -> None:
        """Put a message into the outbox; a session whose outbox is full ends."""
        if not self._outbox.offer(message):
            self.close(SLOW)
        self._wake.set()

    def close(self, last_word: ErrorMessage) -> None:
        """Have the session end; what waits in its outbox is dropped."""
        if self.last_word is None:
            self.last_word = last_word
        self._wake.set()

    async def run(self) -> None:
        """Send what the outbox holds until the session ends; `last_word` says why, unless the other side left."""
        while self.last_word is None:
            message = self._outbox.take()
            if message is None:
                await self._wake.wait()
                self._wake.clear()
                continue
            try:
                async with asyncio.timeout(SLOW_SUBSCRIBER_S):
                    await self._send(self._encoder.encode(message))
            except TimeoutError:
                self.close(SLOW)
            except ConnectError:
                return


class Sessions:
    """All open subscriptions of this server, by number."""

    def __init__(self) -> None:
        """Start with none."""
        self._sessions: dict[int, Session] = {}
        self._encoder = Encoder()
        self._last = 0

    def __len__(self) -> int:
        """Count the open sessions."""
        return len(self._sessions)

    def open(self, send: Callable[[str], Awaitable[None]]) -> Session:
        """Open a session under a number that is never used again."""
        self._last += 1
        session = Session(self._last, send, self._encoder)
        self._sessions[session.number] = session
        return session

    def forget(self, number: int) -> None:
        """Forget a session that has ended."""
        self._sessions.pop(number, None)

    def deliver(self, number: int, message: ServerMessage) -> None:
        """Put a message into a session's outbox, if it is still open."""
        session = self._sessions.get(number)
        if session is not None:
            session.offer(message)

    def close(self, number: int, last_word: ErrorMessage) -> None:
        """Have a session end with a reason, if it is still open."""
        session = self._sessions.get(number)
        if session is not None:
            session.close(last_word)
