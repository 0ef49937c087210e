"""The ``segserve`` command. Each command is a module of this package; heavy imports wait until it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from segserve.errors import SegserveError

COMMANDS = (
    "serve",
    "archive",
    "predict",
    "encode-image",
    "models",
    "scale",
    "register",
    "unregister",
    "autoscale",
    "tune",
    "scenes",
    "convert",
    "train",
    "evaluate",
    "export-onnx",
    "compare",
    "demo",
    "download",
    "package-sagemaker",
    "conform",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="segserve",
        description="Segmentation models behind a dependable HTTP API.",
        epilog="Start with: segserve archive demo && segserve serve",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"segserve.cli.{name.replace('-', '_')}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 1 with one clear line on failure, 2 on wrong usage."""
    _heed_signals()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime's, which is on unless told otherwise
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(version("segserve"))
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return int(options.run(options))
    except SegserveError as error:
        print(f"segserve {options.command}: {error.message}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"segserve {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(f"segserve {options.command}: {error}", file=sys.stderr)
    return 1


def _heed_signals() -> None:
    """As a container's first process, end at a SIGTERM from now on: the kernel drops what such a process has no handler
    for, and a command that handles it has to load first."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
