"""``segserve models`` and ``segserve scale`` against a running service, and the renewal of tokens."""

from __future__ import annotations

import json
import subprocess
import sys

import requests
from servers import ADMIN_KEY, Served, multipart

from segserve.torchserve.management import Management, read_keys


def segserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "segserve.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_scaling_there_and_back(served: Served):
    """Up through the record of the running service, down through the gateway with the admin key."""
    up = segserve("scale", "grounded_sam", "--min", "2", "--port", str(served.port))
    assert (up.returncode, up.stdout.strip()) == (0, "grounded_sam: 2 workers ready"), up.stderr
    assert len(served.workers) == 2
    listed = segserve("models", "--url", served.url, "--json")
    (model,) = json.loads(listed.stdout)
    assert (model["name"], model["version"], model["batch_size"], model["device"]) == ("grounded_sam", "1.0", 4, "cpu")
    refused = segserve("scale", "grounded_sam", "--min", "1", "--url", served.url, "--admin-key", "wrong")
    assert refused.returncode == 1
    assert len(served.workers) == 2
    down = segserve("scale", "grounded_sam", "--min", "1", "--url", served.url, "--admin-key", ADMIN_KEY)
    assert (down.returncode, down.stdout.strip()) == (0, "grounded_sam: 1 workers ready"), down.stderr
    assert len(Management(served.address).describe("grounded_sam").workers) == 1


def test_the_table_of_models(served: Served):
    table = segserve("models", "--url", served.url)
    assert table.returncode == 0
    (row,) = [line for line in table.stdout.splitlines() if "grounded_sam" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["grounded_sam", "grounded_sam", "1.0", "yes"]


def test_mistakes_get_one_clear_line(served: Served):
    cases = [
        (("scale", "nothing", "--min", "1", "--port", str(served.port)), "nothing"),
        (("scale", "grounded_sam", "--min", "3", "--max", "2", "--port", str(served.port)), "min"),
        (("scale", "grounded_sam", "--min", "1", "--port", "9"), "port 9"),
        (("models", "--url", "http://127.0.0.1:9"), "segserve serve"),
    ]
    for arguments, named in cases:
        done = segserve(*arguments)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert named in line
        assert line.startswith(f"segserve {arguments[0]}: ")


def test_the_gateway_outlives_a_token(served: Served, scene_png: bytes):
    """A renewed token voids the one that the gateway has been using."""
    request = {"model": "grounded_sam", "prompt": {"text": "floor."}}
    form = {"request": (None, json.dumps(request), "application/json"), "image": ("scene.png", scene_png)}
    assert requests.post(f"{served.url}/v1/segment", files=form, timeout=120).status_code == 200
    before = read_keys(served.address)
    Management(served.address).renew_token("inference")
    Management(served.address).renew_token("management")
    after = read_keys(served.address)
    assert all(before[kind]["key"] != after[kind]["key"] for kind in ("inference", "management"))
    old = {"Authorization": f"Bearer {before['inference']['key']}"}
    url = f"{served.address.inference_url}/predictions/grounded_sam"
    assert requests.post(url, headers=old, files=multipart(scene_png, "floor."), timeout=60).status_code == 400
    answer = requests.post(f"{served.url}/v1/segment", files=form, timeout=120)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["instances"]
    assert requests.get(f"{served.url}/readyz", timeout=10).status_code == 200
