"""``segserve unregister``: unload a model of a running service.

segserve unregister sofas
"""

from __future__ import annotations

import argparse
from typing import Any

from segserve.cli.register import add_service_options, service_of


def add_parser(subparsers: Any) -> None:
    """Add ``unregister`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "unregister",
        help="unload a model of a running service",
        description="Have a running service unload a model: it takes no more requests for it, finishes those at work, "
        "and ends its workers. The archive stays where it is. The service is found as by segserve register.",
        epilog="example: segserve unregister sofas",
    )
    parser.add_argument("model", metavar="MODEL")
    add_service_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Unload the model. Returns the exit status."""
    from segserve.client import Client

    url, key = service_of(args)
    with Client(url, api_key=key, timeout=300) as client:
        client.unload(args.model)
    print(f"{args.model} is unloaded")
    return 0
