"""``segserve register``: load one more archive into a running service.

segserve register model_store/sofas.mar
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``register`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "register",
        help="load one more archive into a running service",
        description="Have a running service load an archive; returns when the model is ready. The archive must lie in "
        "the service's model store or its --multi-model-dir. A service of your own on this machine is found by its "
        "port; any other takes --url and --admin-key. The next start of the service knows nothing of it.",
        epilog="examples: segserve register model_store/sofas.mar | "
        "segserve register sofas.mar --name sofas2 --url http://host:8080 --admin-key KEY",
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="a file here, or its name in the service's model store")
    parser.add_argument("--name", help="to serve it under (default: the file's name without .mar)")
    add_service_options(parser)
    parser.set_defaults(run=run)


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which service is meant."""
    parser.add_argument("--port", type=int, default=8080, help="of your own service on this machine (default 8080)")
    parser.add_argument("--url", help="the gateway of another service; needs --admin-key")
    parser.add_argument("--admin-key", metavar="KEY", help="the service's SEGSERVE_ADMIN_KEY")


def service_of(args: argparse.Namespace) -> tuple[str, str | None]:
    """The gateway's address, and the key to show it.

    Raises:
        NotFoundError: this user runs no service on that port.
    """
    from segserve.torchserve.running import find_running

    if args.url or args.admin_key:
        return args.url or f"http://127.0.0.1:{args.port}", args.admin_key
    service = find_running(args.port)
    return service.url, service.key


def run(args: argparse.Namespace) -> int:
    """Load the archive. Returns the exit status."""
    from rich.console import Console

    from segserve.client import Client

    url, key = service_of(args)
    file = Path(args.archive)
    # A path of this machine means nothing to another.
    place = str(file.resolve()) if file.exists() and not args.url else args.archive
    name = args.name or file.name.removesuffix(".mar")
    with Client(url, api_key=key, timeout=900) as client, Console(stderr=True).status(f"loading {name}…"):
        client.load(name, place)
    print(f"{name} is ready")
    return 0
