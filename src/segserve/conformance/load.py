"""Many callers at once, and what /ping does meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from segserve.conformance.payload import Payload
from segserve.conformance.wire import Answer, UnansweredError, Wire, exchange

_PAUSE_S = 0.05


@dataclass(frozen=True)
class Ping:
    """One health check. connect_s, answer_s: what each took, None where it did not come; said: the answer."""

    connect_s: float | None
    answer_s: float | None
    said: str
    healthy: bool


@dataclass(frozen=True)
class LoadReport:
    """What happened under load. answered: invocations by status; unanswered: by reason; slowest_s: of them."""

    pings: Sequence[Ping]
    answered: Counter[int]
    unanswered: Counter[str]
    slowest_s: float

    def counted(self) -> str:
        """The invocations, for people."""
        parts = [f"{count} × {status}" for status, count in sorted(self.answered.items())]
        parts += [f"{count} × {reason}" for reason, count in self.unanswered.items()]
        return ", ".join(parts) or "none"


def timed_ping(wire: Wire, timeout_s: float) -> Ping:
    """One GET /ping on a connection of its own, its two parts timed; given up after the time."""
    impatient = replace(wire, timeout_s=timeout_s)
    started = time.perf_counter()
    connect_s = None
    try:
        with contextlib.closing(impatient.connect()) as connection:
            connect_s = time.perf_counter() - started
            answer = exchange(connection, "GET", [impatient.head("GET", "/ping")])
    except UnansweredError as error:
        return Ping(connect_s, None, str(error), False)
    return Ping(connect_s, time.perf_counter() - started, answer.said(), answer.status == 200)


def ask_at_once(wire: Wire, payload: Payload, count: int) -> list[Answer | UnansweredError]:
    """The payload sent by many callers at the same moment, once each."""

    def ask(_: int) -> Answer | UnansweredError:
        try:
            return wire.ask("POST", "/invocations", payload.all_headers(), payload.body)
        except UnansweredError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def put_under_load(wire: Wire, payload: Payload, clients: int, seconds: float, ping_s: float) -> LoadReport:
    """Callers that ask again and again for some seconds, while /ping is tried all the time."""
    over = threading.Event()
    answered: Counter[int] = Counter()
    unanswered: Counter[str] = Counter()
    took: list[float] = []

    def ask_on(_: int) -> None:
        while not over.is_set():
            try:
                answer = wire.ask("POST", "/invocations", payload.all_headers(), payload.body)
                answered[answer.status] += 1
                took.append(answer.seconds)
            except UnansweredError as error:
                unanswered[str(error)] += 1

    pings = []
    with ThreadPoolExecutor(clients) as pool:
        callers = [pool.submit(ask_on, number) for number in range(clients)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pings.append(timed_ping(wire, ping_s))
            time.sleep(_PAUSE_S)
        over.set()
        for caller in callers:
            caller.result()
    return LoadReport(pings, answered, unanswered, max(took, default=0.0))
