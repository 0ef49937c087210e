"""Large answers leave a batch on their own, in TorchServe's own messages."""

import socket
import threading

import pytest
from ts.context import Context, RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from segserve.torchserve.large_answers import LARGE_BYTES, send_large

LARGE = b"L" * LARGE_BYTES


def make_context(requests, cl_socket=None):
    context = Context("rooms", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in range(requests)]
    context.request_ids = {index: f"request-{index}" for index in range(requests)}
    if cl_socket is not None:
        context.cl_socket = cl_socket
    return context


def received(frontend):
    """All that comes until the worker's side is closed."""
    parts = []
    while part := frontend.recv(2**20):
        parts.append(part)
    return b"".join(parts)


def test_each_large_answer_is_a_message_of_its_own_and_its_stream_is_ended():
    frontend, worker = socket.socketpair()
    found = []
    reader = threading.Thread(target=lambda: found.append(received(frontend)))
    reader.start()
    context = make_context(4, worker)
    left = send_large([b"small", LARGE, b"", LARGE + b"!"], context)
    worker.close()
    reader.join()
    frontend.close()
    assert left == [b"small", b"", b"", b""]
    (sent,) = found
    assert sent.count(b"Prediction success") == 2
    assert sent.count(b"L") == 2 * LARGE_BYTES
    assert b"request-1" in sent and b"request-3" in sent
    assert b"request-0" not in sent and b"request-2" not in sent
    assert sent.count(b"ts_stream_next") == 2
    # What TorchServe makes of what is left: the ends of the two streams, and two whole answers.
    last = bytes(create_predict_response(left, context.request_ids, "Prediction success", 200, context))
    assert last.count(b"ts_stream_next") == last.count(b"false") == 2


@pytest.mark.parametrize("answers", [[LARGE], [b"small", b"small too"]])
def test_an_answer_alone_and_small_ones_stay_together(answers):
    frontend, worker = socket.socketpair()
    assert send_large(answers, make_context(len(answers), worker)) == answers
    worker.close()
    assert received(frontend) == b""
    frontend.close()


def test_without_a_connection_everything_is_returned():
    assert send_large([LARGE, LARGE], make_context(2)) == [LARGE, LARGE]
