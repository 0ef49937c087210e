"""``segserve models``: the models of a running service.

segserve models --url http://127.0.0.1:8080
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``models`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "models",
        help="list the models of a running service",
        description="List the models of a running service: kind, version, readiness, workers, batch size, device.",
        epilog="example: segserve models --url http://127.0.0.1:8080",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default http://127.0.0.1:8080)")
    parser.add_argument("--api-key", metavar="KEY", help="if the service asks for one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table. Returns the exit status."""
    from segserve.client import Client

    with Client(args.url, api_key=args.api_key) as client:
        models = client.models()
    if args.json:
        print(json.dumps(models, indent=2))
    else:
        print_models(models)
    return 0


def print_models(models: list[dict[str, Any]]) -> None:
    """A table of models, as GET /v1/models lists them."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("model", "kind", "version", "ready", "workers", "batch", "device"):
        table.add_column(column, justify="right" if column in ("workers", "batch") else "left")
    for model in models:
        ready = "yes" if model.get("ready") else "no"
        cells = (
            model["name"],
            model.get("kind"),
            model.get("version"),
            ready,
            model.get("workers"),
            model.get("batch_size"),
        )
        table.add_row(*("" if cell is None else str(cell) for cell in (*cells, model.get("device"))))
    Console().print(table)
