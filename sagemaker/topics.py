"""The SNS topics that an async endpoint writes to: one for answers, one for failures."""

from __future__ import annotations

from deployment import Deployment

KINDS = ("success", "error")


def ensure(deployment: Deployment) -> None:
    """Create the topics that are missing.

    Raises:
        DeploymentError: one of that name is somebody else's.
    """
    calls = deployment.calls
    for kind in KINDS:
        arn = deployment.topic(kind)
        if calls.read("sns", "get_topic_attributes", TopicArn=arn) is not None:
            tags = calls.read("sns", "list_tags_for_resource", ResourceArn=arn) or {}
            deployment.check_owned(tags.get("Tags"), f"the topic {deployment.name}-{kind}")
        else:
            calls.change("sns", "create_topic", Name=f"{deployment.name}-{kind}", Tags=deployment.tags())
