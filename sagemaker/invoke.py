"""Ask an endpoint, save what it answers with its pictures, and print how long that took.

python sagemaker/invoke.py room.jpg --model grounded_sam --text "sofa. floor." --accept image/png
python sagemaker/invoke.py room.jpg --model sam2 --point 320,240 --render overlay
python sagemaker/invoke.py room.jpg --text "sofa." --endpoint-url http://127.0.0.1:8080   # no AWS: see --help
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from answer_files import save
from command_line import add_dry_run, count, deployment_of, end, parser
from deployment import Deployment
from failures import DeploymentError
from payloads import KINDS, Payload, payload
from runtime import Answer, Runtime, invoke_async
from service_models import check


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = parser(
        "invoke.py",
        "Send one request to the endpoint --name. Pictures in the answer are saved into --out. With --endpoint-url the "
        "request goes to a server that speaks SageMaker's runtime protocol: segserve serve --sagemaker-runtime.",
        'python sagemaker/invoke.py room.jpg --model grounded_sam --text "sofa. floor." --accept image/png --out out',
    )
    add_dry_run(made)
    made.add_argument("image", nargs="?", help="a file, or an http(s):// or s3:// address for the container to fetch")
    made.add_argument("--out", type=Path, default=Path("out"), help="folder for the answer")
    made.add_argument("--endpoint-url", help="of a local server instead of AWS")
    what = made.add_argument_group("the request")
    what.add_argument(
        "--kind", choices=list(KINDS), help="none: raw for a file, native with points, boxes or an address"
    )
    what.add_argument("--model", help="that is served")
    what.add_argument("--text", help='phrases such as "sofa. floor."')
    what.add_argument("--point", type=_point, action="append", default=[], metavar="X,Y[,0|1]", help="a click")
    what.add_argument("--box", type=_box, action="append", default=[], metavar="X0,Y0,X1,Y1", help="in pixels")
    what.add_argument("--threshold", type=float, help="of the model's scores")
    what.add_argument("--mask-format", choices=["rle", "polygon", "png", "none"], help="in the answer")
    what.add_argument(
        "--render", default="overlay", help="pictures in a JSON answer, with commas: overlay,cutout,mask,crops"
    )
    what.add_argument("--category", help="of --kind tiling")
    what.add_argument("--room", help="of --kind tiling")
    what.add_argument("--accept", default="application/json", help="image/png: the drawn picture; application/x-npy")
    what.add_argument("--content-type", help="of --kind body, which sends a file as it is")
    how = made.add_argument_group("SageMaker")
    how.add_argument("--target-model", metavar="NAME.tar.gz", help="of a multi-model endpoint")
    how.add_argument("--session", metavar="new|ID", help="begin a session, or go on with one")
    how.add_argument("--inference-id", help="for the logs")
    how.add_argument("--async", dest="asynchronous", action="store_true", help="through the queue of an async endpoint")
    how.add_argument("--bucket", help="of --async; none: the deployment's own")
    how.add_argument("--timeout", type=count(1, 36000), default=900, help="seconds to wait with --async")
    how.add_argument("--repeat", type=count(1, 1000), default=1, help="ask so many times, for the timing")
    return made


def main() -> int:
    """The command line."""
    args = arguments().parse_args()
    request = payload(args)
    if args.asynchronous:
        return _asynchronous(args, request)
    params = parameters(args, request)
    if args.endpoint_url is None or args.dry_run:
        check("sagemaker-runtime", "invoke_endpoint", {**params, "Body": b""})
    if args.dry_run:
        print(f"# dry run: sagemaker-runtime InvokeEndpoint {_shown(params)}")
        return 0
    runtime = Runtime(None if args.endpoint_url else deployment_of(args).calls, args.endpoint_url)
    answers = [runtime.invoke(params) for _ in range(args.repeat)]
    _tell(args, answers)
    return 0


def parameters(args: argparse.Namespace, request: Payload) -> dict[str, Any]:
    """InvokeEndpoint's parameters."""
    session = "NEW_SESSION" if args.session == "new" else args.session
    optional = {
        "CustomAttributes": request.attributes or None,
        "TargetModel": args.target_model,
        "SessionId": session,
        "InferenceId": args.inference_id,
    }
    return {
        "EndpointName": args.name,
        "Body": request.body,
        "ContentType": request.content_type,
        "Accept": request.accept,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _asynchronous(args: argparse.Namespace, request: Payload) -> int:
    refused = {"--target-model": args.target_model, "--session": args.session, "--endpoint-url": args.endpoint_url}
    for option, value in refused.items():
        if value is not None:
            raise DeploymentError(f"--async and {option} exclude each other: an async invocation has no such thing.")
    deployment: Deployment = deployment_of(args)
    params = parameters(args, request)
    del params["Body"]
    answer = invoke_async(deployment, request, params, args.timeout)
    if not deployment.calls.dry_run:
        _tell(args, [answer])
    return 0


def _tell(args: argparse.Namespace, answers: list[Answer]) -> None:
    last = answers[-1]
    stem = "answer" if args.image is None else Path(args.image).stem or "answer"
    for file in save(last.body, last.content_type, args.out, stem):
        print(file)
    seconds = sorted(answer.seconds for answer in answers)
    if len(seconds) == 1:
        print(f"{seconds[0] * 1000:.0f} ms, {len(last.body):,} bytes of {last.content_type}")
    else:
        told = f"median {statistics.median(seconds) * 1000:.0f}, {seconds[0] * 1000:.0f} to {seconds[-1] * 1000:.0f} ms"
        print(f"{len(seconds)} answers: {told}")
    if last.new_session is not None:
        print(f"session: {last.new_session.partition(';')[0]} (go on with --session ID)")
    if last.closed_session is not None:
        print(f"session {last.closed_session} is closed")


def _shown(params: dict[str, Any]) -> dict[str, Any]:
    return {**params, "Body": f"({len(params['Body']):,} bytes)"}


def _point(text: str) -> list[float]:
    numbers = _numbers(text)
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] not in (0, 1)):
        raise argparse.ArgumentTypeError(f"expected X,Y or X,Y,0 (background), came {text!r}")
    return [*numbers[:2], int(numbers[2]) if len(numbers) == 3 else 1]


def _box(text: str) -> list[float]:
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"expected X0,Y0,X1,Y1, came {text!r}")
    return numbers


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, came {text!r}") from None


if __name__ == "__main__":
    end(main)
