"""``segserve serve``: TorchServe and the gateway in front of it, until a signal ends both.

segserve serve --port 8080
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the archives of a model store",
        description="Start TorchServe with the archives of a model store, and the gateway in front of it. Ctrl-C or "
        "SIGTERM finishes what is in flight, then stops both. If TorchServe dies, the command ends with the reason. "
        "Limits and keys come from SEGSERVE_* variables.",
        epilog="example: segserve serve --port 8080 --models grounded_sam --workers 2",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the gateway listens (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="the gateway's port (default 8080; 0: a free one)")
    parser.add_argument("--models", metavar="A,B", help="names of the models to serve (default: every archive)")
    parser.add_argument(
        "--model-store", type=Path, default=Path("model_store"), metavar="DIR", help="default: model_store"
    )
    parser.add_argument(
        "--detection-dir",
        type=Path,
        metavar="DIR",
        help="pictures and results of the detect-area routes (default: SEGSERVE_DETECTION_DIR, or none); made if it "
        "is not there",
    )
    profile = parser.add_argument_group("workers and batches (default: as the archives' profiles say)")
    profile.add_argument(
        "--profile", choices=("auto", "cpu", "gpu"), default="auto", help="default: gpu if there is one"
    )
    profile.add_argument("--workers", type=int, metavar="N", help="processes per model")
    profile.add_argument("--batch-size", type=int, metavar="N", help="most images that a worker takes at once")
    profile.add_argument("--batch-delay", type=int, metavar="MS", help="how long a worker waits for a full batch")
    inner = parser.add_argument_group("TorchServe (on loopback)")
    for name, port in (("inference", 8085), ("management", 8081), ("metrics", 8082)):
        inner.add_argument(
            f"--torchserve-{name}-port", type=int, default=port, metavar="PORT", help=f"default {port}; 0: a free one"
        )
    inner.add_argument("--config", type=Path, metavar="FILE", help="default: config.properties here, if there is one")
    inner.add_argument(
        "--log-dir", type=Path, default=Path("logs"), metavar="DIR", help="of torchserve.log (default logs)"
    )
    inner.add_argument("--no-tokens", action="store_true", help="switch TorchServe's token check off")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns 0 after a signal, else raises with the reason."""
    from segserve.cli.serving import Service

    return Service(args).run()
