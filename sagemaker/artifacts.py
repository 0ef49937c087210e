"""Models in S3: the deployment's bucket, and archives that are uploaded only when their content is not there yet."""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deployment import TAG, Deployment
from failures import DeploymentError
from places import split

_DIGEST = "sha256"
_ARCHIVE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\.tar\.gz")


@dataclass(frozen=True)
class Artifact:
    """What a model is told about its files.

    Attributes:
        address: of the model.tar.gz, or of the folder of a multi-model endpoint's archives.
    """

    address: str


def ensure_bucket(deployment: Deployment) -> None:
    """Create the deployment's own bucket where it is missing: private, encrypted, tagged.

    Raises:
        DeploymentError: the bucket that --bucket names is not there, or the own one's name is somebody else's.
    """
    calls, bucket = deployment.calls, deployment.bucket
    if not deployment.owns_bucket:
        if calls.read("s3", "head_bucket", Bucket=bucket) is None and not calls.offline:
            raise DeploymentError(f"--bucket {bucket}: there is no such bucket, or it is not yours.")
        return
    # The name can be guessed: in another account's bucket of that name, models and pictures would be somebody else's.
    if calls.read("s3", "head_bucket", Bucket=bucket, ExpectedBucketOwner=calls.account) is not None:
        tags = (calls.read("s3", "get_bucket_tagging", Bucket=bucket) or {}).get("TagSet")
        if deployment.owns(tags):
            return
        held = calls.read("s3", "list_objects_v2", Bucket=bucket, MaxKeys=1) or {}
        if tags or held.get("KeyCount"):
            deployment.check_owned(tags, f"the bucket {bucket}")
        # Empty and without tags: an earlier run was interrupted before it had finished the bucket.
        _finish(deployment)
        return
    place: dict[str, Any] = {"CreateBucketConfiguration": {"LocationConstraint": calls.region}}
    # us-east-1 is the one region that must not be named.
    calls.change("s3", "create_bucket", Bucket=bucket, **({} if calls.region == "us-east-1" else place))
    _finish(deployment)


def _finish(deployment: Deployment) -> None:
    """Shut and tag the new bucket; the tag last, as it tells that all is done."""
    calls, bucket = deployment.calls, deployment.bucket
    shut = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    calls.change("s3", "put_public_access_block", Bucket=bucket, PublicAccessBlockConfiguration=shut)
    calls.change("s3", "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": deployment.tags()})


def model_data(deployment: Deployment, source: str, multi_model: bool) -> Artifact:
    """Where SageMaker finds the model, after uploading what is local and not there yet.

    Args:
        source: a model.tar.gz or its s3:// address; with multi_model a folder of ``NAME.tar.gz``, or an s3:// prefix.

    Raises:
        DeploymentError: not such a file or folder.
    """
    if source.startswith("s3://"):
        split(source)
        if multi_model != source.endswith("/"):
            wanted = "a prefix that ends in /" if multi_model else "a model.tar.gz, not a prefix"
            raise DeploymentError(f"--model-data {source}: expected {wanted}.")
        return Artifact(source)
    path = Path(source)
    if not multi_model:
        digest = _checked(path)
        key = deployment.key("model", digest[:16], "model.tar.gz")
        _put(deployment, path, key, digest)
        return Artifact(f"s3://{deployment.bucket}/{key}")
    archives = sorted(path.glob("*.tar.gz")) if path.is_dir() else []
    if not archives:
        raise DeploymentError(
            f"--model-data {source}: expected a folder with one NAME.tar.gz for each model; make it with: "
            "segserve package-sagemaker --multi-model DIR"
        )
    for archive in archives:
        if not _ARCHIVE_NAME.fullmatch(archive.name):
            raise DeploymentError(f"{archive.name}: expected letters, digits and ._- in the name.")
        _put(deployment, archive, deployment.key("models", archive.name), _checked(archive))
    return Artifact(deployment.place("models", ""))


def _checked(path: Path) -> str:
    """The SHA-256 of an archive that SageMaker can unpack."""
    if not path.is_file():
        raise DeploymentError(f"--model-data {path}: no such file; make it with: segserve package-sagemaker")
    try:
        with tarfile.open(path, "r:gz") as archive:
            archive.next()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DeploymentError(
            f"{path}: not a gzipped tar ({error}); make it with: segserve package-sagemaker"
        ) from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(deployment: Deployment, path: Path, key: str, digest: str) -> None:
    calls, bucket = deployment.calls, deployment.bucket
    found = calls.read("s3", "head_object", Bucket=bucket, Key=key)
    if found is None or found["Metadata"].get(_DIGEST) != digest:
        tagging = f"{quote(TAG, safe='')}={quote(deployment.name, safe='')}"
        calls.upload(path, bucket, key, Metadata={_DIGEST: digest}, Tagging=tagging)
