"""The error tree: complete, safe to send, and the same on both sides of a process boundary."""

from __future__ import annotations

import pytest

from segserve import errors

STATUSES = {400, 401, 404, 409, 413, 415, 422, 424, 429, 500, 503, 504, 507}


def test_every_status_of_the_api_has_an_error() -> None:
    assert {cls.status for cls in errors.error_classes()} == STATUSES


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in errors.error_classes() if "code" in vars(cls) and cls.__name__ != "SegserveError"]
    assert len(codes) == len(set(codes))


def test_the_docstring_lists_every_class() -> None:
    assert errors.__doc__ is not None
    for cls in errors.error_classes():
        assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize("cls", [cls for cls in errors.error_classes() if "status" in vars(cls)])
def test_an_error_survives_the_wire(cls: type[errors.SegserveError]) -> None:
    sent = cls("what to do").to_dict("r-1")
    assert sent["message"] == "what to do" and sent["request_id"] == "r-1"
    received = errors.error_from_status(cls.status, sent["message"], sent["code"])
    assert received.status == cls.status and received.message == "what to do"
    if cls is not errors.SegserveError:
        assert type(received) is cls


@pytest.mark.parametrize(("status", "kind"), [(418, errors.InvalidRequestError), (599, errors.InternalError)])
def test_unknown_statuses_fall_back(status: int, kind: type[errors.SegserveError]) -> None:
    assert type(errors.error_from_status(status, "x")) is kind


def test_a_special_code_keeps_its_class() -> None:
    assert errors.TooLargeError("x", code="image_too_large").to_dict()["code"] == "image_too_large"
    received = errors.error_from_status(413, "x", "image_too_large")
    assert isinstance(received, errors.TooLargeError) and received.error_code == "image_too_large"
