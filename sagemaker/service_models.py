"""Checks of a call's parameters against botocore's description of the service, before anything is sent.

botocore itself checks types, required members and least lengths; the service alone checks enumerations, patterns and
greatest lengths. All of them are in the description, so that a dry run finds them without an account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

from failures import DeploymentError


@cache
def _service_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


@cache
def operation_model(service: str, operation: str) -> OperationModel:
    """The description of a client's method, such as ``create_model`` of sagemaker.

    Raises:
        DeploymentError: this boto3 does not know it.
    """
    model = _service_model(service)
    for name in model.operation_names:
        if xform_name(name) == operation:
            return model.operation_model(name)
    raise DeploymentError(f"the installed boto3 has no {service} {operation}: upgrade it (pip install -U boto3).")


def check(service: str, operation: str, params: dict[str, Any]) -> None:
    """Raise unless params are what the service takes.

    Raises:
        DeploymentError: names each parameter that is not.
    """
    model = operation_model(service, operation)
    if model.input_shape is None:
        return
    report = ParamValidator().validate(params, model.input_shape)
    found = [report.generate_report()] if report.has_errors() else list(_violations(params, model.input_shape, ""))
    if found:
        told = "; ".join(" ".join(line.split()) for line in found)
        raise DeploymentError(f"{service} {model.name}: {told}")


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in value.items():
            yield from _violations(member, shape.members[name], f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list":
        yield from _limits(len(value), shape, path, "entries")
        for index, member in enumerate(value):
            yield from _violations(member, shape.member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for name, member in value.items():
            yield from _violations(name, shape.key, f"{path} (key)")
            yield from _violations(member, shape.value, f"{path}.{name}")
    elif shape.type_name == "string":
        yield from _text_violations(str(value), shape, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _limits(value, shape, path, "")


def _text_violations(value: str, shape: Shape, path: str) -> Iterator[str]:
    yield from _limits(len(value), shape, path, "characters")
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        yield f"{path}: {value!r} is not known to the installed boto3 (misspelled, or newer than it)"
    pattern = shape.metadata.get("pattern", "")
    # Java's classes of Unicode characters are not Python's.
    checkable = bool(pattern) and "\\p{" not in pattern and "\\u" not in pattern
    if checkable and not re.fullmatch(pattern.replace("\\z", "\\Z"), value):
        yield f"{path}: {value!r} is not of the form {pattern}"


def _limits(size: float, shape: Shape, path: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is not None and size < low) or (high is not None and size > high):
        yield f"{path}: {size} {unit}".rstrip() + f", allowed {low} to {high}"
