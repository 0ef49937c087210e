"""Records of the services that run on this machine: where commands find their TorchServe, its tokens, and a key.

Each ``segserve serve`` keeps one file, named after its port, in a folder that only its user can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from segserve.config import TorchServeAddress
from segserve.errors import NotFoundError


@dataclass(frozen=True)
class RunningService:
    """One ``segserve serve``.

    Attributes:
        pid: its process.
        url: of the gateway.
        address: of its TorchServe.
        key: opens what the admin key opens; None: of a version that had none.
    """

    pid: int
    port: int
    url: str
    address: TorchServeAddress
    key: str | None = field(default=None, repr=False)

    def write(self, folder: Path | None = None) -> Path:
        """Record it; returns the file."""
        folder = folder or runtime_folder()
        record = {
            "pid": self.pid,
            "port": self.port,
            "url": self.url,
            "inference_url": self.address.inference_url,
            "management_url": self.address.management_url,
            "metrics_url": self.address.metrics_url,
            "key_file": str(self.address.key_file) if self.address.key_file else None,
            "key": self.key,
        }
        file = folder / f"{self.port}.json"
        partial = folder / f".{self.port}.{self.pid}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(record, stream)
        partial.replace(file)
        return file

    def forget(self, folder: Path | None = None) -> None:
        """Remove the record, unless another service has taken its place."""
        folder = folder or runtime_folder()
        with contextlib.suppress(NotFoundError, OSError):
            if find_running(self.port, folder).pid == self.pid:
                (folder / f"{self.port}.json").unlink()


def find_running(port: int, folder: Path | None = None) -> RunningService:
    """The service whose gateway listens on a port of this machine.

    Raises:
        NotFoundError: this user runs none there.
    """
    file = (folder or runtime_folder()) / f"{port}.json"
    try:
        record = json.loads(file.read_text("utf-8"))
        os.kill(int(record["pid"]), 0)
        key_file = record["key_file"]
        address = TorchServeAddress(
            inference_url=str(record["inference_url"]),
            management_url=str(record["management_url"]),
            metrics_url=str(record["metrics_url"]),
            key_file=Path(key_file) if key_file else None,
        )
        return RunningService(int(record["pid"]), port, str(record["url"]), address, record.get("key"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFoundError(f"No segserve serve of yours runs on port {port} of this machine.") from error


def runtime_folder() -> Path:
    """The folder of the records: in XDG_RUNTIME_DIR, else in the temporary folder; created for this user alone.

    Raises:
        PermissionError: something of another user is in its place.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        folder = Path(base) / "segserve"
    else:
        folder = Path(tempfile.gettempdir()) / f"segserve-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not a folder of yours alone; remove it or set XDG_RUNTIME_DIR.")
    return folder
