"""What a build needs from this machine: the base image, where pip finds packages, and whose certificates it trusts.

Nothing of it is written into the image or into the repository; all is found out at run time.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import requests
from engine import Engine, EngineError

DEFAULT_BASE = "docker.io/library/debian:bookworm-slim"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

_INDEXES = ("index-url", "extra-index-url", "find-links")
_PLAIN = ("trusted-host", "default-timeout")
_BUNDLE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_HOME = "/root"
"""Of the build's user, where pip looks too. It is there already: whatever else is mounted on leaves an empty file or
folder in the image."""


def provide_base(engine: Engine, base: str, folder: Path) -> None:
    """Have the base image here: as it is, from its registry, or made of Debian's packages where no registry answers.

    Raises:
        EngineError: none of these works; says what to install.
    """
    if engine.has(base):
        return
    try:
        engine("pull", base, timeout_s=300)
    except (EngineError, subprocess.TimeoutExpired) as error:
        if base != DEFAULT_BASE:
            raise
        if os.getuid() != 0 or not shutil.which("debootstrap"):
            raise EngineError(
                f"{base} cannot be pulled, and only root with debootstrap can make it here (apt-get install "
                f"debootstrap): {error}"
            ) from error
        _bootstrap(engine, base, folder / "rootfs")


def _bootstrap(engine: Engine, base: str, rootfs: Path) -> None:
    shutil.rmtree(rootfs, ignore_errors=True)
    try:
        command = ["debootstrap", "--variant=minbase", "bookworm", str(rootfs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(f"debootstrap failed: {done.stdout[-2000:]}")
        with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as packing:
            subprocess.run([engine.name, "import", "-", base], stdin=packing.stdout, capture_output=True, check=True)
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)


def torch_index() -> str:
    """What TORCH_INDEX says, else the index of CPU wheels where it answers, else none: PyPI's, built for CUDA."""
    named = os.environ.get("TORCH_INDEX")
    if named is not None:
        return named
    try:
        answer = requests.head(f"{CPU_WHEELS}/torch/", timeout=10, allow_redirects=True)
    except requests.RequestException:
        return ""
    return CPU_WHEELS if answer.ok else ""


def pip_options(engine: Engine, folder: Path) -> list[str]:
    """Build options that give pip within the build this machine's indexes and certificates.

    Only podman can mount into a build; Docker's machines are taken to need nothing of it. Indexes that are folders of
    this machine are left out. folder: gets what is mounted; the addresses of indexes may hold passwords, so only this
    user can read it.
    """
    if not engine.is_podman:
        return []
    lent = folder / "lent-to-pip"
    configuration = lent / ".config" / "pip" / "pip.conf"
    lent.mkdir(mode=0o700, exist_ok=True)
    configuration.parent.mkdir(parents=True, exist_ok=True)
    settings = _pip_settings()
    lines = ["[global]"]
    bundle = _certificates(settings)
    if bundle is not None:
        shutil.copyfile(bundle, lent / "certificates.pem")
        lines.append(f"cert = {_HOME}/certificates.pem")
    for option in _INDEXES:
        remote = [word for word in settings.get(option, "").split() if word.startswith(("http://", "https://"))]
        if remote:
            lines.append(f"{option} = {' '.join(remote)}")
    lines += [f"{option} = {settings[option]}" for option in _PLAIN if option in settings]
    configuration.write_text("\n".join(lines) + "\n", "utf-8")
    return ["--volume", f"{lent}:{_HOME}:ro"]


def _pip_settings() -> dict[str, str]:
    """pip's configuration by option: that of its files, and that of the environment, which comes first."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for place in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            if line.startswith(place) and "=" in line:
                name, _, value = line.removeprefix(place).partition("=")
                found[name] = str(ast.literal_eval(value))
    return found


def _certificates(settings: dict[str, str]) -> Path | None:
    named: Sequence[str | None] = (settings.get("cert"), *(os.environ.get(name) for name in _BUNDLE_VARIABLES))
    return next((Path(name) for name in named if name and Path(name).is_file()), None)
