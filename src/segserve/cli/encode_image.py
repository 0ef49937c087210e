"""``segserve encode-image``: an image file as base64 text, and back.

segserve encode-image photo.png --out photo.txt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``encode-image`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "encode-image",
        help="print an image file as base64 text, or turn such text into the file",
        description="Print an image file as base64 text, as image_string of /api/detect-area-base64 and base64 of "
        "/v1/segment take it. With --decode, turn such a text (output_image, say) into the image file. Either way, "
        "what is no image is refused.",
        epilog="example: segserve encode-image photo.png --out photo.txt",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="an image; with --decode a text; - is standard input")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to standard output")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--data-url", action="store_true", help="begin with data:image/…;base64,")
    form.add_argument("--decode", action="store_true", help="base64 text (a data URL, too) to image file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the file. Returns the exit status.

    Raises:
        RequestError: the file is no image, or its text no base64.
    """
    given = sys.stdin.buffer.read() if str(args.file) == "-" else args.file.read_bytes()
    converted = decoded(given) if args.decode else encoded(given, data_url=args.data_url)
    if args.out is not None:
        args.out.write_bytes(converted)
    else:
        sys.stdout.buffer.write(converted)
        sys.stdout.buffer.flush()
    return 0


def encoded(image: bytes, *, data_url: bool = False) -> bytes:
    """The base64 text of an image file, with a line break at its end.

    Raises:
        RequestError: the bytes are no image.
    """
    import base64

    kind = _format(image).lower()
    prefix = f"data:image/{kind};base64,".encode("ascii") if data_url else b""
    return prefix + base64.b64encode(image) + b"\n"


def decoded(text: bytes) -> bytes:
    """The image file that a base64 text stands for.

    Raises:
        InvalidRequestError: no base64.
        RequestError: base64 of something else than an image.
    """
    from segserve.gateway.images import decode_base64

    image = decode_base64(text.decode("latin-1").strip(), len(text))
    _format(image)
    return image


def _format(image: bytes) -> str:
    """The image's format; its size is for the server to judge."""
    from segserve.imaging import ImageLimits, read_info

    return read_info(image, ImageLimits(max_bytes=sys.maxsize, max_pixels=sys.maxsize)).format
