"""sagemaker/invoke.py with a real boto3 client against the gateway as SageMaker's runtime, and its queue against moto.

TorchServe is a fake, so that what is found is made up; the requests, the answers and the files are real. moto only
takes an async request: the answer that a container would write to S3 is put there by the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
import uvicorn
from fake_torchserve import FakeTorchServe
from moto.server import ThreadedMotoServer
from pictures import HEIGHT, WIDTH, png
from PIL import Image
from sockets import Running, gateway_before, listening

from segserve.config import Settings
from segserve.gateway.app import create_app

SCRIPT = Path(__file__).resolve().parents[2] / "sagemaker" / "invoke.py"
MODELS = ("grounded_sam", "sam2")


@pytest.fixture(scope="module")
def runtime() -> Iterator[str]:
    """The address of a gateway that speaks SageMaker's runtime protocol."""
    torchserve = FakeTorchServe(models={model: ["READY"] for model in MODELS})
    with gateway_before(torchserve, models=MODELS, sagemaker_runtime=True) as gateway:
        yield gateway.url


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "room.png"
    path.write_bytes(png())
    return path


def invoke(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a process, without any AWS configuration but what is given."""
    path = {"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*"}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, env=path | environ, capture_output=True, text=True, check=False, timeout=120)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_raw_picture_comes_back_drawn(runtime: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = invoke(
        *(str(image), "--endpoint-url", runtime, "--model", "grounded_sam", "--text", "sofa. red chair."),
        *("--accept", "image/png", "--out", str(out), "--repeat", "2"),
    )
    assert ended.returncode == 0, ended.stderr
    assert size(out / "room.png") == (WIDTH, HEIGHT)
    assert "2 answers: median" in ended.stdout


def test_the_pictures_within_an_answer_become_files(runtime: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--model", "sam2", "--point", "20,30", "--point", "5,5,0", "--render", "overlay,mask")
    ended = invoke(str(image), "--endpoint-url", runtime, "--out", str(out), *options)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads((out / "room.json").read_text("utf-8"))
    drawn = answer["results"][0]["renders"]["overlay"]
    assert (drawn, size(out / drawn)) == ("room-results-0-renders-overlay.png", (WIDTH, HEIGHT))
    assert answer["model"] == "sam2"
    assert "instances" in answer["results"][0]
    assert " ms, " in ended.stdout


def test_a_session_is_begun_and_gone_on_with(runtime: str, image: Path, tmp_path: Path) -> None:
    options = (str(image), "--endpoint-url", runtime, "--text", "sofa.", "--out", str(tmp_path / "out"))
    begun = invoke(*options, "--session", "new")
    assert begun.returncode == 0, begun.stderr
    (line,) = (line for line in begun.stdout.splitlines() if line.startswith("session: "))
    assert invoke(*options, "--session", line.split()[1], "--inference-id", "picture-7").returncode == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--kind", "ping"), None),
        (("--kind", "tiling", "--category", "Flooring"), None),
        (("--model", "no-such-model"), "the container answered 404"),
        (("--text", "sofa.", "--target-model", "no-such.tar.gz"), "the container answered 404"),
        (("--kind", "langsam", "--text", "sofa"), "http(s):// address"),
        (("--kind", "sam2"), "exactly one --point"),
        (("--kind", "raw", "--box", "1,1,9,9"), "use --kind native"),
        (("--kind", "tiling"), "needs --category"),
    ],
)
def test_each_kind_of_request_is_answered_or_refused_in_one_line(
    runtime: str, image: Path, tmp_path: Path, options: tuple[str, ...], told: str | None
) -> None:
    ended = invoke(str(image), "--endpoint-url", runtime, "--out", str(tmp_path / "out"), *options)
    if told is None:
        assert (ended.returncode, ended.stderr) == (0, "")
        assert (tmp_path / "out" / "room.json").exists()
    else:
        assert (ended.returncode, told in ended.stderr) == (1, True), ended.stderr
        assert ended.stderr.count("\n") == 1


def test_a_server_that_is_no_runtime_is_told(image: Path, tmp_path: Path) -> None:
    with listening() as (bound, port):
        plain = Running(uvicorn.Server(uvicorn.Config(create_app(Settings()), log_config=None)), bound, port)
        ended = invoke(str(image), "--endpoint-url", plain.url, "--text", "sofa.", "--out", str(tmp_path))
        plain.stop()
        plain.join()
    assert (ended.returncode, "segserve serve --sagemaker-runtime" in ended.stderr) == (1, True), ended.stderr
    gone = invoke(str(image), "--endpoint-url", plain.url, "--text", "sofa.", "--out", str(tmp_path))
    assert (gone.returncode, "cannot be reached" in gone.stderr) == (1, True)


def test_a_dry_run_needs_nothing(image: Path) -> None:
    ended = invoke(str(image), "--text", "sofa; floor", "--target-model", "mask_rcnn.tar.gz", "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "'TargetModel': 'mask_rcnn.tar.gz'" in ended.stdout
    assert "text=sofa%3B floor" in ended.stdout
    ended = invoke(str(image), "--text", "sofa.", "--async", "--dry-run")
    assert (ended.returncode, "sagemaker-runtime InvokeEndpointAsync" in ended.stdout) == (0, True), ended.stderr


@pytest.fixture
def moto() -> Iterator[dict[str, str]]:
    """An AWS on a port of this machine; gives the environment of its clients."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def test_an_async_answer_is_fetched_from_s3(
    moto: dict[str, str], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="queue")
    # moto writes these to S3 as the container's answers to the next two requests.
    refused = {"data": "422 invalid_prompt", "is_failure": True}
    answers = {"region": "us-east-1", "results": [{"data": json.dumps({"model": "grounded_sam"})}, refused]}
    url = f"{moto['AWS_ENDPOINT_URL']}/moto-api/static/sagemaker/async-endpoint-results"
    assert requests.post(url, json=answers, timeout=10).status_code == 201
    options = ("--name", "shop", "--text", "sofa.", "--async", "--bucket", "queue", "--out", str(tmp_path / "out"))
    ended = invoke(str(image), *options, **moto)
    assert ended.returncode == 0, ended.stderr
    (written,) = (file.read_text("utf-8") for file in (tmp_path / "out").iterdir())
    assert "grounded_sam" in written
    (sent,) = s3.list_objects_v2(Bucket="queue", Prefix="shop/async/input/")["Contents"]
    stored = s3.get_object(Bucket="queue", Key=sent["Key"])
    assert (stored["Body"].read(), stored["ContentType"]) == (image.read_bytes(), "image/png")
    image.write_bytes(png(seed=1))
    ended = invoke(str(image), *options, **moto)
    assert (ended.returncode, "the container refused it: 422 invalid_prompt" in ended.stderr) == (1, True)
