"""The image repository in ECR, and which image of it is meant.

python sagemaker/image_repository.py --name segserve            # create it where it is missing, print its address
python sagemaker/image_repository.py --name segserve --password # its password, for docker login --password-stdin
"""

from __future__ import annotations

import base64
import sys

from command_line import add_dry_run, deployment_of, end, parser
from deployment import Deployment
from failures import DeploymentError

_TAKEN = "application/vnd.docker.distribution.manifest.v2+json"
"""The one kind of manifest that CreateModel takes: not OCI's, and no list, which attestations lead to."""


def host(deployment: Deployment) -> str:
    """The registry of this account and region."""
    calls = deployment.calls
    return f"{calls.account}.dkr.ecr.{calls.region}.{calls.dns_suffix}"


def ensure(deployment: Deployment, repository: str) -> str:
    """The repository's address; it is created where it is missing."""
    calls = deployment.calls
    if calls.read("ecr", "describe_repositories", repositoryNames=[repository]) is None:
        calls.change(
            "ecr",
            "create_repository",
            repositoryName=repository,
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration={"encryptionType": "AES256"},
            tags=deployment.tags(),
        )
    return f"{host(deployment)}/{repository}"


def split_image(deployment: Deployment, image: str) -> tuple[str, str]:
    """Repository and tag, or digest (``sha256:…``), of an image of this account's registry.

    Raises:
        DeploymentError: an image of another registry: SageMaker pulls from ECR.
    """
    name = image.removeprefix(f"{host(deployment)}/")
    if "." in name.split("/")[0] and "/" in name:
        raise DeploymentError(
            f"--image {image}: SageMaker pulls from ECR, here {host(deployment)}. Push it there first: "
            "sagemaker/build_and_push.sh"
        )
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, _, tag = name.partition(":")
    return repository, tag or "latest"


def pinned(deployment: Deployment, image: str) -> str:
    """The image's address with its digest, so that a newer push under the same tag is a change that is noticed.

    Raises:
        DeploymentError: no such image, or one of a kind that SageMaker refuses.
    """
    calls = deployment.calls
    repository, version = split_image(deployment, image)
    address = ensure(deployment, repository) if repository == deployment.name else f"{host(deployment)}/{repository}"
    wanted = {"imageDigest": version} if version.startswith("sha256:") else {"imageTag": version}
    found = calls.read("ecr", "describe_images", repositoryName=repository, imageIds=[wanted])
    if found is None or not found["imageDetails"]:
        if calls.dry_run:
            # It may well be pushed before the real run.
            return f"{address}{'@' if 'imageDigest' in wanted else ':'}{version}"
        raise DeploymentError(f"no image {repository}:{version} in {host(deployment)}: sagemaker/build_and_push.sh")
    details = found["imageDetails"][0]
    if details.get("imageManifestMediaType", _TAKEN) != _TAKEN:
        raise DeploymentError(
            f"{repository}:{version} has a manifest of the kind {details['imageManifestMediaType']}, which SageMaker "
            "refuses. Push a single image in Docker's format without attestations, as sagemaker/build_and_push.sh "
            "does: docker buildx build --platform linux/amd64 --provenance=false --sbom=false --output type=docker"
        )
    return f"{address}@{details['imageDigest']}"


def password(deployment: Deployment) -> str:
    """The registry's password for the user AWS, good for 12 hours."""
    answer = deployment.calls.read("ecr", "get_authorization_token") or {}
    token = answer["authorizationData"][0]["authorizationToken"]
    return base64.b64decode(token).decode("ascii").partition(":")[2]


def main() -> int:
    """The command line of build_and_push.sh."""
    options = parser(
        "image_repository.py",
        "Create the deployment's ECR repository where it is missing and print its address; or print its password.",
        "python sagemaker/image_repository.py --name segserve --region eu-central-1",
    )
    add_dry_run(options)
    options.add_argument("--password", action="store_true", help="print the password for docker login, nothing else")
    args = options.parse_args()
    if args.password and (args.dry_run or sys.stdout.isatty()):
        options.error("--password: only into a pipe: … | docker login --username AWS --password-stdin HOST")
    deployment = deployment_of(args)
    print(password(deployment) if args.password else ensure(deployment, deployment.name))
    return 0


if __name__ == "__main__":
    end(main)
