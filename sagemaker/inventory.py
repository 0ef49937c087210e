"""What of a deployment is there, each with its tag looked at, and how it is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import endpoint
import image_repository
import scaling
import topics
from deployment import Deployment
from failures import DeploymentError


@dataclass(frozen=True)
class Item:
    """Something that exists.

    Attributes:
        title: for people.
        owned: whether it carries the deployment's tag; else it is left alone.
        delete: deletes it.
    """

    title: str
    owned: bool
    delete: Callable[[], None]


def items(deployment: Deployment, keep_images: bool = False, keep_data: bool = False) -> Iterator[Item]:
    """Everything that bears the deployment's names, in the order in which it can be deleted.

    Args:
        keep_images: leave the image repository out.
        keep_data: leave the bucket and what is in it out.
    """
    yield from _endpoint(deployment)
    yield from _configs_and_models(deployment)
    yield from _alarms(deployment)
    yield from _topics(deployment)
    yield from _role(deployment)
    if not keep_images:
        yield from _repository(deployment)
    if not keep_data:
        yield from _bucket(deployment)


def _endpoint(deployment: Deployment) -> Iterator[Item]:
    calls, name = deployment.calls, deployment.name
    found = calls.read("sagemaker", "describe_endpoint", EndpointName=name)
    if found is None:
        if scaling.is_target(deployment):
            # Somebody deleted the endpoint by hand: its scaling goes by the names of its policies.
            yield Item(f"automatic scaling of {name}", scaling.is_ours(deployment), lambda: scaling.remove(deployment))
        return
    owned = _sagemaker_owned(deployment, found["EndpointArn"])
    if scaling.is_target(deployment):
        yield Item(f"automatic scaling of {name}", owned, lambda: scaling.remove(deployment))

    def delete() -> None:
        if found["EndpointStatus"] != "Deleting":
            calls.change("sagemaker", "delete_endpoint", EndpointName=name)
        endpoint.wait_until_gone(deployment)

    yield Item(f"endpoint {name} ({found['EndpointStatus']})", owned, delete)


def _configs_and_models(deployment: Deployment) -> Iterator[Item]:
    """All that bear the deployment's name and a hash: each update has left one behind."""
    calls = deployment.calls
    kinds = (
        (
            "endpoint configuration",
            "list_endpoint_configs",
            "EndpointConfigs",
            "EndpointConfig",
            "delete_endpoint_config",
        ),
        ("model", "list_models", "Models", "Model", "delete_model"),
    )
    for title, listing, key, prefix, deletion in kinds:
        for entry in calls.pages("sagemaker", listing, key, NameContains=f"{deployment.name}-"):
            name = entry[f"{prefix}Name"]
            # Another deployment's name may contain this one's.
            if deployment.is_content_name(name):
                owned = _sagemaker_owned(deployment, entry[f"{prefix}Arn"])
                yield Item(
                    f"{title} {name}", owned, _deletion(deployment, "sagemaker", deletion, {f"{prefix}Name": name})
                )


def _alarms(deployment: Deployment) -> Iterator[Item]:
    calls = deployment.calls
    names = [deployment.alarm(kind) for kind in ("errors", "latency", "backlog")]
    found = calls.read("cloudwatch", "describe_alarms", AlarmNames=names) or {}
    for alarm in found.get("MetricAlarms", ()):
        tags = calls.read("cloudwatch", "list_tags_for_resource", ResourceARN=alarm["AlarmArn"]) or {}
        name = alarm["AlarmName"]
        deletion = _deletion(deployment, "cloudwatch", "delete_alarms", {"AlarmNames": [name]})
        yield Item(f"alarm {name}", deployment.owns(tags.get("Tags")), deletion)


def _topics(deployment: Deployment) -> Iterator[Item]:
    calls = deployment.calls
    for kind in topics.KINDS:
        arn = deployment.topic(kind)
        if calls.read("sns", "get_topic_attributes", TopicArn=arn) is not None:
            tags = calls.read("sns", "list_tags_for_resource", ResourceArn=arn) or {}
            deletion = _deletion(deployment, "sns", "delete_topic", {"TopicArn": arn})
            yield Item(f"topic {deployment.name}-{kind}", deployment.owns(tags.get("Tags")), deletion)


def _role(deployment: Deployment) -> Iterator[Item]:
    calls, name = deployment.calls, deployment.role
    if calls.read("iam", "get_role", RoleName=name) is None:
        return
    tags = calls.read("iam", "list_role_tags", RoleName=name) or {}

    def delete() -> None:
        # A role goes only when nothing hangs on it.
        for policy in calls.pages("iam", "list_role_policies", "PolicyNames", RoleName=name):
            calls.change("iam", "delete_role_policy", RoleName=name, PolicyName=policy)
        calls.change("iam", "delete_role", RoleName=name)

    yield Item(f"role {name}", deployment.owns(tags.get("Tags")), delete)


def _repository(deployment: Deployment) -> Iterator[Item]:
    calls, name = deployment.calls, deployment.name
    found = calls.read("ecr", "describe_repositories", repositoryNames=[name])
    if found is None or not found["repositories"]:
        return
    arn = found["repositories"][0]["repositoryArn"]
    images = len(calls.pages("ecr", "list_images", "imageIds", repositoryName=name))
    tags = calls.read("ecr", "list_tags_for_resource", resourceArn=arn) or {}
    deletion = _deletion(deployment, "ecr", "delete_repository", {"repositoryName": name, "force": True})
    title = f"image repository {image_repository.host(deployment)}/{name} with {images} images"
    yield Item(title, deployment.owns(tags.get("tags")), deletion)


def _bucket(deployment: Deployment) -> Iterator[Item]:
    """The deployment's own bucket, or of somebody else's the model files that deploy.py has uploaded."""
    calls, bucket = deployment.calls, deployment.bucket
    if calls.read("s3", "head_bucket", Bucket=bucket) is None:
        return
    if deployment.owns_bucket:
        tags = calls.read("s3", "get_bucket_tagging", Bucket=bucket) or {}
        count = len(_versions(deployment))

        def delete() -> None:
            _delete_objects(deployment, _versions(deployment))
            calls.change("s3", "delete_bucket", Bucket=bucket)

        yield Item(f"bucket {bucket} with {count} objects", deployment.owns(tags.get("TagSet")), delete)
        return
    for entry in calls.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=deployment.key("model")):
        key = entry["Key"]
        tags = calls.read("s3", "get_object_tagging", Bucket=bucket, Key=key) or {}
        deletion = _deletion(deployment, "s3", "delete_object", {"Bucket": bucket, "Key": key})
        yield Item(f"object s3://{bucket}/{key}", deployment.owns(tags.get("TagSet")), deletion)


def _versions(deployment: Deployment) -> list[dict[str, str]]:
    """All objects of the own bucket, with the old versions and marks of deletion of a versioned one."""
    calls, bucket = deployment.calls, deployment.bucket
    found: list[dict[str, str]] = []
    for key in ("Versions", "DeleteMarkers"):
        for entry in calls.pages("s3", "list_object_versions", key, Bucket=bucket):
            found.append({"Key": entry["Key"], "VersionId": entry["VersionId"]})
    return found


def _delete_objects(deployment: Deployment, objects: list[dict[str, str]]) -> None:
    # A call takes a thousand.
    for start in range(0, len(objects), 1000):
        part = objects[start : start + 1000]
        answer = deployment.calls.change(
            "s3", "delete_objects", Bucket=deployment.bucket, Delete={"Objects": part, "Quiet": True}
        )
        for error in answer.get("Errors", ()):
            # The call succeeds all the same.
            raise DeploymentError(f"s3 DeleteObjects: {error.get('Key')}: {error.get('Message')}", error.get("Code"))


def _sagemaker_owned(deployment: Deployment, arn: str) -> bool:
    return deployment.owns(deployment.calls.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn))


def _deletion(deployment: Deployment, service: str, operation: str, params: dict[str, Any]) -> Callable[[], None]:
    return lambda: _done(deployment.calls.change(service, operation, **params))


def _done(_: dict[str, Any]) -> None:
    return None
