"""``segserve conform``: SageMaker's hosting contract as numbered checks against a running container, or an image.

segserve conform http://127.0.0.1:8080
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.conformance.check import Check, Finding
    from segserve.conformance.container import Launch
    from segserve.conformance.payload import Payload
    from segserve.conformance.subject import Subject


def add_parser(subparsers: Any) -> None:
    """Add ``conform`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "conform",
        help="check a container against SageMaker's hosting contract",
        description="Check every promise of SageMaker's hosting contract, without AWS, against a service that runs, or "
        "against an image, which is started as SageMaker starts it and ended with SIGTERM. Works with any container: "
        "--invoke says what it answers; a segserve is recognized and checked more sharply. Exits 1 when a check fails.",
        epilog="examples: segserve conform http://127.0.0.1:8080 | "
        "segserve conform --image segserve:latest --model-dir model_store | "
        "segserve conform http://127.0.0.1:8080 --invoke row.csv --content-type text/csv --only INV,BAD",
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="where the service answers, e.g. http://127.0.0.1:8080")
    parser.add_argument("--only", metavar="A,B", help="only these checks or families, e.g. PING,INV-1")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    parser.add_argument("--timeout", type=float, default=65.0, metavar="S", help="wait for an answer (default 65)")
    parser.add_argument("--api-key", metavar="KEY", help="sent as X-API-Key, if the service asks for one")
    parser.add_argument("--pid", type=int, metavar="N", help="process of the service: end it, and check how it ends")
    payload = parser.add_argument_group("what it answers (default: found out, of a segserve)")
    payload.add_argument("--invoke", type=Path, metavar="FILE", help="a body that /invocations answers with 200")
    payload.add_argument("--content-type", default="application/json", metavar="T", help="default application/json")
    payload.add_argument("--accept", default="", metavar="T", help="the media type of the answer")
    payload.add_argument("--custom-attributes", metavar="TEXT", help="X-Amzn-SageMaker-Custom-Attributes")
    models = parser.add_argument_group("multi-model")
    models.add_argument("--multi-model", action="store_true", help="the multi-model routes are promised")
    models.add_argument(
        "--artifact",
        metavar="PATH",
        help="a model to load: as the service's POST /models takes it as its url; with --image, a folder of this "
        "machine with what model.tar.gz holds",
    )
    _add_image(parser)
    forms = parser.add_argument_group("what is printed").add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print JSON instead of a table")
    forms.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.set_defaults(run=run)


def _add_image(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("an image instead of URL")
    group.add_argument("--image", metavar="IMAGE", help="started as `IMAGE serve`, its port mapped to a free one")
    group.add_argument("--model-dir", type=Path, metavar="DIR", help="mounted read-only at /opt/ml/model")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the container; repeatable")
    group.add_argument(
        "--startup-timeout", type=float, default=480.0, metavar="S", help="wait until it is ready (default 480)"
    )
    group.add_argument("--hardened", action="store_true", help="with a read-only file system and without capabilities")
    group.add_argument("--engine", metavar="COMMAND", help="docker, podman, 'podman --runtime runc' (default: found)")
    group.add_argument(
        "--engine-option", action="append", default=[], metavar="OPTION", help="of its run command, e.g. --gpus=all"
    )


def run(args: argparse.Namespace) -> int:
    """Run the checks and print them. Returns 0 when none failed, 1 when one did."""
    from segserve.conformance.kit import chosen, failures

    checks = chosen([name.strip() for name in (args.only or "").split(",") if name.strip()])
    if args.list:
        for check in checks:
            print(f"{check.id:9} {check.promise}: {check.expected}  [{check.source.value}]")
        return 0
    payload = _payload(args)
    with _subject(args, payload) as subject:
        if subject.started_here and subject.ready_after_s is None:
            # The others would wait for it, each for the whole time.
            checks = [check for check in checks if check.family in ("IMG", "STOP")]
        findings = _run(subject, checks)
    _print(args, findings)
    return 1 if failures(findings) else 0


def _payload(args: argparse.Namespace) -> Payload | None:
    from segserve.conformance.payload import Payload

    if args.invoke is None:
        return None
    attributes = args.custom_attributes
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes} if attributes else {}
    return Payload(args.invoke.read_bytes(), args.content_type, args.accept, headers)


@contextlib.contextmanager
def _subject(args: argparse.Namespace, payload: Payload | None) -> Iterator[Subject]:
    """What is put to the test, recognized and, as an image, started and ready.

    Raises:
        InvalidRequestError: neither URL nor --image, or both.
        UnreachableError: nothing listens at URL.
    """
    from segserve.conformance.kit import recognize
    from segserve.conformance.process import LocalProcess
    from segserve.conformance.subject import Subject
    from segserve.conformance.wire import Wire, check_reachable
    from segserve.errors import InvalidRequestError

    if bool(args.url) == bool(args.image):
        raise InvalidRequestError("Expected a URL, or --image IMAGE; came " + ("both." if args.url else "neither."))
    headers = {"X-API-Key": args.api_key} if args.api_key else {}
    if args.image:
        with _container(args, headers, payload) as subject:
            yield subject
        return
    holder = LocalProcess(args.pid) if args.pid else None
    wire = Wire(args.url, args.timeout, headers)
    subject = Subject(wire, artifact=args.artifact, multi_model=args.multi_model, holder=holder)
    check_reachable(wire)
    recognize(subject, payload)
    yield subject


@contextlib.contextmanager
def _container(args: argparse.Namespace, headers: dict[str, str], payload: Payload | None) -> Iterator[Subject]:
    from segserve.conformance.container import started
    from segserve.conformance.kit import recognize
    from segserve.conformance.subject import Limits, Subject, wait_until_ready
    from segserve.conformance.wire import Wire

    launch = _launch(args)
    with started(launch) as container:
        subject = Subject(
            Wire(container.url, args.timeout, headers),
            Limits(startup_s=args.startup_timeout),
            multi_model=args.multi_model,
            artifact=_ARTIFACT_PLACE if args.artifact else None,
            holder=container,
            started_here=True,
        )
        with _status(f"{args.image} is starting …"):
            subject.ready_after_s, said = wait_until_ready(subject.wire, subject.limits.startup_s)
        if subject.ready_after_s is None:
            subject.never_ready = f"{said}. It printed: {' '.join(container.log().split())[-300:]}"
        else:
            recognize(subject, payload)
        yield subject


_ARTIFACT_PLACE = "/opt/ml/models/conformance-model-1/model"


def _launch(args: argparse.Namespace) -> Launch:
    from segserve.conformance.container import HARDENED, MODEL_DIR, Launch, find_engine
    from segserve.errors import InvalidRequestError

    mounts = {}
    for option, place in ((args.model_dir, MODEL_DIR), (args.artifact and Path(args.artifact), _ARTIFACT_PLACE)):
        if option is not None:
            if not option.is_dir():
                raise InvalidRequestError(f"No folder {option} here to mount at {place}.")
            mounts[place] = option
    environment = dict(pair.partition("=")[::2] for pair in args.env)
    if args.multi_model:
        environment.setdefault("SAGEMAKER_MULTI_MODEL", "true")
    options = (*args.engine_option, *(HARDENED if args.hardened else ()))
    return Launch(args.image, args.engine or find_engine(), options, mounts, environment)


def _run(subject: Subject, checks: Sequence[Check]) -> list[Finding]:
    from segserve.conformance.kit import run_checks

    with _status("checking …") as status:
        return run_checks(subject, checks, lambda check: status.update(f"{check.id}: {check.promise}"))


def _status(text: str) -> Any:
    from rich.console import Console

    return Console(stderr=True).status(text)


def _print(args: argparse.Namespace, findings: list[Finding]) -> None:
    from segserve.conformance.report import as_json, as_markdown, summary

    if args.json:
        print(as_json(findings, args.image or args.url))
    elif args.markdown:
        print(as_markdown(findings), end="")
    else:
        _print_table(findings)
        print(f"{summary(findings)}.")


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"pass": "green", "fail": "bold red", "not applicable": "dim"}
    table = Table()
    for column in ("check", "the promise", "expected", "result", "what was seen"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        verdict = finding.outcome.verdict.value
        cells = (finding.check.id, finding.check.promise, finding.check.expected)
        seen = Text(finding.outcome.seen)
        table.add_row(*map(Text, cells), Text("–" if verdict == "not applicable" else verdict, styles[verdict]), seen)
    Console().print(table)
