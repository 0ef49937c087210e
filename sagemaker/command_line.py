"""What the scripts' command lines have in common: options, and how they end."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from calls import Calls
from deployment import Deployment
from failures import DeploymentError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 26
"""Characters of a deployment's name: a bucket's name, with account and region, has 63 at most."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.default is False or action.default == []
        return action.help if says_nothing else super()._get_help_string(action)


def parser(script: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the common options; example is shown at the end of its help."""
    made = argparse.ArgumentParser(
        prog=f"sagemaker/{script}",
        description=description,
        epilog=f"example: {example}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    made.add_argument("--name", type=deployment_name, default="segserve", help="of the deployment and its endpoint")
    made.add_argument("--region", help="of AWS; none: as the environment or the profile says")
    made.add_argument("--profile", help="of the AWS configuration")
    return made


def add_dry_run(made: argparse.ArgumentParser) -> None:
    """Add --dry-run."""
    made.add_argument(
        "--dry-run", action="store_true", help="print the calls instead of changing anything; needs no AWS"
    )


def deployment_name(text: str) -> str:
    """A name that AWS takes for an endpoint, a bucket, a repository and a role."""
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected lower case letters, digits and single hyphens, a letter first, {MAX_NAME} at most; came {text!r}"
        )
    return text


def count(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds, as an argument's type."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, came {text!r}")
        return int(text)

    return read


def deployment_of(args: argparse.Namespace) -> Deployment:
    """The deployment that the common options name, with a way to AWS."""
    calls = Calls(args.region, args.profile, getattr(args, "dry_run", False))
    return Deployment(args.name, calls, getattr(args, "bucket", None))


def end(main: Callable[[], int]) -> None:
    """Run a script's main and end the process: 0 done, 1 failed with one line, 130 interrupted."""
    try:
        status = main()
    except DeploymentError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; what AWS has begun goes on. Run the same command again to look.", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 1
    sys.exit(status)
