"""multipart/form-data: what is written is what is read, by this reader and by others."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

import pytest

from segserve.errors import InvalidRequestError
from segserve.gateway.multipart import Part, decode, encode

PARTS = [
    Part("image", bytes(range(256)) * 50 + b"\r\n--\r\n", filename="image", content_type="application/octet-stream"),
    Part("prompt", b'{"text":"sofa"}', content_type="application/json"),
    Part("empty", b""),
]


def test_what_is_encoded_is_decoded() -> None:
    assert decode(*encode(PARTS)) == PARTS


def test_the_standard_librarys_mail_parser_reads_it_too() -> None:
    content_type, body = encode(PARTS)
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields = message.get_payload()
    assert isinstance(fields, list)
    read = {}
    for field in fields:
        assert isinstance(field, Message)
        read[field.get_param("name", header="Content-Disposition")] = field.get_payload(decode=True)
    assert read["prompt"] == PARTS[1].data
    assert len(fields) == 3


def test_boundaries_differ() -> None:
    assert encode(PARTS)[0] != encode(PARTS)[0]


def test_file_names_and_quoted_boundaries() -> None:
    body = (
        b'--a b\r\ncontent-disposition: form-data; name="image"; filename="../\xc3\xa9t\xc3\xa9.png"\r\n'
        b"CONTENT-TYPE: image/png\r\n\r\nx\r\n--a b--\r\n"
    )
    assert decode('multipart/form-data; boundary="a b"', body) == [
        Part("image", b"x", filename="../été.png", content_type="image/png")
    ]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--c\r\n\r\n--c--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx'),
        ("multipart/form-data; boundary=b", b"--b\r\nno header at all\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_broken_forms(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode(content_type, body)


def test_too_many_fields() -> None:
    content_type, body = encode([Part("a", b"")] * 5)
    assert len(decode(content_type, body, max_parts=5)) == 5
    with pytest.raises(InvalidRequestError, match="more than 4"):
        decode(content_type, body, max_parts=4)
