"""The bodies that /invocations takes, made from a command line: a raw picture, or JSON of one of the protocols."""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from failures import DeploymentError

MAX_BYTES = 25 * 2**20
"""What SageMaker passes on of a request to a real-time endpoint."""

_ADDRESSES = ("http://", "https://", "s3://")


@dataclass(frozen=True)
class Payload:
    """One request.

    Attributes:
        attributes: SageMaker's custom attributes, ``name=value;…``; empty: none.
    """

    body: bytes
    content_type: str
    accept: str
    attributes: str = ""


def payload(args: argparse.Namespace) -> Payload:
    """The request that the options describe.

    Raises:
        DeploymentError: no such file, something missing for the kind of request, or a body over the limit.
    """
    kind = args.kind or _kind(args)
    made = KINDS[kind](args)
    if len(made.body) > MAX_BYTES and not args.asynchronous:
        raise DeploymentError(
            f"the request has {len(made.body):,} bytes, SageMaker passes on {MAX_BYTES:,}: send a smaller picture, or "
            "its s3:// address, or use an async endpoint (--async)."
        )
    return made


def _kind(args: argparse.Namespace) -> str:
    """Raw where a picture with a text says it all, native otherwise."""
    is_file = args.image is not None and not args.image.startswith(_ADDRESSES)
    return "raw" if is_file and not args.point and not args.box else "native"


def _raw(args: argparse.Namespace) -> Payload:
    if args.point or args.box:
        raise DeploymentError("--kind raw: takes no --point or --box; use --kind native.")
    image = _needed(args.image, "raw", "a picture")
    if image.startswith(_ADDRESSES):
        raise DeploymentError("--kind raw: needs the picture as a file; an address goes with --kind native.")
    fields = {"model": args.model, "text": args.text, "threshold": args.threshold, "mask_format": args.mask_format}
    given = [f"{name}={quote(str(value), safe=' .,')}" for name, value in fields.items() if value is not None]
    if args.render and args.accept == "application/json":
        given.append(f"render={args.render}")
    content_type = mimetypes.guess_type(image)[0] or "application/x-image"
    return Payload(_file(image), content_type, args.accept, ";".join(given))


def _native(args: argparse.Namespace) -> Payload:
    prompt: dict[str, Any] = {}
    if args.text is not None:
        prompt["text"] = args.text
    if args.point:
        prompt["points"] = args.point
    if args.box:
        prompt["boxes"] = args.box
    body: dict[str, Any] = {"model": args.model or "grounded_sam", "images": [_source(args, "native")]}
    if prompt:
        body["prompt"] = prompt
    if args.threshold is not None:
        named = "box_threshold" if body["model"] == "grounded_sam" else "score_threshold"
        body["parameters"] = {named: args.threshold}
    if args.mask_format is not None:
        body["mask_format"] = args.mask_format
    if args.render and args.accept == "application/json":
        body["render"] = args.render.split(",")
    return _json(args, body)


def _langsam(args: argparse.Namespace) -> Payload:
    text = _needed(args.text, "langsam", "--text")
    return _json(args, {"action": "langsam", "image_url": _address(args, "langsam"), "text_prompt": text})


def _sam2(args: argparse.Namespace) -> Payload:
    if not args.point or len(args.point) != 1:
        raise DeploymentError("--kind sam2: needs exactly one --point X,Y.")
    x, y, _ = args.point[0]
    return _json(args, {"action": "sam2", "image_url": _address(args, "sam2"), "x": x, "y": y})


def _tiling(args: argparse.Namespace) -> Payload:
    body: dict[str, Any] = {
        "categoryname": _needed(args.category, "tiling", "--category"),
        "images": [{**_source(args, "tiling"), "_id": "0"}],
    }
    if args.room is not None:
        body["roomName"] = args.room
    return _json(args, body)


def _ping(args: argparse.Namespace) -> Payload:
    return _json(args, {"action": "ping"})


def _body(args: argparse.Namespace) -> Payload:
    path = _needed(args.image, "body", "a file")
    content_type = args.content_type or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Payload(_file(path), content_type, args.accept)


KINDS: dict[str, Callable[[argparse.Namespace], Payload]] = {
    "raw": _raw,
    "native": _native,
    "langsam": _langsam,
    "sam2": _sam2,
    "tiling": _tiling,
    "ping": _ping,
    "body": _body,
}
"""The kinds of request; body sends a file as it is."""


def _json(args: argparse.Namespace, body: dict[str, Any]) -> Payload:
    return Payload(json.dumps(body).encode(), "application/json", args.accept)


def _source(args: argparse.Namespace, kind: str) -> dict[str, str]:
    image = _needed(args.image, kind, "a picture")
    if image.startswith(_ADDRESSES):
        return {"s3" if image.startswith("s3://") else "url": image}
    return {"base64": base64.b64encode(_file(image)).decode("ascii")}


def _address(args: argparse.Namespace, kind: str) -> str:
    image = _needed(args.image, kind, "a picture")
    if not image.startswith(("http://", "https://")):
        raise DeploymentError(f"--kind {kind}: the container fetches the picture; give its http(s):// address.")
    return image


def _needed(value: str | None, kind: str, what: str) -> str:
    if not value:
        raise DeploymentError(f"--kind {kind}: needs {what}.")
    return value


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise DeploymentError(f"{name}: {error.strerror or error}") from error
