"""What only real connections show: keep-alive, early refusals, callers gone, and a graceful end."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests
import uvicorn
from fake_torchserve import Answer, FakeTorchServe, lower_half
from gateways import wait_for
from pictures import png, source
from sockets import OpenService, Running, listening

from segserve.config import FetchPolicy, RequestLimits
from segserve.gateway.numpy_files import to_npy

BODY = {"images": [source(png())], "prompt": {"text": "sofa"}}


def test_many_callers_at_once_get_their_own_answers(open_service: OpenService, torchserve: FakeTorchServe) -> None:
    service = open_service()
    torchserve.delay_s = 0.05

    def ask(number: int) -> tuple[int, int, str]:
        body = {"images": [source(png(20 + number, 30))], "prompt": {"text": f"thing {number}"}}
        answer = requests.post(f"{service.url}/v1/segment", json=body, timeout=30)
        (result,) = answer.json()["results"]
        return answer.status_code, result["width"], result["instances"][0]["label"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(60)))
    assert answers == [(200, 20 + number, f"thing {number}") for number in range(60)]


def test_a_body_without_a_length_is_refused_before_it_has_ended(open_service: OpenService) -> None:
    service = open_service(limits=RequestLimits(max_body_bytes=10_000))
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        head = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"2711\r\n" + b" " * 0x2711 + b"\r\n")
        # The body is not over yet, and the answer comes all the same.
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert json.loads(answer.read())["error"]["code"] == "body_too_large"


def test_a_body_announced_too_long_is_refused_before_it_is_sent(open_service: OpenService) -> None:
    service = open_service(limits=RequestLimits(max_body_bytes=10_000))
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413


def test_a_caller_who_hangs_up_frees_the_worker(open_service: OpenService, torchserve: FakeTorchServe) -> None:
    service = open_service()
    torchserve.delay_s = 600
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        head = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_for(lambda: torchserve.most_at_once == 1)
    metrics = f"{service.url}/metrics"
    wait_for(lambda: 'route="/v1/segment",status="499"} 1.0' in requests.get(metrics, timeout=10).text)


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_told_to_exit_it_answers_what_is_in_flight(open_service: OpenService, torchserve: FakeTorchServe) -> None:
    service = open_service()
    released = threading.Event()

    async def held(data: bytes, prompt: dict[str, Any]) -> Answer:
        while not released.is_set():
            await asyncio.sleep(0.01)
        return lower_half(data, prompt)

    torchserve.react = held
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(requests.post, f"{service.url}/v1/segment", json=BODY, timeout=60) for _ in range(8)]
        wait_for(lambda: torchserve.most_at_once == 8)
        service.stop()
        wait_for(lambda: refuses_connections(service.port))
        released.set()
        assert [one.result().status_code for one in asked] == [200] * 8
    service.join()


def test_what_takes_too_long_is_cut_off_at_the_end(open_service: OpenService, torchserve: FakeTorchServe) -> None:
    service = open_service(limits=RequestLimits(shutdown_s=1))
    torchserve.delay_s = 600
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(requests.post, f"{service.url}/v1/segment", json=BODY, timeout=60)
        wait_for(lambda: torchserve.most_at_once == 1)
        service.stop()
        assert asked.result().status_code == 503
        assert "stopping" in asked.result().json()["error"]["message"]


def test_a_local_url_is_fetched_where_the_operator_allows_it(open_service: OpenService) -> None:
    """The whole way over a real socket: resolve, check, connect to the checked address, read."""

    async def files(scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"])[b"host"].decode()
        found = scope["path"] == "/a b.png" and host.startswith("localhost:")
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
        await send({"type": "http.response.body", "body": png()})

    with listening() as (bound, port):
        server = Running(uvicorn.Server(uvicorn.Config(files, lifespan="off", log_config=None)), bound, port)
        body = {"images": [{"url": f"http://localhost:{port}/a%20b.png?x=1"}], "prompt": {"text": "sofa"}}
        refused = requests.post(f"{open_service().url}/v1/segment", json=body, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (424, "fetch_forbidden")
        allowed = open_service(fetch=FetchPolicy(allow=("127.0.0.0/8", "::1")))
        answer = requests.post(f"{allowed.url}/v1/segment", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        server.stop()
        server.join()


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ts", "torchvision", "transformers", "boto3", "openai"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from segserve.config import Settings
from segserve.gateway.app import create_app
from segserve.gateway.server import build_server

settings = Settings()
print(type(build_server(create_app(settings), settings)).__name__)
print(sorted(name for name in sys.modules if name.startswith(("segserve.models", "segserve.torchserve"))))
"""


def test_the_gateway_needs_neither_torch_nor_torchserve() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["GatewayServer", "[]"]


def test_a_caller_who_hangs_up_while_tensors_stream_ends_the_work(
    open_service: OpenService, torchserve: FakeTorchServe
) -> None:
    """60 MB of text, of which the caller reads the beginning: the rest does not fit into any buffer on the way."""
    logits = to_npy(np.random.default_rng(0).normal(0, 3, (21, 512, 512)).astype(np.float32))
    torchserve.models["semantic"] = ["READY"]
    torchserve.react = lambda data, prompt: (200, logits)
    service = open_service()
    wait_for(lambda: "semantic" in requests.get(f"{service.url}/v1/models", timeout=10).text)
    form = {"infer_model_type": "torch", "requested_results_types": "logits"}
    files = {"file": ("a.png", png())}
    headers = {"Accept-Encoding": "identity"}
    with requests.post(
        f"{service.url}/infer/file", data=form, files=files, headers=headers, stream=True, timeout=60
    ) as answer:
        assert next(answer.iter_content(64)).startswith(b'{"Status":"OK"')
    metrics = f"{service.url}/metrics"
    wait_for(lambda: 'route="/infer/file",status="499"} 1.0' in requests.get(metrics, timeout=10).text)
