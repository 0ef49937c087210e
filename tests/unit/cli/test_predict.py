"""``segserve predict``: its table, JSON, overlays and failures, against a small HTTP server."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from http_stand_in import Answer, Seen, StandIn

from segserve.cli import main
from segserve.imaging import decode, encode
from segserve.label_maps import decode_png, encode_png
from segserve.mask_logits import from_text
from segserve.masks import decode_rle, encode_rle
from segserve.models.mask_rcnn.detectron2_checkpoint import convert
from segserve.models.sam2 import ClickPrompt, Sam2, Target
from segserve.models.semantic import Semantic, SemanticConfig, SemanticParameters
from segserve.models.semantic.architecture import build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from unit.models.sam2_checkpoints import save_sam2

DETECTRON2 = Path(__file__).parents[2] / "data" / "detectron2"
MASK = np.zeros((60, 80), dtype=bool)
MASK[10:40, 20:70] = True
FOUND = {"label": "sofa", "score": 0.914, "box": [20, 10, 70, 40], "area": 1500, "mask": encode_rle(MASK)}
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def answer(*instances: dict[str, Any]) -> Answer:
    result = {"width": 80, "height": 60, "instances": list(instances)}
    return Answer(body={"model": "grounded_sam", "version": "1.0", "results": [result], "timings_ms": {}})


def error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}})


def files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(PICTURE))
    return [str(folder / name) for name in names]


def request_of(seen: Seen) -> dict[str, Any]:
    return dict(json.loads(seen.parts()[0][1]))


def test_table_and_overlays(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [answer(FOUND), answer()]
    images = files(tmp_path, "a.png", "b.png")
    assert main(["predict", *images, "--text", "sofa.", "--out", str(tmp_path / "out"), "--url", server.url]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "sofa" in line)
    assert all(part in row for part in ("a.png", "0.91", "20 10 70 40", "31.2"))
    assert "nothing found" in next(line for line in printed.splitlines() if "b.png" in line)
    drawn = decode((tmp_path / "out" / "a_overlay.png").read_bytes())
    assert drawn.shape == PICTURE.shape and (drawn != PICTURE)[MASK].any()
    assert np.array_equal(decode((tmp_path / "out" / "b_overlay.png").read_bytes()), PICTURE)
    assert [request_of(seen)["prompt"] for seen in server.seen] == [{"text": "sofa."}] * 2


def test_json(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [answer(FOUND)]
    (image,) = files(tmp_path, "a.png")
    assert main(["predict", image, "--text", "sofa.", "--json", "--url", server.url]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["image"], shown["width"], shown["height"]) == (image, 80, 60)
    (found,) = shown["instances"]
    assert {key: found[key] for key in ("label", "score", "box", "area")} == {
        "label": "sofa",
        "score": 0.914,
        "box": [20, 10, 70, 40],
        "area": 1500,
    }
    assert np.array_equal(decode_rle(found["mask"]), MASK)
    assert "overlay" not in shown


def test_options_become_the_request(server: StandIn, tmp_path: Path) -> None:
    server.answers = [answer()]
    (image,) = files(tmp_path, "a.png")
    options = "--model sam2 --point 1,2 --point 3.5,4,0 --box 0,1,20,30 --box-threshold 0.4 --text-threshold 0.2"
    more = "--nms-iou 0.5 --nms-across-phrases --max-instances 7 --refine polygon --api-key secret"
    of_clicks = ["--no-multimask", "--low-res"]
    assert main(["predict", image, "--url", server.url, *options.split(), *more.split(), *of_clicks]) == 0
    request = request_of(server.seen[0])
    assert request["model"] == "sam2"
    assert request["prompt"] == {"points": [[1, 2, 1], [3.5, 4, 0]], "boxes": [[0, 1, 20, 30]]}
    assert request["parameters"] == {
        "box_threshold": 0.4,
        "text_threshold": 0.2,
        "nms_iou": 0.5,
        "nms_across_phrases": True,
        "max_instances": 7,
        "refine": "polygon",
        "multimask": False,
        "low_res": True,
    }
    assert server.seen[0].headers["x-api-key"] == "secret"


def test_refine_alone_is_true(server: StandIn, tmp_path: Path) -> None:
    server.answers = [answer()]
    (image,) = files(tmp_path, "a.png")
    assert main(["predict", image, "--text", "sofa.", "--url", server.url, "--refine"]) == 0
    assert request_of(server.seen[0])["parameters"] == {"refine": True}


def test_a_bad_image_does_not_stop_the_others(
    server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [error(415, "not_an_image", "begins with text"), answer(FOUND)]
    images = files(tmp_path, "bad.png", "good.png")
    missing = str(tmp_path / "missing.png")
    assert main(["predict", missing, *images, "--text", "sofa.", "--json", "--url", server.url]) == 1
    captured = capsys.readouterr()
    assert [shown["image"] for shown in json.loads(captured.out)] == [images[1]]
    assert "bad.png: begins with text" in captured.err
    assert "missing.png" in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (404, "model_not_found"), (422, "invalid_prompt")])
def test_what_is_wrong_for_every_image_is_said_once(
    server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, code: str
) -> None:
    server.answers = [error(status, code, f"about {code}")]
    images = files(tmp_path, "a.png", "b.png")
    assert main(["predict", *images, "--text", "sofa.", "--url", server.url]) == 1
    assert f"segserve predict: about {code}" in capsys.readouterr().err
    assert len(server.seen) == 1


def test_no_server_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = files(tmp_path, "a.png")
    assert main(["predict", image, "--text", "sofa.", "--url", "http://127.0.0.1:9"]) == 1
    error_lines = capsys.readouterr().err.strip().splitlines()
    assert error_lines[-1].startswith("segserve predict: No segserve answers at http://127.0.0.1:9")


def test_overlays_of_one_name_do_not_overwrite_each_other(server: StandIn, tmp_path: Path) -> None:
    server.answers = [answer(FOUND)]
    images = files(tmp_path, "x/room.png", "y/room.png")
    assert main(["predict", *images, "--text", "sofa.", "--out", str(tmp_path / "out"), "--url", server.url]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["room_2_overlay.png", "room_overlay.png"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--point", "1"],
        ["--point", "1,2,3"],
        ["--point", "a,b"],
        ["--box", "1,2,3"],
        ["--refine", "circle"],
        ["--max-instances", "many"],
        ["--engine", "tflite"],
        ["--size", "512"],
    ],
)
def test_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["predict", "a.png", *wrong])
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_local_refuses_what_it_cannot_run_before_it_loads_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = files(tmp_path, "a.png")
    for options, said in (
        (["--model", "photos", "--text", "sofa."], "mask_rcnn, semantic, sam2 only; ask a server for photos"),
        (["--model", "sam2", "--text", "sofa."], "takes points, boxes and objects"),
        (["--model", "sam2"], "needs prompt.points"),
        (["--model", "sam2", "--point", "1,2", "--box", "1,1,9,9", "--box", "2,2,8,8"], "prompt.points"),
        (["--text", " . "], "at least one phrase"),
        (["--text", "sofa.", "--box-threshold", "2"], "parameters.box_threshold"),
        (["--text", "sofa.", "--point", "1,2"], "prompt.points"),
        (["--text", "sofa.", "--weights", str(tmp_path / "none")], "none"),
        (["--text", "sofa.", "--score-threshold", "0.5"], "parameters.score_threshold"),
        (["--model", "mask_rcnn", "--text", "sofa."], "takes no prompt"),
        (["--model", "mask_rcnn", "--box-threshold", "0.5"], "parameters.box_threshold"),
        (["--model", "mask_rcnn", "--weights", str(tmp_path / "none")], "none"),
        (["--model", "mask_rcnn", "--engine", "onnx"], "parameters.engine"),
        (["--model", "semantic", "--text", "sofa."], "takes no prompt"),
        (["--model", "semantic", "--refine"], "parameters.refine"),
    ):
        assert main(["predict", image, "--local", *options]) == 1
        assert said in capsys.readouterr().err


def test_a_model_of_fixed_classes_needs_no_text(server: StandIn, tmp_path: Path) -> None:
    server.answers = [answer(FOUND)]
    (image,) = files(tmp_path, "a.png")
    asked = ["--model", "balloons", "--score-threshold", "0.25", "--max-instances", "5"]
    assert main(["predict", image, *asked, "--url", server.url]) == 0
    request = request_of(server.seen[0])
    assert (request["model"], request["prompt"]) == ("balloons", {})
    assert request["parameters"] == {"score_threshold": 0.25, "max_instances": 5}


def test_without_a_model_the_server_chooses(server: StandIn, tmp_path: Path) -> None:
    server.answers = [answer(FOUND)]
    (image,) = files(tmp_path, "a.png")
    assert main(["predict", image, "--url", server.url]) == 0
    assert "model" not in request_of(server.seen[0])


def test_mask_rcnn_runs_locally(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = json.loads((DETECTRON2 / "expected.json").read_text("utf-8"))
    convert(DETECTRON2 / "model_final.pth", DETECTRON2 / "config.yaml", golden["classes"], tmp_path)
    picture = golden["images"][0]
    image = str(DETECTRON2 / "images" / picture["image"])
    options = ["--local", "--model", "mask_rcnn", "--weights", str(tmp_path), "--score-threshold", "0.05", "--json"]
    assert main(["predict", image, *options]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert len(shown["instances"]) == len(picture["instances"]) > 0
    for found, wanted in zip(shown["instances"], picture["instances"], strict=True):
        assert found["label"] == golden["classes"][wanted["category_id"]]
        assert found["score"] == pytest.approx(wanted["score"], abs=2e-3)
        assert found["box"] == pytest.approx(wanted["box"], abs=0.2)


LABELS = np.zeros((60, 80), dtype=np.uint8)
LABELS[:15] = 2
CLASSES = ["floor", "door", "wall"]
CLASSIFIED = {
    "width": 80,
    "height": 60,
    "classes": CLASSES,
    "label_map": base64.b64encode(encode_png(LABELS)).decode("ascii"),
    "pixel_fraction": {"wall": 0.25, "floor": 0.75},
}


def test_classes_are_listed_by_share_and_drawn_with_a_legend(
    server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [Answer(body={"model": "semantic", "version": "1.0", "results": [CLASSIFIED], "timings_ms": {}})]
    images = files(tmp_path, "a.png", "b.png")
    options = ["--model", "semantic", "--engine", "onnx", "--size", "model", "--out", str(tmp_path / "out")]
    assert main(["predict", *images, *options, "--url", server.url]) == 0
    printed = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in printed.splitlines() if "%" in line]
    floor, wall = ["■", "floor", "75.0", "%"], ["■", "wall", "25.0", "%"]
    assert rows == [["a.png", *floor], wall, ["b.png", *floor], wall]
    assert "score" not in printed and "b_overlay.png" in printed
    assert request_of(server.seen[0])["parameters"] == {"engine": "onnx", "size": "model"}
    drawn = decode((tmp_path / "out" / "a_overlay.png").read_bytes())
    assert drawn.shape[0] > 60 and drawn.shape[1:] == (80, 3)
    assert (drawn[20:60] != PICTURE[20:]).any() and (drawn[:15] != PICTURE[:15]).any()


def test_classes_as_json(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = {"model": "?", "version": "1.0", "timings_ms": {}}
    server.answers = [Answer(body={**mixed, "results": [CLASSIFIED]}), answer(FOUND)]
    images = files(tmp_path, "a.png", "b.png")
    assert main(["predict", *images, "--json", "--url", server.url]) == 0
    classified, found = json.loads(capsys.readouterr().out)
    assert classified == {"image": images[0], **CLASSIFIED}
    assert "classes" not in found and len(found["instances"]) == 1


def test_semantic_runs_locally(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained network of the catalog's kind, in both sizes; without an ONNX file, that engine is refused."""
    config = SemanticConfig(
        classes=("floor", "door", "wall"), architecture="lraspp_mobilenet_v3_large", input_size=(64, 96)
    )
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "weights", config, build_network(config))
    (image,) = files(tmp_path, "a.png")
    options = ["predict", image, "--local", "--model", "semantic", "--weights", str(tmp_path / "weights"), "--json"]
    assert main([*options, "--out", str(tmp_path / "out")]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    labels = decode_png(base64.b64decode(shown["label_map"]))
    model = Semantic.from_folder(tmp_path / "weights", device="cpu")
    (expected,) = model.predict([PICTURE], [SemanticParameters()])
    assert np.array_equal(labels, expected.labels) and labels.shape == (60, 80)
    assert shown["pixel_fraction"] == pytest.approx(expected.pixel_fraction())
    assert decode((tmp_path / "out" / "a_overlay.png").read_bytes()).shape[0] > 60
    assert main([*options, "--size", "model"]) == 0
    (small,) = json.loads(capsys.readouterr().out)
    assert decode_png(base64.b64decode(small["label_map"])).shape == (64, 96)
    assert main([*options, "--engine", "onnx"]) == 1
    assert "onnx" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "demo"])
def test_help_is_fast_because_nothing_heavy_is_imported(command: str) -> None:
    program = (
        "import sys; from segserve.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'ts', 'fastapi', 'numpy', 'cv2', 'requests', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert f"example: segserve {command}" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_local_sam2_answers_clicks_and_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = files(tmp_path, "a.png")
    weights = save_sam2(tmp_path / "weights")
    command = ["predict", image, "--local", "--model", "sam2", "--weights", str(weights), "--json"]
    assert main([*command, "--point", "20,30", "--point", "60,10,0", "--low-res"]) == 0
    ((clicked,),) = [shown["instances"] for shown in json.loads(capsys.readouterr().out)]
    prompt = ClickPrompt((Target(((20.0, 30.0, 1), (60.0, 10.0, 0))),))
    (expected,) = Sam2.from_folder(weights, device="cpu").predict([PICTURE], [prompt])[0].instances
    assert (clicked["mask"], clicked["object"]) == (expected.rle, 0)
    assert from_text(clicked["low_res"], "low_res").shape == (16, 16)
    assert main([*command, "--box", "5,5,70,50", "--box", "10,10,30,30", "--out", str(tmp_path / "out")]) == 0
    (boxed,) = json.loads(capsys.readouterr().out)
    assert sorted(each["object"] for each in boxed["instances"]) == [0, 1]
    assert decode((tmp_path / "out" / "a_overlay.png").read_bytes()).shape == PICTURE.shape
