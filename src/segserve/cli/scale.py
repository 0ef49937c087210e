"""``segserve scale``: change how many workers a model has, while it is served.

segserve scale grounded_sam --min 1 --max 4
"""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``scale`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "scale",
        help="change how many workers a model has",
        description="Change how many workers a model of a running service has; returns once they have loaded it. "
        "A service of your own on this machine is found by its port; any other takes --url and --admin-key.",
        epilog="examples: segserve scale grounded_sam --min 1 --max 4 | "
        "segserve scale grounded_sam --min 2 --url http://host:8080 --admin-key KEY",
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--min", type=int, required=True, metavar="N", dest="minimum", help="workers kept at least; 0: none run"
    )
    parser.add_argument("--max", type=int, metavar="N", dest="maximum", help="workers at most (default: as --min)")
    parser.add_argument("--port", type=int, default=8080, help="of your own service on this machine (default 8080)")
    parser.add_argument("--url", help="the gateway of another service; needs --admin-key")
    parser.add_argument("--admin-key", metavar="KEY", help="the service's SEGSERVE_ADMIN_KEY")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scale the model. Returns the exit status."""
    from segserve.errors import InvalidRequestError

    maximum = args.minimum if args.maximum is None else args.maximum
    if not 0 <= args.minimum <= maximum:
        raise InvalidRequestError(f"Expected 0 <= min <= max, came min {args.minimum} and max {maximum}.")
    if args.url or args.admin_key:
        workers = _through_gateway(args.url or f"http://127.0.0.1:{args.port}", args.admin_key, args, maximum)
    else:
        workers = _directly(args, maximum)
    print(f"{args.model}: {workers} workers ready")
    return 0


def _through_gateway(url: str, key: str | None, args: argparse.Namespace, maximum: int) -> int:
    from segserve.client import Client

    with Client(url, api_key=key, timeout=600) as client:
        described = client.scale(args.model, args.minimum, maximum)
    return int(described.get("ready_workers", described.get("workers", args.minimum)))


def _directly(args: argparse.Namespace, maximum: int) -> int:
    from segserve.torchserve.management import Management
    from segserve.torchserve.running import find_running

    service = find_running(args.port)
    if args.minimum == 0 and service.key is not None:
        # The gateway lets requests finish first; TorchServe would leave them in its queue until they time out.
        return _through_gateway(service.url, service.key, args, maximum)
    return Management(service.address).scale(args.model, args.minimum, maximum).ready_workers
