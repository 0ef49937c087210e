"""``segserve models`` and ``segserve scale`` against a running service, and the renewal of tokens."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
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


def put(served: Served, query: str) -> dict[str, Any]:
    """Scale through the gateway; what it then says of the model."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    answer = requests.put(f"{served.url}/v1/models/grounded_sam?{query}", headers=headers, timeout=300)
    assert answer.status_code == 200, answer.text
    described: dict[str, Any] = answer.json()
    return described


def ask(served: Served, scene_png: bytes) -> requests.Response:
    headers = {"Content-Type": "image/png"}
    return requests.post(f"{served.url}/v1/segment?text=sofa.", data=scene_png, headers=headers, timeout=120)


def none_left(served: Served) -> None:
    """Wait until no worker process runs; they are killed by then, but a busy machine may take a moment over it."""
    deadline = time.monotonic() + 30
    while served.workers and time.monotonic() < deadline:
        time.sleep(0.1)
    assert served.workers == []


@pytest.mark.parametrize("down", ["min_workers=0&max_workers=1", "min_workers=0", "segserve scale"])
def test_scaling_to_none_leaves_no_process(served: Served, scene_png: bytes, down: str):
    """Counted are the processes, not what TorchServe lists: it used to forget workers that went on running."""
    before = served.workers
    assert len(before) == 1
    if down == "segserve scale":
        done = segserve("scale", "grounded_sam", "--min", "0", "--max", "2", "--port", str(served.port))
        assert (done.returncode, done.stdout.strip()) == (0, "grounded_sam: 0 workers ready"), done.stderr
    else:
        described = put(served, down)
        assert (described["workers"], described["ready"]) == (0, False)
    none_left(served)
    assert not before[0].is_running()
    started = time.monotonic()
    answer = ask(served, scene_png)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert "no worker" in answer.json()["error"]["message"]
    assert time.monotonic() - started < 30
    # Nothing more to end.
    assert put(served, "min_workers=0")["workers"] == 0
    assert put(served, "min_workers=1")["ready_workers"] == 1
    assert len(served.workers) == 1
    assert ask(served, scene_png).status_code == 200


def test_what_is_at_work_is_answered_before_the_workers_end(served: Served, scene_png: bytes):
    """Twelve requests, of which a worker takes four at once: none is left in the queue until it times out."""
    with ThreadPoolExecutor(13) as pool:
        asked = [pool.submit(ask, served, scene_png) for _ in range(12)]
        while not any(each.done() for each in asked):
            time.sleep(0.05)
        assert put(served, "min_workers=0")["workers"] == 0
        statuses = [each.result().status_code for each in asked]
    none_left(served)
    assert put(served, "min_workers=1")["ready_workers"] == 1
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 5


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
