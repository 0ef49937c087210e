"""``segserve evaluate semantic`` on scenes: in process, and through a small HTTP server."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from http_stand_in import Answer, Seen, StandIn

from segserve.cli import evaluate
from segserve.errors import InvalidRequestError
from segserve.imaging import decode
from segserve.label_maps import encode_png
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import read_scenes, write_scenes

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "semantic"


def run(*arguments: str, model: str = "semantic") -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    options = parser.parse_args(["evaluate", model, *arguments])
    return int(options.run(options))


def true_answers(folder: Path) -> Callable[[Seen], Answer]:
    """A server that answers with a scene's truth; its classes have another order."""
    scenes = list(read_scenes(folder))
    last = len(CATEGORIES) - 1

    def answer(seen: Seen) -> Answer:
        image = decode(dict(seen.parts())["image"])
        (scene,) = [scene for scene in scenes if np.array_equal(scene.image, image)]
        result = {
            "width": image.shape[1],
            "height": image.shape[0],
            "instances": [],
            "label_map": base64.b64encode(encode_png((last - scene.semantic).astype(np.uint8))).decode("ascii"),
            "classes": list(reversed(CATEGORIES)),
            "pixel_fraction": {},
        }
        return Answer(body={"model": "rooms", "version": "1.0", "results": [result], "timings_ms": {}})

    return answer


def test_the_demo_weights_are_scored_in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes", 600_000_740, 4)
    out = tmp_path / "metrics.json"
    assert run("--scenes", str(tmp_path / "scenes"), "--local", str(WEIGHTS), "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("in process", 4)
    assert report["commands"] == [
        "segserve scenes --seed 600000740 --count 4 --out SCENES",
        "segserve evaluate semantic --scenes SCENES",
    ]
    assert report["overall"]["mean_iou"] > 0.7 and report["overall"]["pixel_accuracy"] > 0.9
    assert list(report["by_category"]) == list(CATEGORIES)
    printed = capsys.readouterr().out
    assert "iou" in printed and f"{report['by_category']['floor']['iou']:.3f}" in printed


def test_answers_of_a_server_are_scored_by_the_names_of_its_classes(server: StandIn, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 600_000_750, 2)
    (tmp_path / "training.json").write_text('{"semantic": "segserve train …"}', "utf-8")
    server.answers = [true_answers(tmp_path / "scenes")]
    out = tmp_path / "metrics.json"
    options = ["--scenes", str(tmp_path / "scenes"), "--url", server.url, "--name", "rooms", "--engine", "onnx"]
    assert run(*options, "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("through the served path", 2)
    assert report["commands"][1] == "segserve evaluate semantic --scenes SCENES --engine onnx"
    assert report["trained_by"] == {"semantic": "segserve train …"}
    assert report["overall"]["mean_iou"] == report["overall"]["pixel_accuracy"] == 1.0
    request = json.loads(dict(server.seen[-1].parts())["request"])
    assert (request["model"], request["prompt"], request["parameters"]) == ("rooms", {}, {"engine": "onnx"})


def test_a_served_model_of_another_kind_is_refused(server: StandIn, tmp_path: Path) -> None:
    write_scenes(tmp_path, 600_000_750, 1, size=(96, 128))
    result = {"width": 128, "height": 96, "instances": []}
    server.answers = [Answer(body={"model": "sam", "version": "1.0", "results": [result], "timings_ms": {}})]
    with pytest.raises(InvalidRequestError, match="sam: expected a semantic model"):
        run("--scenes", str(tmp_path), "--url", server.url, "--name", "sam")


def test_an_engine_is_for_the_model_that_has_two(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="mask_rcnn has one engine only"):
        run("--scenes", str(tmp_path), "--engine", "onnx", model="mask_rcnn")


def test_the_committed_metrics_meet_the_goal_and_name_their_commands() -> None:
    report = json.loads((WEIGHTS / "metrics.json").read_text("utf-8"))
    assert report["scenes"] == 200 and report["asked"] == "through the served path"
    assert report["commands"][0] == "segserve scenes --seed 500000000 --count 200 --out SCENES"
    assert report["trained_by"] == json.loads((WEIGHTS / "training.json").read_text("utf-8"))
    assert report["overall"]["mean_iou"] >= 0.80
    assert min(figures["iou"] for figures in report["by_category"].values()) >= 0.65
