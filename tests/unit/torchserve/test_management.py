"""The management client against a small HTTP server with TorchServe's answers, and the renewal of tokens."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from segserve.config import TorchServeAddress
from segserve.errors import InternalError, InvalidRequestError, NotFoundError, NotReadyError, UnauthorizedError
from segserve.torchserve.management import Management, read_keys
from segserve.torchserve.ports import free_ports, is_free
from segserve.torchserve.tokens import TokenRenewal

DESCRIPTION = {
    "modelName": "grounded_sam",
    "modelVersion": "1.0",
    "minWorkers": 1,
    "maxWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 20,
    "workers": [
        {"id": "9000", "status": "READY", "pid": 11, "gpu": False, "memoryUsage": 512},
        {"id": "9001", "status": "UNLOADING", "pid": -1, "gpu": True, "memoryUsage": 0},
    ],
}


class Answers(BaseHTTPRequestHandler):
    """TorchServe's management API, as far as the client uses it. Its server has `calls`, `keys` and `fail`."""

    def answer(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.calls.append((self.command, url.path, query))
        kind = "API" if url.path == "/token" else "management"
        if self.headers.get("Authorization") != f"Bearer {self.server.keys[kind]['key']}":
            return self.send(
                400, {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}
            )
        if self.server.fail:
            return self.send(*self.server.fail)
        if url.path == "/token":
            return self.send(200, None)
        if url.path == "/models":
            page = int(query.get("next_page_token", 0))
            names = ["a", "b", "c"][page : page + 2]
            listed = {"models": [{"modelName": name} for name in names]}
            return self.send(200, listed | ({"nextPageToken": "2"} if page == 0 else {}))
        if url.path == "/models/grounded_sam":
            return self.send(200, [DESCRIPTION] if self.command == "GET" else {"status": "Workers scaled"})
        return self.send(404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: x"})

    do_GET = do_PUT = answer  # noqa: N815 - http.server's names

    def send(self, status, body):
        data = b"\n\n" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def torchserve(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.calls, server.fail = [], None
    server.keys = {kind: {"key": f"key-{kind}"} for kind in ("management", "inference", "API")}
    (tmp_path / "key_file.json").write_text(json.dumps(server.keys))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.address = TorchServeAddress(
        management_url=f"http://127.0.0.1:{server.server_port}", key_file=tmp_path / "key_file.json"
    )
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_pages_are_listed(torchserve):
    assert Management(torchserve.address).list() == ["a", "b", "c"]


def test_a_description_counts_the_ready_workers(torchserve):
    status = Management(torchserve.address).describe("grounded_sam")
    assert (status.version, status.batch_size, status.batch_delay_ms) == ("1.0", 4, 20)
    assert (status.min_workers, status.max_workers) == (1, 2)
    assert status.ready
    assert status.ready_workers == 1
    assert [(worker.pid, worker.gpu) for worker in status.workers] == [(11, False), (-1, True)]


def test_scaling_waits_for_the_workers(torchserve):
    Management(torchserve.address).scale("grounded_sam", 1, 3, wait_s=5)
    expected = {"min_worker": "1", "max_worker": "3", "synchronous": "true", "timeout": "5"}
    assert torchserve.calls[0] == ("PUT", "/models/grounded_sam", expected)


def test_scaling_to_none_ends_all_workers_whatever_the_most(torchserve):
    """With a most of 1, TorchServe would forget one worker and let it run."""
    Management(torchserve.address).scale("grounded_sam", 0, 1, wait_s=5)
    expected = {"min_worker": "0", "max_worker": "0", "synchronous": "true", "timeout": "5"}
    assert torchserve.calls[0] == ("PUT", "/models/grounded_sam", expected)


@pytest.mark.parametrize(("minimum", "maximum"), [(2, 1), (-1, 1), (0, -1)])
def test_senseless_scales_are_not_even_sent(torchserve, minimum, maximum):
    with pytest.raises(InvalidRequestError):
        Management(torchserve.address).scale("grounded_sam", minimum, maximum)
    assert torchserve.calls == []


def test_refusals_are_translated(torchserve):
    management = Management(torchserve.address)
    with pytest.raises(NotFoundError, match="Model not found"):
        management.describe("x")
    torchserve.fail = (500, {"code": 500, "type": "InternalServerException", "message": "boom"})
    with pytest.raises(InternalError, match="boom"):
        management.list()
    torchserve.keys["management"] = {"key": "another"}
    with pytest.raises(UnauthorizedError):
        management.list()


def test_what_does_not_answer_is_not_ready(tmp_path):
    (port,) = free_ports(1)
    assert is_free(port)
    with pytest.raises(NotReadyError, match="tokens"):
        Management(TorchServeAddress(key_file=tmp_path / "none.json")).list()
    with pytest.raises(NotReadyError, match="does not answer"):
        Management(TorchServeAddress(management_url=f"http://127.0.0.1:{port}")).list()


def test_a_half_written_key_file_is_not_ready(tmp_path):
    (tmp_path / "key_file.json").write_text('{"management": {')
    with pytest.raises(NotReadyError):
        read_keys(TorchServeAddress(key_file=tmp_path / "key_file.json"))


def renewals(torchserve):
    return [query["type"] for method, path, query in torchserve.calls if path == "/token"]


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_tokens_are_renewed_at_half_of_their_life(torchserve):
    renewal = TokenRenewal(Management(torchserve.address), life_s=0.2)
    renewal.start()
    wait_for(lambda: len(renewals(torchserve)) >= 4)
    renewal.stop()
    renewal.join(5)
    assert not renewal.is_alive()
    assert renewals(torchserve)[:4] == ["inference", "management", "inference", "management"]


def test_a_failed_renewal_is_tried_again(torchserve):
    torchserve.fail = (500, {"code": 500, "type": "X", "message": "not now"})
    renewal = TokenRenewal(Management(torchserve.address), life_s=0.1, retry_s=0.02)
    renewal.start()
    wait_for(lambda: len(renewals(torchserve)) >= 2)
    torchserve.fail = None
    wait_for(lambda: "management" in renewals(torchserve))
    renewal.stop()
    renewal.join(5)
    assert not renewal.is_alive()


def test_a_ten_year_life_can_be_waited_for(torchserve):
    renewal = TokenRenewal(Management(torchserve.address), life_s=10 * 365 * 24 * 3600.0)
    renewal.start()
    renewal.stop()
    renewal.join(5)
    assert not renewal.is_alive()
    assert torchserve.calls == []
