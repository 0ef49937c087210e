"""What is put to the test: where it listens, what it takes, and what holds it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from segserve.conformance.load import LoadReport, put_under_load
from segserve.conformance.payload import OwnModel, Payload
from segserve.conformance.wire import Answer, UnansweredError, Wire

NO_PAYLOAD = "no payload is known that it answers; give one with --invoke"
"""Why a check that needs one does not apply."""


@dataclass(frozen=True)
class Limits:
    """The contract's numbers, and how hard the kit tries.

    Attributes:
        ping_s: a /ping is given up after this time.
        connect_s: a connection is accepted within this time.
        invocation_s: an answer of /invocations comes within this time.
        stop_s: between SIGTERM and SIGKILL.
        startup_s: /ping answers 200 within this time of the start (CreateEndpoint's default).
        small_body: bytes that InvokeEndpoint passes on in any region.
        large_body: bytes that it passes on at most.
        transform_mb: most that concurrent transforms may hold together.
        clients, load_s: callers at once, and for how long, while /ping is tried.
        pings: one after another.
    """

    ping_s: float = 2.0
    connect_s: float = 0.25
    invocation_s: float = 60.0
    stop_s: float = 30.0
    startup_s: float = 480.0
    small_body: int = 6_291_456
    large_body: int = 25 * 2**20
    transform_mb: int = 100
    clients: int = 8
    load_s: float = 3.0
    pings: int = 10


class Holder(Protocol):
    """What can end the service: a container, or a process of this machine."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""

    def exit_code(self) -> int | None:
        """How it ended; None where that cannot be seen."""


@dataclass
class Subject:
    """A running container.

    Attributes:
        wire: where it listens.
        payload: a request that it answers with 200; None: none is known.
        ours: the models of a segserve, the one that is asked first; empty: another container.
        is_segserve: whether it is one, with or without models.
        artifact: a model as the container's POST /models takes it as its url.
        multi_model: whether the multi-model routes were promised.
        holder: what can end it; terminated_at: when it was told to end, by time.monotonic().
        started_here: whether the kit started it; then ready_after_s says after how many seconds it was ready (None:
            it never was, and never_ready says what it did instead).
        first: the answer to the first invocation; None: there was none.
    """

    wire: Wire
    limits: Limits = field(default_factory=Limits)
    payload: Payload | None = None
    ours: list[OwnModel] = field(default_factory=list)
    is_segserve: bool = False
    artifact: str | None = None
    multi_model: bool = False
    holder: Holder | None = None
    started_here: bool = False
    ready_after_s: float | None = None
    never_ready: str = ""
    first: Answer | UnansweredError | None = None
    terminated_at: float | None = None

    @property
    def sent(self) -> Payload:
        """The payload, where a check has made sure that there is one."""
        if self.payload is None:
            raise UnansweredError("no payload is known")
        return self.payload

    def terminate(self) -> None:
        """Send SIGTERM, once."""
        if self.holder is not None and self.terminated_at is None:
            self.terminated_at = time.monotonic()
            self.holder.terminate()

    @cached_property
    def load(self) -> LoadReport:
        """What happened while many callers asked at once; tried once."""
        return put_under_load(self.wire, self.sent, self.limits.clients, self.limits.load_s, self.limits.ping_s)

    def ping(self) -> Answer:
        """One plain GET /ping."""
        return self.wire.ask("GET", "/ping")

    def invoke(self, body: bytes | None = None, **headers: str) -> Answer:
        """POST /invocations with the payload, or with another body; headers by name with - as _."""
        payload = self.sent
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        content = payload.body if body is None else body
        return self.wire.ask("POST", "/invocations", {**payload.all_headers(), **extra}, content)

    def lives_on(self) -> str | None:
        """None when the payload and /ping are answered with 200, else what is wrong."""
        try:
            ping = self.ping()
            if ping.status != 200:
                return f"afterwards /ping: {ping.said()}"
            answer = self.invoke()
            return None if answer.status == 200 else f"afterwards /invocations: {answer.said()}"
        except UnansweredError as error:
            return f"afterwards: {error}"


def wait_until_ready(wire: Wire, timeout_s: float, poll_s: float = 0.25) -> tuple[float | None, str]:
    """Ask /ping until it says 200. Returns the seconds that took (None: it never did), and what it said last."""
    started = time.monotonic()
    said = "nothing"
    while (passed := time.monotonic() - started) < timeout_s:
        try:
            answer = wire.ask("GET", "/ping")
            if answer.status == 200:
                return passed, answer.said()
            said = answer.said()
        except UnansweredError as error:
            said = str(error)
        time.sleep(poll_s)
    return None, said
