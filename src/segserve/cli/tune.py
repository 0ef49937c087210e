"""``segserve tune``: find the workers, batch size and batch delay that serve a model best on this machine.

segserve tune model_store/grounded_sam.mar --latency-target 500
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.training_progress import positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segserve.cli.tuning_trials import TrialPlan
    from segserve.torchserve.archive import ArchiveInfo
    from segserve.torchserve.tuning import Setting, Trial

_BATCH_SIZES = {"cpu": [1, 2, 4], "gpu": [1, 2, 4, 8, 16]}
_DELAYS_MS = {"cpu": [10], "gpu": [5, 15, 50]}


def add_parser(subparsers: Any) -> None:
    """Add ``tune`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "tune",
        help="find the workers, batch size and batch delay that serve a model best here",
        description="Serve an archive with one setting after the other, a service of its own on free ports each time, "
        "load it with clients that ask again as soon as they are answered, and print throughput, latency, errors and "
        "memory of each. Marks the fastest whose 95th percentile keeps within --latency-target. The clients run on "
        "this machine too, and what else runs here counts: close it.",
        epilog="examples: segserve tune model_store/grounded_sam.mar --latency-target 500 | "
        "segserve tune model_store/sam2.mar --workers 1 2 --batch-sizes 1 4 --images photos/*.jpg "
        "--prompt '{\"points\": [[200, 150, 1]]}' --out tune.json",
    )
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="the .mar file; `segserve archive` builds it")
    swept = parser.add_argument_group("what is tried: every combination")
    swept.add_argument("--workers", type=positive, nargs="+", metavar="N", help="default: 1 and one per core, or GPU")
    swept.add_argument(
        "--batch-sizes", type=positive, nargs="+", metavar="N", help="default: 1 2 4 (cpu), 1 2 4 8 16 (gpu)"
    )
    swept.add_argument(
        "--batch-delays", type=positive, nargs="+", metavar="MS", help="default: 10 (cpu), 5 15 50 (gpu)"
    )
    swept.add_argument("--profile", choices=("auto", "cpu", "gpu"), default="auto", help="default: gpu if there is one")
    load = parser.add_argument_group("the load")
    load.add_argument("--clients", type=positive, default=8, metavar="N", help="that ask at once (default 8)")
    load.add_argument("--images", type=Path, nargs="+", metavar="FILE", help="default: generated rooms")
    load.add_argument(
        "--scenes", type=positive, default=8, metavar="N", help="generated rooms, 640x480, if no --images (default 8)"
    )
    load.add_argument("--text", metavar="PHRASES", help='for a model that takes text, e.g. "sofa. red chair."')
    load.add_argument(
        "--prompt", metavar="JSON", help="any prompt, as in POST /v1/segment (default: text, a click, or none)"
    )
    load.add_argument("--seconds", type=float, default=15.0, metavar="S", help="measured for each setting (15)")
    load.add_argument("--warm-up", type=float, default=5.0, metavar="S", help="asked but not counted before (5)")
    parser.add_argument("--latency-target", type=float, metavar="MS", help="of the 95th percentile (default: none)")
    parser.add_argument(
        "--time-limit", type=float, default=20.0, metavar="MIN", help="no setting is begun that would pass it (20)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON, after each setting")
    parser.add_argument(
        "--log-dir", type=Path, default=Path("build/tune"), metavar="DIR", help="of the services (default build/tune)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Try every setting, print the table and what to use. Returns 1 when none keeps within the target."""
    from segserve.cli.demo_server import terminated_like_interrupted
    from segserve.cli.tuning_table import print_trials
    from segserve.torchserve.archive import read_archive
    from segserve.torchserve.profiles import choose_profile
    from segserve.torchserve.tuning import best_trial, how_to_use

    archive = read_archive(args.archive)
    profile = choose_profile(args.profile)
    settings, plan = _settings(args, profile), _plan(args, archive, profile)
    if plan.clients < max(setting.workers * setting.batch_size for setting in settings):
        _say(f"{plan.clients} clients cannot fill the largest workers x batch size: consider more --clients")
    with terminated_like_interrupted():
        trials = _tried(args, plan, settings)
    best = best_trial(trials, args.latency_target)
    print_trials(trials, best, args.latency_target)
    if len(trials) < len(settings):
        _say(f"--time-limit: {len(settings) - len(trials)} of {len(settings)} settings were not tried")
    if args.out is not None:
        _write(args, plan, trials, best)
    if best is None:
        _say(_why_none(trials, args.latency_target))
        return 1
    print("\n".join(how_to_use(archive.name, archive.about.kind, profile, best.setting)))
    return 0


def _settings(args: argparse.Namespace, profile: str) -> list[Setting]:
    from segserve.torchserve.profiles import cpu_count, gpu_count
    from segserve.torchserve.tuning import settings_to_try

    devices = cpu_count() if profile == "cpu" else max(1, gpu_count())
    workers = args.workers or sorted({1, devices})
    return settings_to_try(workers, args.batch_sizes or _BATCH_SIZES[profile], args.batch_delays or _DELAYS_MS[profile])


def _plan(args: argparse.Namespace, archive: ArchiveInfo, profile: str) -> TrialPlan:
    from segserve.cli.tuning_trials import TrialPlan, default_prompt, generated_pictures
    from segserve.errors import InvalidRequestError
    from segserve.imaging import decode

    for name, value, least in (
        ("--seconds", args.seconds, 1),
        ("--warm-up", args.warm_up, 0),
        ("--time-limit", args.time_limit, 0.1),
        ("--latency-target", args.latency_target or 1, 0.1),
    ):
        if not least <= value < float("inf"):
            raise InvalidRequestError(f"{name}: expected a number of at least {least}, came {value:g}.")
    prompt = _prompt(args)
    pictures = [path.read_bytes() for path in args.images] if args.images else generated_pictures(args.scenes)
    height, width = decode(pictures[0]).shape[:2]
    return TrialPlan(
        args.archive.resolve(),
        archive.name,
        profile,
        pictures,
        prompt or default_prompt(archive.about.kind, width, height),
        args.clients,
        args.warm_up,
        args.seconds,
        args.log_dir,
    )


def _prompt(args: argparse.Namespace) -> dict[str, Any]:
    from segserve.errors import InvalidRequestError

    if args.prompt is None:
        return {"text": args.text} if args.text else {}
    try:
        prompt = json.loads(args.prompt)
    except ValueError as error:
        raise InvalidRequestError(f"--prompt: not JSON: {error}.") from error
    if not isinstance(prompt, dict) or args.text:
        raise InvalidRequestError('--prompt: expected an object such as {"text": "sofa."}, and no --text beside it.')
    return prompt


def _tried(args: argparse.Namespace, plan: TrialPlan, settings: Sequence[Setting]) -> list[Trial]:
    """The trials that the time limit allows, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from segserve.cli.tuning_trials import run_trial

    ends = time.monotonic() + 60 * args.time_limit
    trials: list[Trial] = []
    longest = plan.warm_up_s + plan.seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=len(settings))
        for done, setting in enumerate(settings):
            began = time.monotonic()
            if began + longest > ends:
                break
            label = f"{setting.workers} workers, batches of {setting.batch_size}, {setting.batch_delay_ms} ms"

            def shown(phase: str, elapsed: float, done: int = done, label: str = label) -> None:
                part = elapsed / (plan.warm_up_s + plan.seconds)
                bars.update(task, description=f"{label}: {phase}", completed=done + min(0.99, part))

            trials.append(run_trial(plan, setting, shown))
            longest = max(longest, time.monotonic() - began)
            bars.update(task, completed=done + 1)
            if args.out is not None:
                _write(args, plan, trials, None)
    return trials


def _write(args: argparse.Namespace, plan: TrialPlan, trials: Sequence[Trial], best: Trial | None) -> None:
    report = {
        "archive": args.archive.name,
        "model": plan.model,
        "profile": plan.profile,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load": {
            "clients": plan.clients,
            "pictures": len(plan.pictures),
            "prompt": dict(plan.prompt),
            "seconds": plan.seconds,
            "warm_up": plan.warm_up_s,
        },
        "latency_target_ms": args.latency_target,
        "trials": [trial.to_dict() for trial in trials],
        "best": None if best is None else best.to_dict(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _why_none(trials: Sequence[Trial], target_ms: float | None) -> str:
    problems = [trial.problem for trial in trials if trial.problem]
    if problems and len(problems) == len(trials):
        return problems[0]
    sound = [trial.p95_ms for trial in trials if trial.sound and trial.p95_ms is not None]
    if sound and target_ms is not None:
        return f"no setting keeps 95 % of the answers within {target_ms:g} ms; the nearest takes {min(sound):.0f} ms"
    return "no setting answered every request"


def _say(line: str) -> None:
    print(f"segserve tune: {line}", file=sys.stderr, flush=True)
