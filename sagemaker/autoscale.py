"""Let SageMaker start and end instances of an endpoint with its load.

python sagemaker/autoscale.py --min 1 --max 4 --target 120              # invocations per instance and minute
python sagemaker/autoscale.py --async --min 0 --max 4 --target 5        # waiting requests per instance
python sagemaker/autoscale.py --off
"""

from __future__ import annotations

import argparse

import scaling
from command_line import add_dry_run, count, deployment_of, end, parser
from failures import DeploymentError

_TARGETS = {False: 120, True: 5}


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(
        "autoscale.py",
        "Scale an endpoint's instances with its invocations, or an async endpoint's with its queue, to none when idle.",
        "python sagemaker/autoscale.py --name segserve --async --min 0 --max 4 --target 5",
    )
    add_dry_run(made)
    made.add_argument("--min", type=count(0, 100), default=1, dest="least", help="instances; 0: only async")
    made.add_argument("--max", type=count(1, 100), default=4, dest="most", help="instances")
    made.add_argument(
        "--target",
        type=count(1, 10**6),
        help="invocations per instance and minute; with --async: requests waiting per instance; none: 120, or 5",
    )
    made.add_argument("--async", dest="asynchronous", action="store_true", help="only a dry run needs it, or a check")
    made.add_argument("--scale-in-cooldown", type=count(0, 3600), default=600, help="seconds after instances went")
    made.add_argument("--scale-out-cooldown", type=count(0, 3600), default=120, help="seconds after instances came")
    made.add_argument("--off", action="store_true", help="end the scaling; the instances stay")
    return made


def main() -> int:
    """The command line."""
    args = arguments().parse_args()
    if args.least > args.most:
        raise DeploymentError(f"--min {args.least} is above --max {args.most}.")
    deployment = deployment_of(args)
    calls = deployment.calls
    if args.off:
        scaling.remove(deployment)
        print(f"{deployment.name} is not scaled any more." if not calls.dry_run else "# dry run")
        return 0
    asynchronous = scaling.is_async(deployment, args.asynchronous)
    if args.least == 0 and not asynchronous:
        raise DeploymentError(
            "--min 0: only an async endpoint can do without instances, where requests wait in a queue "
            "(deploy.py --async); a real-time endpoint needs one."
        )
    target = float(args.target or _TARGETS[asynchronous])
    scaling.ensure_target(deployment, args.least, args.most)
    policies = [
        scaling.tracking_policy(deployment, target, asynchronous, args.scale_in_cooldown, args.scale_out_cooldown)
    ]
    if args.least == 0:
        policies.append(scaling.from_zero_policy(deployment, args.scale_out_cooldown))
    scaling.ensure_backlog_alarm(deployment, scaling.ensure_policies(deployment, policies))
    if calls.dry_run:
        print(f"# dry run: {calls.changes} changes would be made")
        return 0
    unit = "waiting requests per instance" if asynchronous else "invocations per instance and minute"
    print(
        f"{deployment.name}: {args.least} to {args.most} instances, target {target:g} {unit}."
        + ("" if calls.changes else " Nothing had changed.")
    )
    return 0


if __name__ == "__main__":
    end(main)
