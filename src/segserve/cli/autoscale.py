"""``segserve autoscale``: keep each model of a running service between a fewest and a most workers.

segserve autoscale --min 1 --max 4 --target-queue-time 0.5
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.errors import SegserveError
    from segserve.torchserve.autoscaler import Autoscaler, Step
    from segserve.torchserve.autoscaling import ScalingPolicy
    from segserve.torchserve.queue_metrics import Fleet


def add_parser(subparsers: Any) -> None:
    """Add ``autoscale`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "autoscale",
        help="keep models between a fewest and a most workers, by how long requests wait",
        description="Watch the queues of a running service, add workers while requests wait longer than the target, "
        "and take them away, one by one, while fewer would do. Never below --min, never more than memory holds. Runs "
        "until Ctrl-C or SIGTERM; the workers stay as they are then. Which changes it makes, and why, goes to stdout.",
        epilog="examples: segserve autoscale grounded_sam --min 1 --max 4 --target-queue-time 0.5 | "
        "segserve autoscale --min 1 --max 2 --dry-run | "
        "segserve autoscale --min 1 --max 4 --url http://host:8080 --admin-key KEY",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every model, also those that come later")
    parser.add_argument("--min", type=int, required=True, metavar="N", dest="minimum", help="fewest workers, from 1")
    parser.add_argument("--max", type=int, required=True, metavar="N", dest="maximum", help="most workers")
    parser.add_argument(
        "--target-queue-time", type=float, default=1.0, metavar="S", help="longest wait in the queue, seconds (1)"
    )
    parser.add_argument("--interval", type=float, default=5.0, metavar="S", help="between two looks, seconds (5)")
    parser.add_argument("--grow-after", type=int, default=2, metavar="N", help="looks in a row above the target (2)")
    parser.add_argument("--shrink-after", type=int, default=6, metavar="N", help="quiet looks in a row (6)")
    parser.add_argument(
        "--grow-cool-down", type=float, default=10.0, metavar="S", help="from a change to growing, seconds (10)"
    )
    parser.add_argument(
        "--shrink-cool-down", type=float, default=60.0, metavar="S", help="from a change to shrinking, seconds (60)"
    )
    parser.add_argument(
        "--memory-reserve", type=int, default=512, metavar="MIB", help="left free by a new worker, MiB (512)"
    )
    parser.add_argument("--once", action="store_true", help="one look after one interval, one decision, then end")
    parser.add_argument("--dry-run", action="store_true", help="print every decision, change nothing")
    parser.add_argument("--port", type=int, default=8080, help="of your own service on this machine (default 8080)")
    parser.add_argument("--url", help="the gateway of another service; needs --admin-key")
    parser.add_argument("--admin-key", metavar="KEY", help="the service's SEGSERVE_ADMIN_KEY")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scale until a signal comes, or once. Returns 0 then."""
    from segserve.errors import InvalidRequestError
    from segserve.torchserve.autoscaler import Autoscaler

    if not 0.1 <= args.interval <= 3600:
        raise InvalidRequestError(f"--interval: expected seconds from 0.1 to 3600, came {args.interval:g}.")
    autoscaler = Autoscaler(_fleet(args), _policy(args), args.models, dry_run=args.dry_run)
    with _stopped_by_signal() as stop:
        # Names and keys that are wrong are told now, not while it runs.
        autoscaler.observe()
        if args.once:
            return _once(autoscaler, stop, args.interval)
        print(f"watching {', '.join(args.models) or 'every model'} every {args.interval:g} s", flush=True)
        autoscaler.run(stop, args.interval, Journal(every=args.dry_run))
    print("stopped; the workers stay as they are", flush=True)
    return 0


class Journal:
    """Prints what an autoscaler does: changes, and when the reason for none becomes another; or every decision."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._last: dict[str, str] = {}

    def __call__(self, came: list[Step] | SegserveError) -> None:
        """Report one look."""
        if not isinstance(came, list):
            self._tell("", came.message, came.message, sys.stderr)
            return
        self._last.pop("", None)
        for step in came:
            kind = f"{step.decision.kind} {step.decision.workers}"
            if step.changes or step.decision.kind != "hold" or self._every:
                self._tell(step.model, kind, str(step), sys.stdout, always=step.changes or self._every)
            else:
                self._last.pop(step.model, None)

    def _tell(self, about: str, kind: str, line: str, stream: Any, *, always: bool = False) -> None:
        if always or self._last.get(about) != kind:
            print(line, file=stream, flush=True)
        self._last[about] = kind


def _once(autoscaler: Autoscaler, stop: threading.Event, interval_s: float) -> int:
    if not stop.wait(interval_s):
        Journal(every=True)(autoscaler.step())
    return 0


def _fleet(args: argparse.Namespace) -> Fleet:
    from segserve.torchserve.queue_metrics import OwnFleet, RemoteFleet

    if args.url or args.admin_key:
        return RemoteFleet(args.url or f"http://127.0.0.1:{args.port}", args.admin_key)
    return OwnFleet(args.port)


def _policy(args: argparse.Namespace) -> ScalingPolicy:
    from segserve.torchserve.autoscaling import ScalingPolicy

    # A single look has no others to agree with it.
    return ScalingPolicy(
        args.minimum,
        args.maximum,
        target_s=args.target_queue_time,
        grow_after=1 if args.once else args.grow_after,
        shrink_after=1 if args.once else args.shrink_after,
        grow_pause_s=args.grow_cool_down,
        shrink_pause_s=args.shrink_cool_down,
        reserve_bytes=args.memory_reserve * 2**20,
    )


@contextlib.contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: what is being done is finished, then the loop ends."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        # A second one interrupts a service that keeps this waiting.
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
