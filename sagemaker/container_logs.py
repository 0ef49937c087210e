"""The end of a container's log in CloudWatch, for the moment when something went wrong."""

from __future__ import annotations

from calls import Calls
from failures import DeploymentError

ENDPOINTS = "/aws/sagemaker/Endpoints/"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"


def tail(calls: Calls, group: str, lines: int = 40, prefix: str | None = None) -> list[str]:
    """The last lines of the log stream that was written last; a reason where there is none.

    Args:
        group: the log group.
        prefix: of the stream's name; such streams cannot be had by their age, so the last by name is taken.
    """
    order = {"logStreamNamePrefix": prefix} if prefix else {"orderBy": "LastEventTime", "descending": True}
    try:
        streams = (calls.read("logs", "describe_log_streams", logGroupName=group, **order) or {}).get("logStreams", [])
        if not streams:
            return [f"(nothing in the log group {group}: the container did not start)"]
        stream = streams[-1 if prefix else 0]["logStreamName"]
        found = calls.read("logs", "get_log_events", logGroupName=group, logStreamName=stream, limit=lines)
    except DeploymentError as error:
        # The reason of the failure itself matters more than its log.
        return [f"(the log {group} cannot be read: {error})"]
    return [str(event["message"]).rstrip() for event in (found or {}).get("events", ())]
