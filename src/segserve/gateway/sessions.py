"""SageMaker's stateful sessions: ids that route a caller's requests to one instance, whose workers keep its embeddings.

The router in front keeps requests with the same id together; nothing else depends on one, and no answer differs for it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from segserve.errors import InvalidRequestError

REQUEST_HEADER = "x-amzn-sagemaker-session-id"
NEW_HEADER = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_HEADER = "X-Amzn-SageMaker-Closed-Session-Id"
NEW_SESSION = "NEW_SESSION"

LIFETIME_S = 3600.0
_MOST = 10_000


@dataclass(frozen=True)
class Session:
    """One session. expires: seconds since 1970."""

    id: str
    expires: float

    @property
    def header(self) -> str:
        """The value of NEW_HEADER: id and end."""
        end = datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"{self.id}; Expires={end}"


class Sessions:
    """The sessions that this instance has opened. Of more than 10,000 the oldest ends. clock: seconds since 1970."""

    def __init__(self, lifetime_s: float = LIFETIME_S, clock: Callable[[], float] = time.time) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def open(self) -> Session:
        """A new session."""
        if len(self._expiry) >= _MOST:
            del self._expiry[next(iter(self._expiry))]
        session = Session(str(uuid.uuid4()), self._clock() + self._lifetime_s)
        self._expiry[session.id] = session.expires
        return session

    def check(self, given: str) -> None:
        """Whether a session lives.

        Raises:
            InvalidRequestError: this instance has not opened it, or it is over.
        """
        expires = self._expiry.get(given)
        if expires is not None and expires <= self._clock():
            del self._expiry[given]
            expires = None
        if expires is None:
            raise InvalidRequestError(
                f"X-Amzn-SageMaker-Session-Id: the session {given[:80]!r} is over, or was not opened here. "
                f"Open one with {NEW_SESSION}.",
                code="unknown_session",
            )

    def close(self, given: str) -> None:
        """End a session.

        Raises:
            InvalidRequestError: it does not live.
        """
        self.check(given)
        del self._expiry[given]
