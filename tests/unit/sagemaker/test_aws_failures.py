"""How AWS's refusals reach a person: against a server on this machine that answers as SageMaker does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aws_scripts import REGION
from botocore.exceptions import ClientError

from calls import Calls
from failures import ATTEMPTS, DeploymentError, failure_of

Busy = Callable[[int, str], list[str]]


@pytest.fixture
def busy(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    """Makes SageMaker refuse so many requests with a code before it answers; gives the list of those that came."""
    asked: list[str] = []
    state = {"left": 0, "code": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["X-Amz-Target"])
            refused = state["left"] > 0
            state["left"] = int(state["left"]) - 1
            body = {"__type": state["code"], "message": "said by AWS"} if refused else {"Models": []}
            data = json.dumps(body).encode()
            self.send_response(400 if refused else 200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)

    def refuse(times: int, code: str) -> list[str]:
        state.update(left=times, code=code)
        return asked

    yield refuse
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_throttled_call_is_made_again(busy: Busy) -> None:
    asked = busy(3, "ThrottlingException")
    assert Calls(REGION).read("sagemaker", "list_models") is not None
    assert len(asked) == 4


def test_a_call_that_stays_throttled_says_so(busy: Busy) -> None:
    asked = busy(100, "ThrottlingException")
    with pytest.raises(DeploymentError, match=f"slow down, after {ATTEMPTS} attempts"):
        Calls(REGION).read("sagemaker", "list_models")
    assert len(asked) == ATTEMPTS


def test_what_is_refused_is_not_tried_again(busy: Busy) -> None:
    asked = busy(1, "AccessDeniedException")
    with pytest.raises(DeploymentError, match="not permitted"):
        Calls(REGION).read("sagemaker", "list_models")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("InvalidClientTokenId", "not valid or have expired"),
        ("LimitExceededException", "over a quota"),
        ("403", "not permitted"),
        ("SomethingNew", "SomethingNew: said by AWS"),
    ],
)
def test_a_code_becomes_a_line(code: str, told: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "said\n by  AWS"}}, "CreateModel")
    failure = failure_of(error, "sagemaker CreateModel")
    assert told in str(failure)
    assert "\n" not in str(failure)
    assert failure.code == code
