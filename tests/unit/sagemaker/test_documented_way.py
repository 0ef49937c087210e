"""docs/sagemaker.md, followed from top to bottom without an AWS account.

The scripts run with --dry-run, segserve's own packing for real. A dry run checks each call against AWS's description of
the service; that AWS would carry it out is not shown.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segserve.cli import build_parser, main
from segserve.conformance.kit import CHECKS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "sagemaker.md").read_text("utf-8")
SCRIPTS = ("build_and_push", "deploy", "invoke", "autoscale", "transform", "stack", "teardown")
ELSEWHERE = ("pip", "curl", "segserve serve", "segserve conform")
"""Begin the commands that need a network, a container or a running service; other tests have them."""


def commands() -> list[str]:
    """The page's commands in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_whole_way(no_aws: None, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "src" / "segserve" / "gateway" / "static" / "scenes" / "sofa.jpg", "room.jpg")
    ran: set[str] = set()
    for command in commands():
        words = shlex.split(command)
        if words[0] == "python":
            script = Path(words[1]).stem
            done = run(script, *words[2:], "--dry-run")
            assert done.status == 0, f"{command}\n{done.err}"
            assert "dry run" in done.out, command
            ran.add(script)
        elif words[0].endswith(".sh"):
            shell(ROOT / words[0], *words[1:], "--dry-run")
            ran.add(Path(words[0]).stem)
        elif command.startswith(("segserve archive", "segserve package-sagemaker")):
            assert main(words[1:]) == 0, command
            ran.add(words[1])
        else:
            while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            assert " ".join(words).startswith(ELSEWHERE), command
            if words[0] == "segserve":
                build_parser().parse_args(words[1:])
    assert ran >= {*SCRIPTS, "archive", "package-sagemaker"}
    assert {path.name for path in Path("packages").iterdir()} == {"mask_rcnn.tar.gz"}


def shell(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "docker" in done.stdout or "podman" in done.stdout


def test_the_functions_variables_are_those_that_it_reads() -> None:
    settings = (ROOT / "sagemaker" / "lambda" / "segserve_api" / "settings.py").read_text("utf-8")
    read = set(re.findall(r'environ(?:\.get\(|, )"([A-Z_]+)"', settings))
    table = PAGE.split("| variable of the function |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)) == read


def test_the_functions_routes_are_the_gateways() -> None:
    from segserve_api.routes import INVOCATIONS, attributes_for, is_known

    from segserve.gateway.attribute_route import ROUTES

    table = PAGE.split("### Routes")[1].split("### Limits")[0].split("| `GET /` and")[0]
    documented = set(re.findall(r"`((?:GET|POST) /[\w/{}.]*)`", table)) - {f"POST {INVOCATIONS}"}
    assert documented == set(ROUTES)
    for route in ROUTES:
        method, path = route.replace("{name}", "mask_rcnn").split(" ")
        assert is_known(path)
        assert attributes_for(method, path, "", "") == f"route={method}%20{path}"


def test_the_conformance_table_has_every_check_and_none_has_failed() -> None:
    rows = re.findall(r"^\| ([A-Z]+-\d+) \|.*\| (pass|–|\*\*fail\*\*) \|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [check.id for check in CHECKS]
    assert {verdict for _, verdict in rows} == {"pass", "–"}
