"""The parts of ``segserve serve`` that need no TorchServe."""

import signal
import socket
from types import SimpleNamespace

import pytest

from segserve.cli.serving import Stopping, listening_socket, load_failures
from segserve.errors import InvalidRequestError

LOG = """\
2026-11-20T12:56:58,229 INFO  W-9000-m-stdout MODEL_LOG - Torch worker started.
2026-11-20T12:56:58,229 INFO  W-9000-m-stdout MODEL_LOG - m cannot be loaded: sam has no *.safetensors file.
2026-11-20T12:56:59,229 INFO  W-9001-m-stdout MODEL_LOG - m cannot be loaded: sam has no *.safetensors file.
2026-11-20T12:57:58,229 INFO  W-9001-n-stdout MODEL_LOG - n cannot be loaded: another reason
2026-11-20T12:57:58,230 INFO  W-9001-n-stdout MODEL_LOG - NotFoundError: the checkpoint cannot be loaded: x
"""


def test_each_failure_to_load_is_told_once(tmp_path):
    assert load_failures(tmp_path / "none", ["m"]) == []
    (tmp_path / "log").write_text(LOG)
    assert load_failures(tmp_path / "log", ["n"]) == ["n cannot be loaded: another reason"]
    assert load_failures(tmp_path / "log", []) == []
    found = load_failures(tmp_path / "log", ["m", "n"])
    assert found == ["m cannot be loaded: sam has no *.safetensors file.", "n cannot be loaded: another reason"]


def test_the_socket_accepts_before_anyone_serves():
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        taken = pytest.raises(InvalidRequestError, match=f"Port {port} is in use")
        with taken, listening_socket("127.0.0.1", port):
            pass
    with listening_socket("127.0.0.1", port):
        pass


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(InvalidRequestError, match=r"192\.0\.2\.1"), listening_socket("192.0.2.1", 0):
        pass


def test_a_signal_before_the_gateway_runs_leaves_at_once():
    stopping = Stopping()
    with pytest.raises(KeyboardInterrupt):
        stopping.on_signal(signal.SIGTERM, None)
    assert stopping.by_signal


def test_a_signal_while_it_runs_lets_the_gateway_finish():
    stopping = Stopping(server=SimpleNamespace(should_exit=False))
    stopping.on_signal(signal.SIGINT, None)
    assert stopping.server.should_exit
    assert stopping.by_signal
    assert not stopping.by_death


def test_a_signal_while_closing_does_not_disturb_it():
    stopping = Stopping(closing=True)
    stopping.on_signal(signal.SIGINT, None)
    assert stopping.by_signal


def test_the_death_of_torchserve_ends_the_gateway():
    stopping = Stopping(server=SimpleNamespace(should_exit=False))
    stopping.on_death()
    assert stopping.server.should_exit
    assert stopping.by_death
    assert not stopping.by_signal
