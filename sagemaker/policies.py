"""Policies from the files in policies/, with their placeholders filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from failures import DeploymentError

FOLDER = Path(__file__).resolve().parent / "policies"
_MAX_INLINE = 10_240
"""Characters of all a role's inline policies together, without white space."""


def policy(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The policy in policies/NAME.json with values for all of its ``${PLACEHOLDERS}``.

    Raises:
        DeploymentError: a value is missing, or would change what the policy says.
    """
    text = (FOLDER / f"{name}.json").read_text("utf-8")
    for key in set(re.findall(r"\$\{([A-Z_]+)\}", text)):
        if key not in values:
            raise DeploymentError(f"policies/{name}.json: no value for {key}")
        # A wildcard, or a quote, in a bucket's name would allow more than was asked for. A secret's name ends in ones.
        if re.search(r'[*"\\\s]', values[key]) or ("?" in values[key] and key != "SECRET"):
            raise DeploymentError(f"policies/{name}.json: {key} cannot be {values[key]!r}")
    return dict(json.loads(Template(text).substitute(values)))


def merged(policies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One policy with the statements of all; statements of the same name are numbered.

    Raises:
        DeploymentError: it is larger than a role takes.
    """
    statements: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for statement in (statement for each in policies for statement in each["Statement"]):
        sid = statement["Sid"]
        seen[sid] = seen.get(sid, 0) + 1
        statements.append({**statement, "Sid": sid if seen[sid] == 1 else f"{sid}{seen[sid]}"})
    made = {"Version": "2012-10-17", "Statement": statements}
    if len(json.dumps(made, separators=(",", ":"))) > _MAX_INLINE:
        raise DeploymentError("the execution role's policy is over IAM's 10,240 characters: name fewer buckets.")
    return made
