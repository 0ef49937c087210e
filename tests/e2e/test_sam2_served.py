"""sam2 through a real TorchServe: clicks, boxes and corrections, and the embeddings that are kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from servers import ROOT, SCENE_SEED, Served, serving

from segserve import imaging
from segserve.client import Client
from segserve.errors import InvalidPromptError
from segserve.models.sam2 import ClickPrompt, Sam2, Target
from segserve.torchserve.profiles import cpu_count
from segserve.training.scenes import make_scene
from unit.models.sam2_checkpoints import save_sam2

CACHE_MB = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam2(tmp_path_factory.mktemp("sam2_weights"))


@pytest.fixture(scope="module")
def clicks(checkpoint: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The archive that the command makes of the checkpoint, and grounded_sam, each with one worker that takes up to
    four images at once."""
    command = [sys.executable, "-m", "segserve.cli", "archive", "sam2", "--weights", checkpoint, "--name", "clicks"]
    command += ["--out", store, "--set", f"embedding_cache_mb={CACHE_MB}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path_factory.mktemp("sam2_served")
    with serving(folder, store, models=("clicks", "grounded_sam"), workers=1, batch_size=4, batch_delay_ms=200) as it:
        yield it


@pytest.fixture
def client(clicks: Served) -> Iterator[Client]:
    with Client(clicks.url) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Sam2:
    return Sam2.from_folder(checkpoint, device="cpu")


def picture(index: int) -> imaging.Rgb:
    """A scene that no other test of this file uses under the same index."""
    return make_scene(SCENE_SEED + 100 + index, (120, 160)).image


def by_hand(served: Served, image: imaging.Rgb, prompt: dict[str, Any], model: str = "clicks") -> requests.Response:
    """POST to TorchServe itself, with its token: the gateway does not pass the cache's headers on."""
    form = {"image": imaging.encode(image), "prompt": (None, json.dumps(prompt))}
    url = f"{served.address.inference_url}/predictions/{model}"
    return requests.post(url, headers=served.token(), files=form, timeout=180)


def metric(served: Served, name: str, *labels: str) -> float:
    """A value of the gateway's metrics; 0 where it is not there yet."""
    for line in requests.get(f"{served.url}/metrics", timeout=30).text.splitlines():
        if line.startswith(f"{name}{{") and all(label in line for label in labels):
            return float(line.rpartition(" ")[2])
    return 0.0


def counted(served: Served, model: str) -> tuple[float, float]:
    """(hits, misses) of a model so far."""
    hits, misses = (
        metric(served, "segserve_embedding_cache_total", f'model="{model}"', f'outcome="{outcome}"')
        for outcome in ("hit", "miss")
    )
    return hits, misses


def test_clicks_and_boxes_give_the_predictors_masks(client: Client, predictor: Sam2) -> None:
    image = picture(0)
    for asked, targets in (
        ({"points": [(40, 60, 1)]}, [Target(((40.0, 60.0, 1),))]),
        ({"points": [(40, 60, 1), (90, 20, 0)]}, [Target(((40.0, 60.0, 1), (90.0, 20.0, 0)))]),
        ({"points": [(40, 60, 1)], "boxes": [(10, 20, 120, 100)]}, [Target(((40.0, 60.0, 1),), (10, 20, 120, 100))]),
        ({"boxes": [(10, 20, 120, 100), (5, 5, 60, 60)]}, [Target(box=(10, 20, 120, 100)), Target(box=(5, 5, 60, 60))]),
        ({"objects": [{"box": (5, 5, 60, 60), "points": [(9, 9, 0)]}]}, [Target(((9.0, 9.0, 0),), (5, 5, 60, 60))]),
    ):
        result = client.segment(image, model="clicks", **asked)
        (expected,) = predictor.predict([image], [ClickPrompt(tuple(targets))])
        assert expected.instances
        assert [(each.rle, each.object) for each in result.instances] == [
            (each.rle, each.object) for each in expected.instances
        ]


def test_the_second_prompt_on_a_picture_is_a_hit_for_whoever_asks(clicks: Served) -> None:
    image, other = picture(1), picture(2)
    answers = [
        by_hand(clicks, image, {"points": [[40, 60, 1]]}),
        by_hand(clicks, image, {"boxes": [[10, 20, 120, 100]]}),
        by_hand(clicks, other, {"points": [[40, 60, 1]]}),
        by_hand(clicks, image, {"points": [[40, 60, 1]]}),
    ]
    assert [answer.headers["X-Segserve-Cache"] for answer in answers] == ["miss", "hit", "miss", "hit"]
    assert answers[0].json() == answers[3].json()
    sizes = [int(answer.headers["X-Segserve-Cache-Bytes"]) for answer in answers]
    assert 0 < sizes[0] == sizes[1] < sizes[2] == sizes[3] <= CACHE_MB * 2**20


def test_a_batch_of_hits_misses_and_bad_items(clicks: Served, client: Client, predictor: Sam2) -> None:
    known, fresh = picture(3), picture(4)
    client.segment(known, model="clicks", points=[(40, 60, 1)])
    hits, misses = counted(clicks, "clicks")
    cases: list[tuple[imaging.Rgb, list[float]]] = [
        (known, [80, 30, 1]), (fresh, [80, 30, 1]), (known, [800, 30, 1]), (fresh, [20, 90, 1]),
    ]  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda case: by_hand(clicks, case[0], {"points": [case[1]]}), cases))
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200]
    assert "160 x 120" in answers[2].json()["error"]["message"]
    assert answers[0].headers["X-Segserve-Cache"] == "hit"
    assert sorted(answers[index].headers["X-Segserve-Cache"] for index in (1, 3)) == ["hit", "miss"]
    for answer, (image, (x, y, _)) in zip(answers, cases, strict=True):
        if answer.status_code == 200:
            (expected,) = predictor.predict([image], [ClickPrompt((Target(((x, y, 1),)),))])
            assert [each["mask"] for each in answer.json()["instances"]] == [each.rle for each in expected.instances]
    # Through TorchServe itself nothing reaches the gateway's metrics.
    assert counted(clicks, "clicks") == (hits, misses)


def test_metrics_count_hits_misses_and_bytes(clicks: Served, client: Client) -> None:
    hits, misses = counted(clicks, "clicks")
    for points in ([(40, 60, 1)], [(40, 60, 1), (90, 20, 0)], [(90, 20, 1)]):
        client.segment(picture(5), model="clicks", points=points)
    assert counted(clicks, "clicks") == (hits + 2, misses + 1)
    assert 0 < metric(clicks, "segserve_embedding_cache_bytes", 'model="clicks"') <= CACHE_MB * 2**20
    assert metric(clicks, "segserve_worker_seconds_count", 'model="clicks"', 'cache="hit"') >= 2


def test_text_prompts_on_one_picture_share_its_embedding(clicks: Served, client: Client) -> None:
    scene = make_scene(SCENE_SEED)
    hits, misses = counted(clicks, "grounded_sam")
    first = client.segment(scene.image, "floor.", model="grounded_sam")
    again = client.segment(scene.image, "floor.", model="grounded_sam")
    assert first.instances
    assert counted(clicks, "grounded_sam") == (hits + 1, misses + 1)
    assert [each.rle for each in again.instances] == [each.rle for each in first.instances]


def test_a_mask_is_corrected_with_its_logits(client: Client, predictor: Sam2) -> None:
    image = picture(6)
    (first,) = client.segment(image, model="clicks", points=[(40, 60, 1)], multimask=False, low_res=True).instances
    assert first.logits is not None
    corrected = client.segment(
        image, model="clicks", objects=[{"points": [(40, 60, 1), (90, 20, 0)], "mask": first.low_res}]
    )
    target = Target(((40.0, 60.0, 1), (90.0, 20.0, 0)), mask=first.logits)
    (expected,) = predictor.predict([image], [ClickPrompt((target,))])
    assert [each.rle for each in corrected.instances] == [each.rle for each in expected.instances]


def test_what_does_not_fit_is_said(client: Client) -> None:
    with pytest.raises(InvalidPromptError, match="outside the picture of 160 x 120"):
        client.segment(picture(7), model="clicks", points=[(161, 10, 1)])
    with pytest.raises(InvalidPromptError, match="objects"):
        client.segment(picture(7), model="clicks", points=[(1, 1, 1)], boxes=[(1, 1, 9, 9), (2, 2, 8, 8)])
    with pytest.raises(InvalidPromptError, match=r"needs prompt\.points"):
        client.segment(picture(7), model="clicks")


def test_predict_draws_what_was_clicked_on(clicks: Served, tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(imaging.encode(picture(8)))
    command = [sys.executable, "-m", "segserve.cli", "predict", "room.png", "--url", clicks.url, "--model", "clicks"]
    command += ["--point", "40,60", "--point", "90,20,0", "--out", "drawn"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"room\.png\W+object\W", done.stdout)
    drawn = imaging.decode((tmp_path / "drawn" / "room_overlay.png").read_bytes())
    assert drawn.shape == (120, 160, 3) and np.any(drawn != picture(8))


def test_the_worker_has_all_cores(clicks: Served) -> None:
    described = requests.get(f"{clicks.url}/v1/models/clicks", timeout=30).json()
    assert (described["kind"], described["ready"]) == ("sam2", True)
    url = f"{clicks.address.management_url}/models/clicks?customized=true"
    answer = requests.get(url, headers=clicks.token("management"), timeout=60).json()
    told = answer[0]["customizedMetadata"]
    assert (told["threads"], told["embedding_cache_mb"]) == (cpu_count(), CACHE_MB)
