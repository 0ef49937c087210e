"""Stands in for docker: its "containers" are processes of this machine that run hosting_server.py.

An image's name says what is wrong with it. What it cannot show: real mounts, users, networks and capabilities; those
are tried with podman by ``make image-test``. Its state is in the folder that ENGINE_STATE names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SERVER = Path(__file__).with_name("hosting_server.py")
LABEL = "com.amazonaws.sagemaker.capabilities"
RIGHT = {
    "Entrypoint": ["serve-it"],
    "Labels": {f"{LABEL}.accept-bind-to-port": "true", f"{LABEL}.multi-models": "true"},
}
IMAGES = {
    "right": RIGHT,
    "shell": {**RIGHT, "Entrypoint": ["/bin/sh", "-c", "serve-it"]},
    "tini": {**RIGHT, "Entrypoint": ["/usr/bin/tini", "--", "serve-it"]},
    "no-entrypoint": {**RIGHT, "Entrypoint": None},
    "deaf": RIGHT,
    "other-labels": {**RIGHT, "Labels": {f"{LABEL}.multi-models": "false"}},
    "never-ready": RIGHT,
    "not-really-ready": RIGHT,
    "needs-privileges": RIGHT,
}
DEFECTS = {"never-ready": "never ready", "not-really-ready": "invocations fail"}


def value_of(options: list[str], name: str) -> list[str]:
    """The values of an option that may come several times."""
    return [options[index + 1] for index, word in enumerate(options) if word == name]


def run(state: Path, words: list[str]) -> str:
    """Start a container; prints its id."""
    options, image, command = words[:-2], words[-2], words[-1]
    assert command == "serve"
    _, outside, inside = value_of(options, "--publish")[0].split(":")
    environment = dict(pair.split("=", 1) for pair in value_of(options, "--env"))
    bound = environment.get("SAGEMAKER_BIND_TO_PORT", "8080") if image != "deaf" else "8080"
    # What listens on another port inside is not reached from outside.
    port = outside if bound == inside else "0"
    defect = DEFECTS.get(image, "")
    if image == "needs-privileges" and "--read-only" in options:
        defect = "never ready"
    number = str(len(list(state.glob("*.container"))))
    (state / f"{number}.container").write_text(json.dumps(words), "utf-8")
    script = f'"$@" & echo $! > {number}.pid; wait $!; echo $? > {number}.exit'
    subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-I", "-S", str(SERVER), port, defect, "0.5"],
        cwd=state,
        start_new_session=True,
        stdout=(state / f"{number}.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    return number


def ended(state: Path, number: str) -> bool:
    file = state / f"{number}.exit"
    return file.exists() and file.read_text("utf-8").strip() != ""


def process_of(state: Path, number: str) -> int:
    file = state / f"{number}.pid"
    while not (file.exists() and file.read_text("utf-8").strip()):
        time.sleep(0.01)
    return int(file.read_text("utf-8"))


def inspect(state: Path, number: str) -> str:
    over = ended(state, number)
    code = int((state / f"{number}.exit").read_text("utf-8")) if over else 0
    return json.dumps([{"State": {"Running": not over, "ExitCode": code}}])


def main(words: list[str]) -> None:
    """One command."""
    state = Path(os.environ["ENGINE_STATE"])
    match words:
        case ["run", "--detach", *rest]:
            print(run(state, rest))
        case ["kill", "--signal", "TERM", number]:
            os.kill(process_of(state, number), signal.SIGTERM)
        case ["wait", number]:
            while not ended(state, number):
                time.sleep(0.02)
        case ["container", "inspect", number]:
            print(inspect(state, number))
        case ["image", "inspect", image]:
            print(json.dumps([{"Config": IMAGES[image]}]))
        case ["logs", "--tail", _, number]:
            print((state / f"{number}.log").read_text("utf-8"))
        case ["rm", "--force", "--volumes", number]:
            if not ended(state, number):
                os.kill(process_of(state, number), signal.SIGKILL)
        case _:
            sys.exit(f"unknown: {words}")


if __name__ == "__main__":
    main(sys.argv[1:])
