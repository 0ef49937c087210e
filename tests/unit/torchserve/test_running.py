"""Records of running services."""

import os
import stat
from pathlib import Path

import pytest

from segserve.config import TorchServeAddress
from segserve.errors import NotFoundError
from segserve.torchserve.running import RunningService, find_running, runtime_folder

ADDRESS = TorchServeAddress("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", Path("/keys.json"))


def service(pid=None, port=8080):
    return RunningService(pid or os.getpid(), port, f"http://127.0.0.1:{port}", ADDRESS)


@pytest.mark.parametrize(("key_file", "key"), [(Path("/keys.json"), "secret"), (None, None)])
def test_a_record_is_found_by_its_port_and_private(tmp_path, key_file, key):
    address = TorchServeAddress("a", "b", "c", key_file)
    written = RunningService(os.getpid(), 8080, "http://h:8080", address, key)
    assert "secret" not in repr(written)
    file = written.write(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert find_running(8080, tmp_path) == written
    assert [each.name for each in tmp_path.iterdir()] == ["8080.json"]


def test_what_does_not_run_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="8080"):
        find_running(8080, tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    service(pid=child).write(tmp_path)
    with pytest.raises(NotFoundError):
        find_running(8080, tmp_path)
    (tmp_path / "8081.json").write_text("{}")
    with pytest.raises(NotFoundError):
        find_running(8081, tmp_path)


def test_a_record_is_removed_by_its_own_service_only(tmp_path):
    service(pid=os.getppid()).write(tmp_path)
    service().forget(tmp_path)
    assert find_running(8080, tmp_path).pid == os.getppid()
    service().write(tmp_path)
    service().forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
    service().forget(tmp_path)


def test_the_folder_is_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = runtime_folder()
    assert folder == tmp_path / "segserve"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="yours alone"):
        runtime_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        runtime_folder()
