"""Delete what deploy.py has made of a deployment: it lists everything first, and asks.

    python sagemaker/teardown.py --name segserve --dry-run
    python sagemaker/teardown.py --name segserve

Only what carries the tag segserve:deployment = NAME is deleted. Logs in CloudWatch and the answers of batch jobs stay.
"""

from __future__ import annotations

import sys

from command_line import add_dry_run, deployment_of, end, parser
from deployment import TAG
from failures import DeploymentError
from inventory import items


def main() -> int:
    """The command line."""
    options = parser(
        "teardown.py",
        "Delete the endpoint, its models, role, alarms, topics, image repository and bucket, as far as deploy.py made "
        "them. Lists them and asks first.",
        "python sagemaker/teardown.py --name segserve --keep-images",
    )
    add_dry_run(options)
    options.add_argument("--yes", action="store_true", help="do not ask")
    options.add_argument("--keep-images", action="store_true", help="leave the image repository")
    options.add_argument("--keep-data", action="store_true", help="leave the bucket with models and answers")
    options.add_argument("--bucket", help="that deploy.py was given; none: the deployment's own")
    args = options.parse_args()
    deployment = deployment_of(args)
    found = list(items(deployment, args.keep_images, args.keep_data))
    foreign = [item for item in found if not item.owned]
    for item in foreign:
        print(f"left alone (no tag {TAG}={args.name}): {item.title}")
    owned = [item for item in found if item.owned]
    if not owned:
        print(f"nothing of {args.name} is there in {deployment.calls.region}.")
        return 0
    print(f"of account {deployment.calls.account}, {deployment.calls.region}:")
    for item in owned:
        print(f"  {item.title}")
    if not (args.dry_run or args.yes or _agreed(args.name)):
        print("nothing was deleted.")
        return 1
    failures: list[str] = []
    for item in owned:
        try:
            item.delete()
        except DeploymentError as error:
            # The rest can go nevertheless, and costs money while it stays.
            failures.append(f"{item.title}: {error}")
    if failures:
        raise DeploymentError("not everything was deleted; run this again. " + "; ".join(failures))
    print("# dry run: nothing was deleted" if args.dry_run else f"{len(owned)} deleted.")
    return 0


def _agreed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise DeploymentError("nobody to ask: give --yes to delete all of it.")
    return input(f"Delete all of it? Type the deployment's name ({name}): ").strip() == name


if __name__ == "__main__":
    end(main)
