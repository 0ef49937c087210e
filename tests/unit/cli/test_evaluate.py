"""``segserve evaluate`` on one or two scenes: in process, and through a small HTTP server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from http_stand_in import Answer, Seen, StandIn

from segserve.cli import evaluate
from segserve.errors import InvalidRequestError
from segserve.imaging import decode
from segserve.masks import encode_rle
from segserve.models.mask_rcnn.architecture import Architecture, BoxHeadShape, InputShape, MaskHeadShape, ResNetShape
from segserve.models.mask_rcnn.checkpoint import save_checkpoint
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import read_scenes, write_scenes

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "grounded_sam"


def run(*arguments: str, model: str = "grounded_sam") -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    options = parser.parse_args(["evaluate", model, *arguments])
    return int(options.run(options))


def test_metrics_are_printed_and_written_with_the_commands_that_give_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes", 600_000_700, 2)
    (tmp_path / "training.json").write_text('{"detector": "segserve train …"}', "utf-8")
    out = tmp_path / "metrics.json"
    assert run("--scenes", str(tmp_path / "scenes"), "--local", str(WEIGHTS), "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert report["scenes"] == 2 and report["asked"] == "in process"
    assert report["commands"][0] == "segserve scenes --seed 600000700 --count 2 --out SCENES"
    assert report["trained_by"] == {"detector": "segserve train …"}
    assert report["overall"]["recall"] > 0.8 and report["overall"]["mean_mask_iou"] > 0.8
    printed = capsys.readouterr().out
    assert "floor" in printed and f"{report['overall']['recall']:.3f}" in printed


def true_answers(folder: Path) -> Callable[[Seen], Answer]:
    """A server of mask_rcnn, served as rooms, that answers with a scene's truth."""
    scenes = list(read_scenes(folder))

    def answer(seen: Seen) -> Answer:
        if seen.path == "/v1/models":
            return Answer(body={"models": [{"name": "rooms", "kind": "mask_rcnn", "classes": list(CATEGORIES)}]})
        image = decode(dict(seen.parts())["image"])
        (scene,) = [scene for scene in scenes if np.array_equal(scene.image, image)]
        instances = [
            {
                "label": thing.category,
                "score": 0.5,
                "box": list(thing.box),
                "area": int(thing.mask.sum()),
                "mask": encode_rle(thing.mask),
            }
            for thing in scene.instances
        ]
        result = {"width": image.shape[1], "height": image.shape[0], "instances": instances}
        return Answer(body={"model": "rooms", "version": "1.0", "results": [result], "timings_ms": {}})

    return answer


def test_mask_rcnn_is_scored_through_the_served_path(
    server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes", 600_000_710, 2)
    (tmp_path / "training.json").write_text('{"mask_rcnn": "segserve train …"}', "utf-8")
    server.answers = [true_answers(tmp_path / "scenes")]
    out = tmp_path / "metrics.json"
    options = ["--scenes", str(tmp_path / "scenes"), "--url", server.url, "--name", "rooms", "--out", str(out)]
    assert run(*options, model="mask_rcnn") == 0
    report = json.loads(out.read_text("utf-8"))
    assert report["commands"] == [
        "segserve scenes --seed 600000710 --count 2 --out SCENES",
        "segserve evaluate mask_rcnn --scenes SCENES",
    ]
    assert report["trained_by"] == {"mask_rcnn": "segserve train …"}
    assert (report["asked"], report["scenes"]) == ("through the served path", 2)
    assert report["overall"]["mask_ap"] == report["overall"]["mask_ap50"] == report["overall"]["box_ap50"] == 1.0
    assert report["by_category"]["floor"]["instances"] == 2
    request = json.loads(dict(server.seen[-1].parts())["request"])
    assert (request["model"], request["prompt"]) == ("rooms", {})
    assert request["parameters"] == {"score_threshold": 0.05, "max_instances": 100}
    printed = capsys.readouterr().out
    assert "mask AP50" in printed and "floor" in printed and "1.000" in printed


def test_mask_rcnn_in_process_is_asked_for_doubtful_answers_too(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 600_000_720, 1, size=(96, 128))
    head = BoxHeadShape(layer_channels=16, score_threshold=0.9)
    shape = Architecture(
        classes=tuple(CATEGORIES),
        backbone=ResNetShape(18, stem_channels=8, res2_channels=8, norm="BN"),
        pyramid_channels=8,
        input=InputShape(min_size=96, max_size=128),
        box_head=head,
        mask_head=MaskHeadShape(convolutions=1, conv_channels=8),
    )
    save_checkpoint(tmp_path / "weights", MaskRcnnNetwork(shape))
    options = ["--scenes", str(tmp_path / "scenes"), "--local", str(tmp_path / "weights")]
    out = tmp_path / "metrics.json"
    assert run(*options, "--out", str(out), model="mask_rcnn") == 0
    report = json.loads(out.read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("in process", 1)
    assert 0 <= report["overall"]["mask_ap50"] < 0.3
    assert "trained_by" not in report


def test_mask_rcnn_of_other_classes_is_refused(server: StandIn, tmp_path: Path) -> None:
    write_scenes(tmp_path, 600_000_720, 1, size=(96, 128))
    server.answers = [Answer(body={"models": [{"name": "mask_rcnn", "kind": "mask_rcnn", "classes": ["balloon"]}]})]
    with pytest.raises(InvalidRequestError, match="none of the pictures' classes"):
        run("--scenes", str(tmp_path), "--url", server.url, model="mask_rcnn")
    assert [seen.path for seen in server.seen] == ["/v1/models"]


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no scenes"):
        run("--scenes", str(tmp_path), "--local", str(WEIGHTS))


def test_the_committed_metrics_meet_the_goals_and_name_their_commands() -> None:
    report = json.loads((WEIGHTS / "metrics.json").read_text("utf-8"))
    assert report["scenes"] == 200 and report["asked"] == "through the served path"
    assert set(report["trained_by"]) == {"detector", "segmenter"}
    for figures in (report["overall"], *report["by_question"].values()):
        assert min(figures["recall"], figures["precision"]) >= 0.85
        assert figures["absent_silent"] >= 0.95 and figures["mean_mask_iou"] >= 0.80
