"""The fields of an HTML form, in either of its two encodings."""

from __future__ import annotations

from urllib.parse import parse_qsl

from segserve.errors import InvalidRequestError
from segserve.gateway.incoming import media_type
from segserve.gateway.multipart import Part, decode


def read_form(content_type: str, body: bytes, max_fields: int = 64) -> list[Part]:
    """The fields of a form, in order; one that came several times is there as often.

    Args:
        content_type: multipart/form-data or application/x-www-form-urlencoded.
        body: the whole form. Text is UTF-8.
        max_fields: more are refused.

    Raises:
        InvalidRequestError: another content type, an empty or broken form, or too many fields.
    """
    kind = media_type(content_type)
    if not body:
        raise InvalidRequestError("The body is empty (0 bytes): expected a form.")
    if kind == "multipart/form-data":
        return decode(content_type, body, max_parts=max_fields)
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequestError(
            "Content-Type: expected a form (multipart/form-data or application/x-www-form-urlencoded), "
            f"came {content_type[:80]!r}."
        )
    try:
        text = body.decode("utf-8")
        if text.count("&") >= max_fields:
            raise InvalidRequestError(f"The form has more than {max_fields} fields.")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("The form's text is not UTF-8.") from error
    return [Part(name, value.encode("utf-8")) for name, value in pairs]
