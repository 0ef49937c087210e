"""multipart/form-data, both ways, on whole bodies in memory: the body limit bounds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from segserve.errors import InvalidRequestError


@dataclass(frozen=True)
class Part:
    """One field of a form. name is the field's; filename is empty where the sender gave none."""

    name: str
    data: bytes
    filename: str = ""
    content_type: str = ""


def encode(parts: Sequence[Part]) -> tuple[str, bytes]:
    """The content type (with its boundary) and the body of a form.

    Names and file names come from this program, not from callers, and are not escaped.
    """
    boundary = os.urandom(16).hex()
    pieces: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part.name}"'
        if part.filename:
            head += f'; filename="{part.filename}"'
        if part.content_type:
            head += f"\r\nContent-Type: {part.content_type}"
        pieces += (head.encode("ascii"), b"\r\n\r\n", part.data, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return f"multipart/form-data; boundary={boundary}", b"".join(pieces)


def decode(content_type: str, body: bytes, max_parts: int = 64) -> list[Part]:
    """The fields of a form, in order.

    Raises:
        InvalidRequestError: no boundary, a broken or truncated form, or more than max_parts fields.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequestError("Content-Type: multipart/form-data needs its boundary; it names none.")
    reader = _Reader(max_parts)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequestError("The body is not well-formed multipart/form-data.") from error
    if not reader.ended:
        raise InvalidRequestError("The multipart/form-data body is truncated: its closing boundary is missing.")
    return reader.parts


class _Reader:
    """Collects the parser's events into parts."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise InvalidRequestError(f"The form has more than {self._max_parts} fields.")
        self._headers = {}
        self._data = []

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self.parts.append(
            Part(
                name=options.get(b"name", b"").decode("utf-8", "replace"),
                data=self._data[0] if len(self._data) == 1 else b"".join(self._data),
                filename=options.get(b"filename", b"").decode("utf-8", "replace"),
                content_type=self._headers.get(b"content-type", b"").decode("latin-1"),
            )
        )

    def _finish(self) -> None:
        self.ended = True
