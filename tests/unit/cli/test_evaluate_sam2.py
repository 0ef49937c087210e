"""``segserve evaluate sam2`` on scenes: in process with the demo weights, and through a small HTTP server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from http_stand_in import Answer, Seen, StandIn

from segserve import mask_logits, masks
from segserve.cli import evaluate
from segserve.imaging import decode
from segserve.training.scenes.files import read_scenes, write_scenes

WEIGHTS = Path(__file__).parents[3] / "weights" / "demo" / "sam2"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    options = parser.parse_args(["evaluate", "sam2", *arguments])
    return int(options.run(options))


def test_the_demo_weights_are_scored_in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes", 600_000_740, 3)
    out = tmp_path / "metrics.json"
    assert run("--scenes", str(tmp_path / "scenes"), "--local", str(WEIGHTS), "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("in process", 3)
    assert report["commands"] == [
        "segserve scenes --seed 600000740 --count 3 --out SCENES",
        "segserve evaluate sam2 --scenes SCENES",
    ]
    assert report["overall"]["click"] > 0.6 and report["overall"]["box"] > 0.7
    printed = capsys.readouterr().out
    assert f"{report['overall']['click']:.3f}" in printed


def knowing_server(folder: Path) -> Callable[[Seen], Answer]:
    """Answers boxes and corrected clicks with the truth, single clicks with the left part of the object."""
    scenes = list(read_scenes(folder))

    def answer(seen: Seen) -> Answer:
        parts = dict(seen.parts())
        request = json.loads(parts["request"])
        assert request["model"] == "clicks" and request["parameters"]["low_res"] is True
        image = decode(parts["image"])
        (scene,) = [scene for scene in scenes if np.array_equal(scene.image, image)]
        instances = []
        for index, asked in enumerate(request["prompt"]["objects"]):
            points = asked.get("points")
            if points is None:
                found = next(each.mask for each in scene.instances if list(each.box) == asked["box"])
            else:
                found = next(each.mask for each in scene.instances if each.mask[points[0][1], points[0][0]])
                if len(points) == 1:
                    found = found.copy()
                    found[:, np.nonzero(found)[1].max() :] = False
                elif "mask" in asked:
                    assert mask_logits.from_text(asked["mask"], "mask")[0, 0] == 2.0
            instances.append(
                {
                    "label": f"object {index + 1}",
                    "score": 0.5,
                    "box": masks.rle_bounding_box(masks.encode_rle(found)),
                    "area": int(found.sum()),
                    "mask": masks.encode_rle(found),
                    "object": index,
                    "low_res": mask_logits.to_text(np.full((4, 4), 2.0)),
                }
            )
        result = {"width": image.shape[1], "height": image.shape[0], "instances": instances[::-1]}
        return Answer(body={"model": "clicks", "version": "1.0", "results": [result], "timings_ms": {}})

    return answer


def test_answers_of_a_server_are_scored_by_their_objects(server: StandIn, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 600_000_750, 2, (96, 128))
    server.answers = [knowing_server(tmp_path / "scenes")]
    out = tmp_path / "metrics.json"
    options = ["--scenes", str(tmp_path / "scenes"), "--url", server.url, "--name", "clicks"]
    assert run(*options, "--out", str(out)) == 0
    report = json.loads(out.read_text("utf-8"))
    assert (report["asked"], report["scenes"]) == ("through the served path", 2)
    overall = report["overall"]
    assert overall["box"] == overall["second_click"] == overall["second_click_with_mask"] == 1.0
    assert 0.5 < overall["click"] < 1.0
