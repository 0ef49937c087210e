"""The parameters of template.yaml, checked before anything is sent: as CloudFormation does, only earlier."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from failures import DeploymentError

TEMPLATE = Path(__file__).parent / "template.yaml"


@cache
def _template() -> dict[str, Any]:
    """The template, CloudFormation's short forms as its long ones: ``!Ref x`` is ``{"Ref": x}``."""

    class Loader(yaml.SafeLoader):
        """Knows any tag."""

    def long_form(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
        name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
        if isinstance(node, yaml.ScalarNode):
            return {name: loader.construct_scalar(node)}
        return {name: loader.construct_sequence(node, deep=True)}

    Loader.add_multi_constructor("!", long_form)
    return dict(yaml.load(TEMPLATE.read_text("utf-8"), Loader))


def names() -> set[str]:
    """Of all the parameters."""
    return set(_template()["Parameters"])


def check(values: Mapping[str, str], known_before: Mapping[str, str]) -> None:
    """Raise unless the values are what the parameters take, and fit together as the template's rules say.

    Args:
        values: that are set now.
        known_before: that the stack has already.

    Raises:
        DeploymentError: names the parameter, or says the rule.
    """
    parameters = _template()["Parameters"]
    for name, value in values.items():
        _check_one(name, value, parameters[name])
    defaults = {name: str(one.get("Default", "")) for name, one in parameters.items()}
    all_of_them = {**defaults, **known_before, **values}
    for rule in _template()["Rules"].values():
        if _holds(rule["RuleCondition"], all_of_them):
            for assertion in rule["Assertions"]:
                if not _holds(assertion["Assert"], all_of_them):
                    raise DeploymentError(f"--set: {assertion['AssertDescription']}.")


def _check_one(name: str, value: str, parameter: Mapping[str, Any]) -> None:
    several = parameter["Type"] == "CommaDelimitedList"
    expected = parameter.get("ConstraintDescription") or parameter.get("Description", "")
    if parameter["Type"] == "Number":
        low, high = parameter.get("MinValue"), parameter.get("MaxValue")
        number = float(value) if re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,6})?", value) else None
        expected = f"a number from {low} to {high}" if high is not None else "a number"
        fits = number is not None and (low is None or number >= low) and (high is None or number <= high)
    else:
        pattern = parameter.get("AllowedPattern", r"[\s\S]*")
        fits = all(re.fullmatch(pattern, part.strip()) for part in (value.split(",") if several else [value]))
        fits = fits and len(value) <= parameter.get("MaxLength", 4096) and len(value) >= parameter.get("MinLength", 0)
    if "AllowedValues" in parameter:
        expected = "one of " + ", ".join(map(str, parameter["AllowedValues"]))
        fits = fits and value in map(str, parameter["AllowedValues"])
    if not fits:
        # Not the value: it may be a secret where its ARN was meant.
        raise DeploymentError(f"--set {name}: expected {expected}.")


def _holds(condition: Any, values: Mapping[str, str]) -> bool:
    """Whether a rule's condition is true; of CloudFormation's functions those that the rules use."""
    ((function, given),) = condition.items()
    if function == "Fn::Not":
        return not _holds(given[0], values)
    if function == "Fn::Equals":
        left, right = (values[one["Ref"]] if isinstance(one, dict) else str(one) for one in given)
        return left == right
    raise DeploymentError(f"template.yaml: a rule with {function}, which stack.py does not know.")
