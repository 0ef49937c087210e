"""The SNS topics that an async endpoint writes to: one for answers, one for failures."""

from __future__ import annotations

from deployment import Deployment

KINDS = ("success", "error")


def ensure(deployment: Deployment) -> None:
    """Create the topics that are missing."""
    calls = deployment.calls
    for kind in KINDS:
        if calls.read("sns", "get_topic_attributes", TopicArn=deployment.topic(kind)) is None:
            calls.change("sns", "create_topic", Name=f"{deployment.name}-{kind}", Tags=deployment.tags())
