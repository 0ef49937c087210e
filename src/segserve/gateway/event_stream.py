"""AWS's binary event stream (``application/vnd.amazon.eventstream``), as SageMaker's runtime streams answers.

A message is: its length and its headers' length (4 bytes each, big-endian), their CRC-32, the headers, the payload, and
the CRC-32 of all before.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7
"""The type number of a header's value that is text."""


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message. headers: names of at most 255 bytes, values of at most 65535."""
    packed = b"".join(_header(name.encode("utf-8"), value.encode("utf-8")) for name, value in headers.items())
    # Two lengths, two checksums: 16 bytes beside headers and payload.
    prelude = (len(packed) + len(payload) + 16).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    body = prelude + zlib.crc32(prelude).to_bytes(4, "big") + packed + payload
    return body + zlib.crc32(body).to_bytes(4, "big")


def payload_part(data: bytes) -> bytes:
    """A piece of the answer's body."""
    return message(
        {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}, data
    )


def stream_error(kind: str, data: bytes) -> bytes:
    """What ends a stream that cannot go on. kind: ModelStreamError or InternalStreamFailure; data: JSON."""
    return message({":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}, data)


def _header(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + bytes((_STRING,)) + len(value).to_bytes(2, "big") + value
