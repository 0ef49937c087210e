"""Seed 001's routes: its payloads literally, the files they leave, and what never gets near the disk."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_torchserve import Answer, FakeTorchServe
from gateways import OpenGateway
from pictures import HEIGHT, WIDTH, noise, opened, png, rotated_jpeg, saved, text, truncated_png
from PIL import Image
from starlette.testclient import TestClient

from segserve.config import RequestLimits, Settings
from segserve.imaging import ImageLimits, decode, encode
from segserve.masks import encode_rle

FOUND = [
    ([4.4, 6.2, 20.5, 30.0], 0.9737352132797241),
    ([30.0, 10.0, 61.7, 40.3], 0.8988789319992065),
    ([0.0, 0.0, 8.0, 8.0], 0.3),
]
CROPS = [(17, 24), (32, 31), (8, 8)]
"""Sizes of what FOUND's boxes cut out, in whole pixels."""


def finder(data: bytes, prompt: dict[str, Any]) -> Answer:
    """A Mask R-CNN that finds FOUND in every picture, the worst first, as far as their scores allow."""
    height, width = decode(data).shape[:2]
    instances = []
    for box, score in reversed(FOUND):
        mask = np.zeros((height, width), dtype=bool)
        mask[round(box[1]) : round(box[3]), round(box[0]) : round(box[2])] = True
        if score >= prompt["parameters"]["score_threshold"]:
            instances.append(
                {"label": "disc", "score": score, "box": box, "area": int(mask.sum()), "mask": encode_rle(mask)}
            )
    return 200, {"width": width, "height": height, "instances": instances}


@pytest.fixture
def torchserve() -> FakeTorchServe:
    return FakeTorchServe(models={"mask_rcnn": ["READY"]}, react=finder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outside" / "detections"


@pytest.fixture
def gateway(open_gateway: OpenGateway, folder: Path) -> TestClient:
    return open_gateway(Settings(models=("mask_rcnn",), detection_dir=folder))


def payload(**change: Any) -> dict[str, Any]:
    return {
        "input_image_name": "my_input_image.png",
        "output_image_name": "my_output_image.png",
        "threshold_value": 0.5,
        "image_string": text(png()),
        **change,
    }


def snapshot(root: Path) -> dict[str, Any]:
    """Every path under a folder with its kind and content; hidden files too."""
    state: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            state[str(path)] = path.readlink()
        else:
            state[str(path)] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return state


def put(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / "input" / "images" / name.replace("__", ".")).write_bytes(data)


def partial(name: str, index: int) -> str:
    return f"OUTPUT_PARTIAL_IMAGE_{name}_{index}.jpg"


def check_data(data: dict[str, Any], count: int) -> None:
    """The seed's shape, key order included, with pictures that can be decoded and have the boxes' sizes."""
    assert data["detected_bounding_boxes"] == [
        [{f"box_{index}": box}, {f"score_{index}": score}] for index, (box, score) in enumerate(FOUND[:count])
    ]
    keys = [[list(part) for part in pair] for pair in data["detected_bounding_boxes"]]
    assert keys == [[[f"box_{index}"], [f"score_{index}"]] for index in range(count)]
    assert [list(part) for part in data["partial_images"]] == [[f"partial_image_{index}"] for index in range(count)]
    crops = [opened(part[f"partial_image_{index}"]) for index, part in enumerate(data["partial_images"])]
    assert [(crop.format, crop.size) for crop in crops] == [("JPEG", size) for size in CROPS[:count]]
    assert opened(data["output_image"]).size == (WIDTH, HEIGHT)


def check_files(folder: Path, name: str, data: dict[str, Any]) -> None:
    """The files of a name are those of an answer, as pictures and as texts, and there are no others of that name."""
    texts = {name: data["output_image"]} | {
        partial(name, index): part[f"partial_image_{index}"] for index, part in enumerate(data["partial_images"])
    }
    images, strings = folder / "output" / "images", folder / "output" / "string_images"
    assert {path.name for path in images.iterdir() if name in path.name} == set(texts)
    assert {path.name for path in strings.iterdir() if name in path.name} == {f"{each}.txt" for each in texts}
    for each, encoded in texts.items():
        assert (images / each).read_bytes() == base64.b64decode(encoded)
        assert (strings / f"{each}.txt").read_text("ascii") == encoded


def test_the_seeds_payload_gets_the_seeds_answer_and_its_files(gateway: TestClient, folder: Path) -> None:
    response = gateway.post("/api/detect-area-base64", json=payload())
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == ["data", "status_code"]
    assert list(answer["data"]) == ["detected_bounding_boxes", "output_image", "partial_images"]
    assert answer["status_code"] == 200
    check_data(answer["data"], 2)
    check_files(folder, "my_output_image.png", answer["data"])
    assert (folder / "input" / "images" / "my_input_image.png").read_bytes() == png()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        partial("my_output_image.png", 0),
        f"{partial('my_output_image.png', 0)}.txt",
        partial("my_output_image.png", 1),
        f"{partial('my_output_image.png', 1)}.txt",
        "my_input_image.png",
        "my_output_image.png",
        "my_output_image.png.txt",
    ]


def test_the_output_is_drawn_on_and_the_parts_are_not(gateway: TestClient) -> None:
    data = gateway.post("/api/detect-area-base64", json=payload()).json()["data"]
    before, after = noise(), np.asarray(opened(data["output_image"]))
    changed = (before != after).any(axis=-1)
    assert changed[6:30, 4:20].mean() > 0.9
    assert not changed.all()
    (x0, y0, _, _), _ = FOUND[1]
    part = np.asarray(opened(data["partial_images"][1]["partial_image_1"])).astype(int)
    original = before[int(y0) : int(y0) + 31, int(x0) : int(x0) + 32]
    assert np.abs(part - np.asarray(Image.open(io.BytesIO(encode(original, "JPEG"))))).max() == 0


def test_a_trailing_slash_and_another_content_type_make_no_difference(gateway: TestClient) -> None:
    body = json.dumps(payload())
    plain = gateway.post("/api/detect-area-base64/", content=body, headers={"Content-Type": "text/plain"})
    assert plain.json() == gateway.post("/api/detect-area-base64", content=body).json()
    assert gateway.get("/api/").status_code == 200


@pytest.mark.parametrize(
    "wrap", [lambda code: f"data:image/png;base64,{code}", lambda code: f" {code[:76]}\n{code[76:]}\n"]
)
def test_base64_as_a_data_url_or_with_line_breaks(
    gateway: TestClient, folder: Path, wrap: Callable[[str], str]
) -> None:
    response = gateway.post("/api/detect-area-base64", json=payload(image_string=wrap(text(png()))))
    assert response.status_code == 200, response.text
    assert (folder / "input" / "images" / "my_input_image.png").read_bytes() == png()


@pytest.mark.parametrize(
    ("ending", "form"),
    [
        ("png", "PNG"),
        ("JPG", "JPEG"),
        ("jpeg", "JPEG"),
        ("webp", "WEBP"),
        ("bmp", "BMP"),
        ("gif", "GIF"),
        ("tif", "TIFF"),
    ],
)
def test_the_output_has_the_format_of_its_ending(gateway: TestClient, folder: Path, ending: str, form: str) -> None:
    name = f"out.{ending}"
    data = gateway.post("/api/detect-area-base64", json=payload(output_image_name=name)).json()["data"]
    drawn = opened(data["output_image"])
    assert (drawn.format, drawn.size) == (form, (WIDTH, HEIGHT))
    check_files(folder, name, data)


def test_boxes_are_those_of_the_upright_picture(gateway: TestClient) -> None:
    answer = gateway.post("/api/detect-area-base64", json=payload(image_string=text(rotated_jpeg()))).json()
    check_data(answer["data"], 2)


@pytest.mark.parametrize(
    ("value", "asked", "count"),
    [
        (0, 0.0, 3),
        (0.0, 0.0, 3),
        (1, 1.0, 0),
        (1.0, 1.0, 0),
        ("0.5", 0.5, 2),
        (" 0.9 ", 0.9, 1),
        ("1e-1", 0.1, 3),
        ("1", 1.0, 0),
    ],
)
@pytest.mark.parametrize("route", ["base64", "all", "by-name"])
def test_thresholds(
    gateway: TestClient, folder: Path, torchserve: FakeTorchServe, route: str, value: Any, asked: float, count: int
) -> None:
    put(folder, a__png=png())
    body = {"threshold_value": value, "image_names": ["a.png"]} if route != "base64" else payload(threshold_value=value)
    response = gateway.post(f"/api/detect-area-{route}", json=body)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    check_data(data if route == "base64" else data[0], count)
    assert torchserve.seen[-1][1]["parameters"] == {"score_threshold": asked}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("-1", "-1"), ("1.5", "1.5"), ("null", "None"), ('"abc"', "'abc'"), ("NaN", "nan"), ("Infinity", "inf"),
        ("true", "True"), ("[]", "[]"), ("{}", "{}"), ('""', "''"), ('"0,5"', "'0,5'"), ('"nan"', "'nan'"),
        ('"-0.1"', "'-0.1'"), ('"1_0"', "'1_0'"), ('"٠"', "'٠'"), ("1e400", "inf"), ("1" + "0" * 400, "1000"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["base64", "all", "by-name"])
def test_thresholds_that_are_none(
    gateway: TestClient, folder: Path, torchserve: FakeTorchServe, route: str, value: str, shown: str
) -> None:
    put(folder, a__png=png())
    before = snapshot(folder)
    body = json.dumps(payload(image_names=["a.png"], threshold_value="?")).replace('"?"', value)
    response = gateway.post(f"/api/detect-area-{route}", content=body)
    assert response.status_code == 400
    answer = response.json()
    assert (answer["data"], answer["status_code"]) == ("Wrong payload", 400)
    message = answer["error"]["message"]
    assert "threshold_value" in message and "number from 0 to 1" in message and shown in message
    assert (torchserve.seen, snapshot(folder)) == ([], before)


def test_by_name_takes_one_half_when_no_threshold_comes(gateway: TestClient, folder: Path) -> None:
    put(folder, a__png=png())
    (entry,) = gateway.post("/api/detect-area-by-name", json={"image_names": ["a.png"]}).json()["data"]
    check_data(entry, 2)


@pytest.mark.parametrize(
    ("route", "field"),
    [
        *(("base64", field) for field in payload()),
        ("all", "threshold_value"),
        ("by-name", "image_names"),
    ],
)
def test_a_missing_field(gateway: TestClient, torchserve: FakeTorchServe, route: str, field: str) -> None:
    body = payload(image_names=["a.png"])
    del body[field]
    response = gateway.post(f"/api/detect-area-{route}", json=body)
    assert response.status_code == 400
    answer = response.json()
    assert {name: answer[name] for name in ("data", "status_code")} == {"data": "Wrong payload", "status_code": 500}
    assert answer["error"]["code"] == "missing_field"
    assert answer["error"]["message"].startswith(f"{field}: missing")
    assert answer["error"]["request_id"] == response.headers["x-request-id"]
    assert torchserve.seen == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"threshold_value=0.5", b"\xff{}", b"[" * 100_000])
def test_a_body_that_is_no_object(gateway: TestClient, body: bytes) -> None:
    response = gateway.post("/api/detect-area-all", content=body)
    assert (response.status_code, response.json()["data"]) == (400, "Wrong payload")
    assert "body" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("image", "status", "code", "words"),
    [
        ("!!!", 400, "invalid_request", "image_string: base64"),
        ("", 400, "invalid_request", "empty"),
        ("data:image/png,abc", 400, "invalid_request", "image_string"),
        ("iVBORw0KGgo\udcff", 400, "invalid_request", "image_string"),
        (5, 400, "invalid_request", "image_string"),
        (None, 400, "invalid_request", "image_string"),
        (text(b"this is a text file"), 415, "not_an_image", "JPEG, PNG"),
        (text(truncated_png()), 422, "undecodable_image", "truncated"),
        (text(b"\x89" * 4000), 413, "image_too_large", "3,000"),
    ],
)
def test_pictures_that_are_none(
    open_gateway: OpenGateway, folder: Path, image: Any, status: int, code: str, words: str
) -> None:
    limits = ImageLimits(max_bytes=3000)
    gateway = open_gateway(Settings(models=("mask_rcnn",), detection_dir=folder, image_limits=limits))
    before = snapshot(folder)
    body = json.dumps(payload(image_string=image))
    response = gateway.post("/api/detect-area-base64", content=body)
    assert response.status_code == status, response.text
    answer = response.json()
    assert (answer["status_code"], answer["error"]["code"]) == (status, code)
    assert answer.get("data") == ("Wrong payload" if status == 400 else None)
    assert words in answer["error"]["message"]
    assert snapshot(folder) == before


ATTACKS = [
    "../../x.png", "../x.png", "/etc/passwd", "/tmp/x.png", "..", ".", "", " ", "x.png\x00", "\x00.png", "a\x00b.png",
    "x" * 10_000 + ".png", "x" * 125 + ".png", "..∕..∕x.png", "．．／x.png", "..\\..\\x.png", "C:\\x.png", "C:x.png",
    "x.png ", " x.png", "x.png.", "x.png\n", "\nx.png", "CON", "NUL", "a/b.png", "./x.png", "images/../x.png",
    ".hidden.png", ".png", "~root.png", "$HOME.png", "%2e%2e%2fx.png", "x\u202egnp.png", "е.png", "x\u0301.png",
    "file:///etc/x.png", "x.png;ls.png", "*.png", "x", "x.svg", "x.png/", "x.png/.", "\ud800.png", "x.php.",
    "OUTPUT_PARTIAL_IMAGE_a.png_0.jpg", "-\t.png", "x\x7f.png", "½.png",
]  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS, ids=lambda name: ascii(name)[:30])
@pytest.mark.parametrize("field", ["input_image_name", "output_image_name", "image_names"])
def test_names_that_touch_nothing(
    gateway: TestClient, folder: Path, tmp_path: Path, torchserve: FakeTorchServe, field: str, name: str
) -> None:
    put(folder, a__png=png())
    before = snapshot(tmp_path)
    if field == "image_names":
        route, body = "by-name", {"image_names": ["a.png", name]}
    else:
        route, body = "base64", payload(**{field: name})
    response = gateway.post(f"/api/detect-area-{route}", content=json.dumps(body))
    assert response.status_code == 400, response.text
    answer = response.json()
    assert (answer["data"], answer["status_code"]) == ("Wrong payload", 400)
    assert field in answer["error"]["message"] and "expected" in answer["error"]["message"]
    assert len(response.content) < 1000
    assert str(tmp_path) not in response.text
    assert (snapshot(tmp_path), torchserve.seen) == (before, [])


@pytest.mark.parametrize("name", [None, 5, ["x.png"], {"name": "x.png"}, True])
@pytest.mark.parametrize("field", ["input_image_name", "output_image_name", "image_names"])
def test_names_that_are_no_text(gateway: TestClient, folder: Path, field: str, name: Any) -> None:
    before = snapshot(folder)
    if field == "image_names":
        response = gateway.post("/api/detect-area-by-name", json={"image_names": [name]})
    else:
        response = gateway.post("/api/detect-area-base64", json=payload(**{field: name}))
    assert response.status_code == 400
    assert field in response.json()["error"]["message"]
    assert snapshot(folder) == before


@pytest.mark.parametrize("names", ["a.png", [], ["a.png"] * 33, None])
def test_image_names_that_are_no_list_of_1_to_32(gateway: TestClient, names: Any) -> None:
    response = gateway.post("/api/detect-area-by-name", json={"image_names": names})
    assert response.status_code == 400
    assert "image_names" in response.json()["error"]["message"]


def plant(kind: str, place: Path, secret: Path) -> None:
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "dangling":
        place.symlink_to(secret.parent / "not-there.png")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_planted_under_a_good_name_is_not_touched(
    gateway: TestClient, folder: Path, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(seed=1))
    for place in ("input/images", "output/images"):
        plant(kind, folder / place / "x.png", secret)
    before = snapshot(tmp_path)
    responses = [
        gateway.post("/api/detect-area-by-name", json={"image_names": ["x.png"]}),
        gateway.post("/api/detect-area-base64", json=payload(input_image_name="x.png")),
        gateway.post("/api/detect-area-base64", json=payload(output_image_name="x.png")),
    ]
    for response in responses:
        assert response.status_code == 400, response.text
        assert "x.png" in response.json()["error"]["message"]
        assert "regular file" in response.json()["error"]["message"]
    listed = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5}).json()
    assert listed["message"] == "no input files"
    assert [skipped["name"] for skipped in listed["skipped"]] == ["x.png"]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", ["input", "input/images", "output", "output/images", "output/string_images"])
def test_a_folder_that_was_replaced_by_a_link_is_not_followed(
    gateway: TestClient, folder: Path, tmp_path: Path, place: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for part in ("images", "string_images"):
        (elsewhere / part).mkdir(parents=True)
    (elsewhere / "x.png").write_bytes(png(seed=1))
    (elsewhere / "images" / "x.png").write_bytes(png(seed=1))
    (folder / place).rename(tmp_path / "aside")
    (folder / place).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    response = gateway.post("/api/detect-area-base64", json=payload())
    assert response.status_code == 500
    assert response.json()["status_code"] == 500
    assert str(tmp_path) not in response.text
    if place.startswith("input"):
        assert gateway.post("/api/detect-area-by-name", json={"image_names": ["x.png"]}).status_code == 500
        assert gateway.post("/api/detect-area-all", json={"threshold_value": 0.5}).status_code == 500
    assert snapshot(elsewhere) == before


def test_every_file_is_answered_by_name_and_the_bad_ones_with_their_errors(gateway: TestClient, folder: Path) -> None:
    put(folder, b__png=png(80, 60), a__jpg=png(), c__png=b"no picture", d__png=truncated_png(), e__png=b"")
    put(folder, notes__txt=b"x", __hidden__png=png())
    (folder / "input" / "images" / "my photo.png").write_bytes(png())
    (folder / "input" / "images" / os.fsdecode(b"\xff.png")).write_bytes(png())
    answer = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5}).json()
    assert list(answer) == ["data", "status_code", "skipped"]
    assert answer["status_code"] == 200
    entries = {entry.pop("input_image_name"): entry for entry in answer["data"]}
    assert list(entries) == ["a.jpg", "b.png", "c.png", "d.png", "e.png"]
    codes = [entry.get("error", {}).get("code") for entry in entries.values()]
    assert codes == [None, None, "not_an_image", "undecodable_image", "invalid_request"]
    check_data(entries["a.jpg"], 2)
    check_files(folder, "a.jpg", entries["a.jpg"])
    assert opened(entries["a.jpg"]["output_image"]).format == "JPEG"
    check_files(folder, "b.png", entries["b.png"])
    assert opened(entries["b.png"]["output_image"]).size == (80, 60)
    assert [skipped["name"] for skipped in answer["skipped"]] == ["my photo.png", "notes.txt", "\\xff.png"]
    assert all("expected" in skipped["reason"] for skipped in answer["skipped"])
    assert {path.name for path in (folder / "output" / "images").iterdir() if path.name[0] in "cde"} == set()


def test_no_input_files(gateway: TestClient, folder: Path, torchserve: FakeTorchServe) -> None:
    images = folder / "input" / "images"
    (images / ".gitkeep").touch()

    def check_there_is_none() -> None:
        response = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5})
        assert (response.status_code, response.json()) == (200, {"message": "no input files"})
        assert torchserve.seen == []

    check_there_is_none()
    (images / ".gitkeep").unlink()
    images.rmdir()
    images.parent.rmdir()
    check_there_is_none()


def test_folders_that_are_gone_are_made_again(gateway: TestClient, folder: Path) -> None:
    for place in ("input/images", "input", "output/images", "output/string_images", "output"):
        (folder / place).rmdir()
    data = gateway.post("/api/detect-area-base64", json=payload()).json()["data"]
    check_files(folder, "my_output_image.png", data)


def test_a_working_directory_that_is_gone_is_told(gateway: TestClient, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    response = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5})
    assert response.status_code == 500
    assert "folder" in response.json()["error"]["message"]
    assert not folder.exists()
    assert str(tmp_path) not in response.text


def test_named_files_are_answered_in_the_order_asked(gateway: TestClient, folder: Path) -> None:
    put(folder, a__png=png(), b__png=png(80, 60), c__png=b"no picture", d__png=png())
    body = {"image_names": ["b.png", "c.png", "a.png", "b.png"], "threshold_value": 0.95}
    answer = gateway.post("/api/detect-area-by-name", json=body).json()
    assert [entry["input_image_name"] for entry in answer["data"]] == ["b.png", "c.png", "a.png"]
    assert answer["data"][1] == {
        "input_image_name": "c.png",
        "error": {"code": "not_an_image", "message": answer["data"][1]["error"]["message"]},
    }
    check_data(answer["data"][2], 1)
    check_files(folder, "a.png", answer["data"][2])
    assert not (folder / "output" / "images" / "d.png").exists()


def test_a_name_that_is_not_there(gateway: TestClient, folder: Path, torchserve: FakeTorchServe) -> None:
    put(folder, a__png=png())
    before = snapshot(folder)
    response = gateway.post("/api/detect-area-by-name", json={"image_names": ["a.png", "b.png"]})
    assert (response.status_code, response.json()) == (404, {"message": "no such image b.png"})
    assert (snapshot(folder), torchserve.seen) == (before, [])


def test_a_file_over_the_limit_is_not_read(open_gateway: OpenGateway, folder: Path, torchserve: FakeTorchServe) -> None:
    limits = ImageLimits(max_bytes=20_000)
    gateway = open_gateway(Settings(models=("mask_rcnn",), detection_dir=folder, image_limits=limits))
    put(folder, a__png=png())
    with (folder / "input" / "images" / "huge.png").open("wb") as stream:
        stream.truncate(2**40)
    entries = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5}).json()["data"]
    check_data(entries[0], 2)
    assert entries[1]["error"]["code"] == "image_too_large"
    assert "20,000" in entries[1]["error"]["message"]
    assert len(torchserve.seen) == 1


def test_more_files_than_a_request_takes(gateway: TestClient, folder: Path, torchserve: FakeTorchServe) -> None:
    for index in range(32):
        put(folder, **{f"{index}__png": png(8, 8)})
    assert len(gateway.post("/api/detect-area-all", json={"threshold_value": 0.5}).json()["data"]) == 32
    put(folder, one__png=png(8, 8))
    response = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert "33 pictures" in message and "32" in message and "/api/detect-area-by-name" in message
    assert len(torchserve.seen) == 32


def test_an_answer_over_the_limit_says_so_for_each_picture(open_gateway: OpenGateway, folder: Path) -> None:
    settings = Settings(models=("mask_rcnn",), detection_dir=folder, limits=RequestLimits(max_answer_bytes=40_000))
    gateway = open_gateway(settings)
    put(folder, **{f"{name}__png": png() for name in "abcd"})
    response = gateway.post("/api/detect-area-all", json={"threshold_value": 0.5})
    assert response.status_code == 200
    assert len(response.content) <= 40_000
    errors = [entry["error"] for entry in response.json()["data"] if "error" in entry]
    assert 0 < len(errors) < 4
    assert {error["code"] for error in errors} == {"answer_too_large"}
    assert all((folder / "output" / "images" / f"{name}.png").exists() for name in "abcd")
    large = gateway.post("/api/detect-area-base64", json=payload(image_string=text(png(200, 200))))
    assert (large.status_code, large.json()["status_code"]) == (413, 413)
    assert large.json()["error"]["code"] == "answer_too_large"


def test_what_an_earlier_larger_result_left_is_removed(gateway: TestClient, folder: Path) -> None:
    for threshold in (0, 0.5, 0.95, 1, 0.5):
        data = gateway.post("/api/detect-area-base64", json=payload(threshold_value=threshold)).json()["data"]
        check_files(folder, "my_output_image.png", data)


def test_requests_with_different_names_do_not_disturb_each_other(gateway: TestClient, folder: Path) -> None:
    thresholds = (0, 0.5, 0.95, 1)

    def ask(index: int) -> dict[str, Any]:
        change = {
            "input_image_name": f"in{index}.png",
            "output_image_name": f"out{index}.png",
            "threshold_value": thresholds[index % 4],
            "image_string": text(png(seed=index)),
        }
        response = gateway.post("/api/detect-area-base64", json=payload(**change))
        assert response.status_code == 200, response.text
        return dict(response.json()["data"])

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(48)))
    for index, data in enumerate(answers):
        check_data(data, (3, 2, 1, 0)[index % 4])
        check_files(folder, f"out{index}.png", data)
        assert (folder / "input" / "images" / f"in{index}.png").read_bytes() == png(seed=index)
    assert list(folder.rglob(".*")) == []


def test_of_requests_with_the_same_names_one_wins_whole(gateway: TestClient, folder: Path) -> None:
    pictures = {png(seed=seed): threshold for seed, threshold in enumerate([0, 0.5, 0.95, 1] * 12)}

    def ask(data: bytes) -> dict[str, Any]:
        body = payload(image_string=text(data), threshold_value=pictures[data])
        return dict(gateway.post("/api/detect-area-base64", json=body).json()["data"])

    def read() -> None:
        """What is seen meanwhile is always a whole file."""
        for path in folder.rglob("*.png"):
            assert decode(path.read_bytes()).shape == (HEIGHT, WIDTH, 3)

    with ThreadPoolExecutor(24) as pool:
        asked = {data: pool.submit(ask, data) for data in pictures}
        while not all(task.done() for task in asked.values()):
            read()
    winner = (folder / "input" / "images" / "my_input_image.png").read_bytes()
    check_files(folder, "my_output_image.png", asked[winner].result())
    assert list(folder.rglob(".*")) == []


def test_a_disk_that_fails_leaves_what_was_there(
    gateway: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.post("/api/detect-area-base64", json=payload())
    before = snapshot(folder)
    real, opens = os.open, []

    def failing(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            opens.append(path)
            if len(opens) == 3:
                raise OSError(28, "No space left on device", path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
    response = gateway.post("/api/detect-area-base64", json=payload(image_string=text(png(seed=2))))
    assert len(opens) == 3
    assert response.status_code == 500
    assert "No space left on device" in response.json()["error"]["message"]
    assert snapshot(folder) == before


def test_without_a_folder_base64_answers_and_the_others_say_what_turns_them_on(
    open_gateway: OpenGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gateway = open_gateway(Settings(models=("mask_rcnn",)))
    check_data(gateway.post("/api/detect-area-base64", json=payload()).json()["data"], 2)
    for route, body in (("all", {"threshold_value": 0.5}), ("by-name", {"image_names": ["a.png"]})):
        response = gateway.post(f"/api/detect-area-{route}", json=body)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "no_detection_folder"
        assert "SEGSERVE_DETECTION_DIR" in response.json()["error"]["message"]
        assert "--detection-dir" in response.json()["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_without_a_mask_rcnn_the_routes_say_which_archive_to_add(open_gateway: OpenGateway, torchserve: Any) -> None:
    torchserve.models = {"grounded_sam": ["READY"]}
    response = open_gateway(Settings(models=("grounded_sam",))).post("/api/detect-area-base64", json=payload())
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert "segserve archive mask_rcnn" in response.json()["error"]["message"]
    assert response.json()["status_code"] == 404


def test_a_lost_worker_is_told_in_the_seeds_shape(gateway: TestClient, torchserve: FakeTorchServe) -> None:
    torchserve.script = [(500, {"code": 500, "type": "InternalServerException", "message": "Worker died."})] * 2
    response = gateway.post("/api/detect-area-base64", json=payload())
    assert (response.status_code, response.json()["status_code"]) == (503, 503)
    assert response.headers["retry-after"]


def test_keys_are_asked_for(open_gateway: OpenGateway) -> None:
    gateway = open_gateway(Settings(models=("mask_rcnn",), api_keys=frozenset({"k"})))
    for method, path in (("GET", "/api"), ("POST", "/api/detect-area-base64"), ("POST", "/api/detect-area-all")):
        assert gateway.request(method, path, json=payload()).status_code == 401
        assert gateway.request(method, path, json=payload(), headers={"X-API-Key": "k"}).status_code != 401


def test_the_page_says_that_it_is_up(gateway: TestClient) -> None:
    page = gateway.get("/api")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "is up" in page.text and "/api/detect-area-base64" in page.text
    assert not re.search(r"<script|<link|<img|https?://", page.text)
    told = gateway.get("/api", headers={"Accept": "application/json"})
    assert told.json() == {"status": "up", "ready": True, "folder": True}


def test_a_setting_that_names_a_file_is_refused(open_gateway: OpenGateway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Exception, match="SEGSERVE_DETECTION_DIR"):
        open_gateway(Settings(models=("mask_rcnn",), detection_dir=tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


def test_requests_are_logged_and_counted_under_the_model(gateway: TestClient) -> None:
    gateway.post("/api/detect-area-base64", json=payload())
    assert "/api/detect-area-base64" in gateway.get("/metrics").text


def test_long_thin_pictures_name_the_format_that_cannot_hold_them(gateway: TestClient) -> None:
    data = saved(Image.new("RGB", (16_400, 64)), "PNG")
    body = payload(image_string=text(data), output_image_name="out.webp")
    response = gateway.post("/api/detect-area-base64", json=body)
    assert response.status_code == 413
    assert "WEBP" in response.json()["error"]["message"] and "16,383" in response.json()["error"]["message"]
