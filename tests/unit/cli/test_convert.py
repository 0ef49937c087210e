"""``segserve convert``: from files of annotation tools to COCO that pycocotools and segserve read."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segserve.cli import main
from segserve.training.coco import read_dataset, read_picture
from segserve.training.scenes import make_scene
from segserve.training.scenes.labelme_files import write_labelme_scenes

SIZE = (96, 128)
SEED, COUNT = 600_000_200, 12


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("photos")
    write_labelme_scenes(out, SEED, COUNT, SIZE)
    return out


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """The scenes, in a folder to be damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in scenes.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def rewrite(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")


def names(file: Path) -> list[str]:
    return [entry["file_name"] for entry in json.loads(file.read_text("utf-8"))["images"]]


def stems(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


class TestLabelme:
    def test_coco_of_the_truth(self, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "new" / "coco.json"
        assert convert("labelme", scenes, "--out", out) == 0
        dataset = read_dataset(out, scenes)
        coco = COCO(str(out))
        annotations = iter(coco.loadAnns(sorted(coco.getAnnIds())))
        for seed, picture in enumerate(dataset.pictures, SEED):
            scene = make_scene(seed, SIZE)
            np.testing.assert_array_equal(read_picture(picture), scene.image)
            for item, found, annotation in zip(scene.objects, picture.objects, annotations, strict=False):
                np.testing.assert_array_equal(found.mask(*SIZE), scene.mask(item))
                np.testing.assert_array_equal(coco.annToMask(annotation), scene.mask(item))
                assert (dataset.classes[found.class_index], found.ignore) == (item.category, item.ignore)
                assert (found.box, annotation["area"], annotation["iscrowd"]) == (item.box, item.area, 0)
        assert next(annotations, None) is None
        assert list(dataset.classes) == sorted(dataset.classes)
        assert dataset.category_ids == tuple(range(1, len(dataset.classes) + 1))
        assert [picture.id for picture in dataset.pictures] == list(range(1, COUNT + 1))
        printed = " ".join(capsys.readouterr().out.split())
        assert f"pictures │ {COUNT} │" in printed
        walls = sum(
            item.category == "wall" for seed in range(SEED, SEED + COUNT) for item in make_scene(seed, SIZE).objects
        )
        assert f"wall │ {walls} │" in printed
        assert f"--images {scenes}" in printed

    def test_split(self, scenes: Path, tmp_path: Path) -> None:
        assert convert("labelme", scenes, "--out", tmp_path / "coco.json", "--split", 0.75, "--seed", 5) == 0
        assert stems(tmp_path) == {"coco.train.json", "coco.val.json"}
        training, validation = (read_dataset(tmp_path / f"coco.{part}.json", scenes) for part in ("train", "val"))
        assert (len(training.pictures), len(validation.pictures)) == (9, 3)
        assert training.classes == validation.classes
        together = {picture.path.name for picture in training.pictures + validation.pictures}
        assert together == {f"{seed}.png" for seed in range(SEED, SEED + COUNT)}

    def test_the_seed_decides_the_split(self, scenes: Path, tmp_path: Path) -> None:
        drawn = []
        for seed in (5, 5, 6, 7, 8):
            assert convert("labelme", scenes, "--out", tmp_path / "coco.json", "--split", 0.5, "--seed", seed) == 0
            drawn.append((tmp_path / "coco.val.json").read_bytes())
        assert drawn[0] == drawn[1]
        assert len(set(drawn)) > 2

    def test_labels_choose_and_order_the_classes(
        self, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "labels.txt").write_text("window\n\nunicorn\nfloor\n")
        assert convert("labelme", scenes, "--out", tmp_path / "coco.json", "--labels", tmp_path / "labels.txt") == 0
        dataset = read_dataset(tmp_path / "coco.json", scenes)
        assert dataset.classes == ("window", "unicorn", "floor")
        assert len(dataset.pictures) == COUNT
        assert sum(found.class_index == 2 for picture in dataset.pictures for found in picture.objects) == COUNT
        assert f"left out: {COUNT} × not a class that was asked for: ceiling" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("text", "message"), [("", "is empty"), ("a\nb\na", "it names 'a' twice"), ("unicorn", "no object is of")]
    )
    def test_labels_that_cannot_be(
        self, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
    ) -> None:
        (tmp_path / "labels.txt").write_text(text)
        assert convert("labelme", scenes, "--out", tmp_path / "coco.json", "--labels", tmp_path / "labels.txt") == 1
        assert message in capsys.readouterr().err

    def test_nested_folders_and_other_json_files(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (photos / "first" / "room").mkdir(parents=True)
        for kind in ("json", "png"):
            (photos / f"{SEED}.{kind}").rename(photos / "first" / "room" / f"{SEED}.{kind}")
        out = photos / "coco.json"
        for _ in range(2):  # the second time, the first result is among the files
            assert convert("labelme", photos, "--out", out) == 0
            assert f"first/room/{SEED}.png" in names(out)
            assert len(read_dataset(out, photos).pictures) == COUNT
        assert "left out: 1 × JSON files that are not labelme's" in capsys.readouterr().out


class TestEmbedded:
    def embed(self, photos: Path, *seeds: int) -> None:
        for seed in seeds:
            picture = photos / f"{seed}.png"
            rewrite(photos / f"{seed}.json", imageData=base64.b64encode(picture.read_bytes()).decode())
            picture.unlink()

    def test_pictures_are_taken_out_and_all_are_in_one_folder(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.embed(photos, SEED, SEED + 1)
        before = stems(photos)
        out = tmp_path / "out" / "coco.json"
        for _ in range(2):
            assert convert("labelme", photos, "--out", out) == 0
            assert stems(photos) == before
            dataset = read_dataset(out, tmp_path / "out" / "images")
            for seed, picture in enumerate(dataset.pictures, SEED):
                np.testing.assert_array_equal(read_picture(picture), make_scene(seed, SIZE).image)
        assert f"train with --images {tmp_path / 'out' / 'images'}" in capsys.readouterr().out

    def test_into_the_folder_of_pictures(self, photos: Path, tmp_path: Path) -> None:
        self.embed(photos, SEED)
        assert convert("labelme", photos, "--out", tmp_path / "coco.json", "--images", photos) == 0
        assert (photos / f"{SEED}.png").exists()
        assert stems(tmp_path) == {"coco.json", "photos"}
        assert len(read_dataset(tmp_path / "coco.json", photos).pictures) == COUNT

    def test_a_picture_is_not_replaced_by_another(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.embed(photos, SEED)
        (tmp_path / "images").mkdir()
        mine = tmp_path / "images" / f"{SEED}.png"
        mine.write_bytes(b"mine")
        assert convert("labelme", photos, "--out", tmp_path / "coco.json") == 1
        assert "is another picture than that of" in capsys.readouterr().err
        assert mine.read_bytes() == b"mine"
        assert not (tmp_path / "coco.json").exists()


class TestDamage:
    def test_the_first_broken_file_ends_it_and_nothing_is_written(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (photos / f"{SEED + 3}.json").write_text('{"shapes": [', "utf-8")
        assert convert("labelme", photos, "--out", tmp_path / "coco.json", "--split", 0.5) == 1
        assert f"{SEED + 3}.json: not a JSON file" in capsys.readouterr().err
        assert stems(tmp_path) == {"photos"}

    def test_skip_broken_goes_on_and_lists_them(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (photos / f"{SEED + 3}.json").write_text('{"shapes": [', "utf-8")
        (photos / f"{SEED + 5}.png").unlink()
        assert convert("labelme", photos, "--out", tmp_path / "coco.json", "--skip-broken") == 0
        assert len(names(tmp_path / "coco.json")) == COUNT - 2
        printed = capsys.readouterr().out
        assert f"{SEED + 3}.json: not a JSON file" in printed
        assert f"there is no picture '{SEED + 5}.png'" in printed

    def test_names_of_pictures(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A screenshot's narrow space and emoji are kept; a name that is no UTF-8 cannot be written into JSON."""
        for number, name in enumerate(("3.05\u202fPM 🪑.png", os.fsdecode(b"st\xfchle.png"))):
            (photos / f"{SEED + number}.png").rename(photos / name)
            rewrite(photos / f"{SEED + number}.json", imagePath=name)
        assert convert("labelme", photos, "--out", tmp_path / "coco.json", "--skip-broken") == 0
        found = names(tmp_path / "coco.json")
        assert "3.05\u202fPM 🪑.png" in found and len(found) == COUNT - 1
        assert "st\\udcfchle.png' is not UTF-8, or too long; rename it" in capsys.readouterr().out

    def test_one_picture_in_two_files(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (photos / "copy.json").write_bytes((photos / f"{SEED}.json").read_bytes())
        assert convert("labelme", photos, "--out", tmp_path / "coco.json") == 1
        assert f"copy.json: the picture {SEED}.png is annotated in" in capsys.readouterr().err

    def test_a_folder_in_place_of_the_file(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "build").mkdir()
        assert convert("labelme", photos, "--out", tmp_path / "build") == 1
        assert "build: expected a file to write, found a folder" in capsys.readouterr().err
        assert stems(tmp_path) == {"photos", "build"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["labelme", "absent"], "absent: there is no such file or folder"),
            (["via", "absent"], "absent: there is no such file or folder"),
            (["labelme", "empty"], "expected a folder with JSON files of annotations, found none in it"),
            (["labelme", "other"], "No annotated picture was found (JSON files that are not labelme's: 1)"),
            (["via", "other"], "No annotated picture was found (JSON files that are not of VGG Image Annotator: 1)"),
            (["labelme", "other", "--images", "absent"], "absent: expected a folder of pictures (--images)"),
        ],
    )
    def test_nothing_to_convert(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for folder in ("empty", "other"):
            Path(folder).mkdir()
        Path("other/some.json").write_text("{}")
        assert convert(*arguments, "--out", "coco.json") == 1
        assert message in capsys.readouterr().err
        assert not Path("coco.json").exists()

    @pytest.mark.parametrize("value", ["0", "1", "80", "x"])
    def test_split_is_a_fraction(self, capsys: pytest.CaptureFixture[str], value: str) -> None:
        with pytest.raises(SystemExit):
            convert("labelme", "photos", "--out", "coco.json", "--split", value)
        assert "--split" in capsys.readouterr().err


class TestVia:
    @pytest.fixture
    def balloons(self, tmp_path: Path) -> Path:
        """Laid out as the balloon data set of Matterport's Mask R-CNN: train and val, regions without attributes."""
        for part, count in (("train", 3), ("val", 2)):
            folder = tmp_path / "balloon" / part
            folder.mkdir(parents=True)
            content = {}
            for number in range(count):
                name = f"{part}{number}.jpg"
                Image.new("RGB", (60, 40), "red").save(folder / name)
                circle = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [5, 5, 25, 25 + number]}
                region = {"shape_attributes": circle, "region_attributes": {}}
                content[f"{name}99"] = {"filename": name, "size": 99, "regions": {"0": region}, "file_attributes": {}}
            (folder / "via_region_data.json").write_text(json.dumps(content), "utf-8")
        return tmp_path / "balloon"

    @pytest.mark.parametrize("source", ["train", "train/via_region_data.json"])
    def test_the_folder_or_the_file(self, balloons: Path, tmp_path: Path, source: str) -> None:
        assert convert("via", balloons / source, "--out", tmp_path / "coco.json", "--class", "balloon") == 0
        dataset = read_dataset(tmp_path / "coco.json", balloons / "train")
        assert (dataset.classes, len(dataset.pictures)) == (("balloon",), 3)
        assert [np.count_nonzero(p.objects[0].mask(40, 60)) for p in dataset.pictures] == pytest.approx(
            [400, 410, 420], abs=3
        )

    def test_all_files_of_a_folder(self, balloons: Path, tmp_path: Path) -> None:
        assert convert("via", balloons, "--out", tmp_path / "coco.json", "--class", "balloon", "--split", "0.6") == 0
        training, validation = names(tmp_path / "coco.train.json"), names(tmp_path / "coco.val.json")
        assert (len(training), len(validation)) == (3, 2)
        assert {Path(name).parent.name for name in training + validation} == {"train", "val"}

    def test_the_class_must_be_said(self, balloons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert convert("via", balloons, "--out", tmp_path / "coco.json") == 1
        assert "say which class all are of (--class)" in capsys.readouterr().err

    def test_an_attribute(self, balloons: Path, tmp_path: Path) -> None:
        file = balloons / "train" / "via_region_data.json"
        content = json.loads(file.read_text())
        content["train0.jpg99"]["regions"]["0"]["region_attributes"] = {"kind": "kite"}
        file.write_text(json.dumps(content))
        options = ("--attribute", "kind", "--class", "balloon")
        assert convert("via", file, "--out", tmp_path / "coco.json", *options) == 0
        assert read_dataset(tmp_path / "coco.json", balloons / "train").classes == ("balloon", "kite")
