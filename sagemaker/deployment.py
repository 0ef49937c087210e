"""A deployment: the names, tags and addresses of everything that belongs to it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from calls import Calls
from failures import DeploymentError

TAG = "segserve:deployment"
"""The tag on all that deploy.py makes; its value is the deployment's name. teardown.py deletes nothing without it."""

VARIANT = "main"
"""The endpoint's one production variant. An update needs the same name before and after."""


class Deployment:
    """Names of one deployment's parts in one account and region.

    Args:
        name: of the deployment, its endpoint and its image repository.
        bucket: that holds its models and outputs; None: one of its own.
    """

    def __init__(self, name: str, calls: Calls, bucket: str | None = None) -> None:
        self.name = name
        self.calls = calls
        self._bucket = bucket
        self.owns_bucket = bucket is None

    @property
    def bucket(self) -> str:
        """The bucket's name; one of its own carries account and region, as bucket names are the world's."""
        return self._bucket or f"segserve-{self.name}-{self.calls.account}-{self.calls.region}"

    @property
    def role(self) -> str:
        """The execution role's name; with the region, for a role is the account's in all of them."""
        return f"{self.name}-execution-{self.calls.region}"

    @property
    def role_arn(self) -> str:
        return self.calls.arn("iam", f"role/{self.role}", region="")

    @property
    def scalable_target(self) -> str:
        """The endpoint's variant, as Application Auto Scaling names it."""
        return f"endpoint/{self.name}/variant/{VARIANT}"

    def topic(self, kind: str) -> str:
        """ARN of the SNS topic for ``success`` or ``error`` of async invocations."""
        return self.calls.arn("sns", f"{self.name}-{kind}")

    def alarm(self, kind: str) -> str:
        """The name of an alarm: errors, latency or backlog."""
        return f"segserve-{self.name}-{kind}"

    def place(self, *parts: str) -> str:
        """An s3:// address under the deployment's folder of the bucket."""
        return f"s3://{self.bucket}/{self.key(*parts)}"

    def key(self, *parts: str) -> str:
        """A key under the deployment's folder of the bucket."""
        return "/".join((self.name, *parts))

    def tags(self, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
        """The deployment's tag, as a service writes it."""
        return [{key: TAG, value: self.name}]

    def owns(self, tags: list[dict[str, str]] | None) -> bool:
        """Whether tags, as a service answers them, are those of this deployment."""
        pairs = ({name.lower(): text for name, text in tag.items()} for tag in tags or ())
        return any((pair.get("key"), pair.get("value")) == (TAG, self.name) for pair in pairs)

    def check_owned(self, tags: list[dict[str, str]] | None, what: str) -> None:
        """Raise where something that is there already belongs to somebody else.

        Raises:
            DeploymentError: it lacks the tag.
        """
        if not self.owns(tags):
            raise DeploymentError(
                f"{what} is there already, not made by these scripts (no tag {TAG}={self.name}): take another --name"
            )

    def content_name(self, content: dict[str, Any]) -> str:
        """A name that tells a resource's content: SageMaker's models and configurations cannot be changed.

        The same content has the same name in each run, so that a run that changes nothing finds it there.
        """
        text = json.dumps(content, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def is_content_name(self, name: str) -> bool:
        """Whether a name is one of content_name's."""
        return re.fullmatch(re.escape(self.name) + "-[0-9a-f]{10}", name) is not None
