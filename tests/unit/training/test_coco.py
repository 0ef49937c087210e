"""COCO annotations: the masks are those of COCO's own tools, and damage is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segserve import masks
from segserve.errors import InvalidRequestError
from segserve.training.coco import Dataset, read_dataset, read_picture
from segserve.training.scenes import CATEGORIES, make_scene
from segserve.training.scenes.files import write_scenes

HEIGHT, WIDTH = 30, 40
BLOB = np.zeros((HEIGHT, WIDTH), np.uint8)
BLOB[5:20, 8:31] = 1
BLOB[9:12, 12:15] = 0
RING = masks.encode_rle(BLOB)


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE, counted one pixel at a time."""
    found, value = [0], 0
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            found.append(0)
            value = pixel
        found[-1] += 1
    return found


SEGMENTATIONS: dict[str, Any] = {
    "polygon": [[3.5, 4.25, 30.0, 6.0, 25.75, 28.0, 10, 20]],
    "two polygons that overlap": [[2, 2, 20, 2, 20, 20, 2, 20], [10, 10, 35, 10, 35, 28, 10, 28]],
    "polygon over the edge": [[-5, -5, 50, 3, 50, 20, 4, 36]],
    "compressed RLE": RING,
    "uncompressed RLE": {"size": [HEIGHT, WIDTH], "counts": runs(BLOB)},
    "RLE that begins with the object": masks.encode_rle(1 - BLOB),
}


def annotation(number: int, segmentation: Any, **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 7, "segmentation": segmentation, "iscrowd": 0, **fields}


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "one.png", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "deep/two.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 7, "name": "chair"}, {"id": 3, "name": "floor lamp"}],
        "annotations": [
            annotation(11, SEGMENTATIONS["polygon"], bbox=[3.5, 4.25, 26.5, 23.75]),
            annotation(12, RING, bbox=[8, 5, 23, 15], category_id=3, image_id=2),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("one.png", "deep/two.png"):
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / name)
    return tmp_path


def read(folder: Path, entries: dict[str, Any]) -> Dataset:
    file = folder / "coco.json"
    file.write_text(json.dumps(entries), "utf-8")
    return read_dataset(file, folder)


class TestReading:
    def test_pictures_classes_and_objects(self, folder: Path) -> None:
        dataset = read(folder, content())
        assert (dataset.classes, dataset.category_ids) == (("floor lamp", "chair"), (3, 7))
        first, second = dataset.pictures
        assert (first.id, first.path, first.width, first.height) == (1, folder / "one.png", WIDTH, HEIGHT)
        assert second.path == folder / "deep" / "two.png"
        (chair,), (lamp,) = first.objects, second.objects
        assert (chair.class_index, lamp.class_index) == (1, 0)
        assert (chair.box, lamp.box) == ((3.5, 4.25, 30, 28), (8, 5, 31, 20))
        assert (chair.crowd, chair.ignore) == (False, False)

    @pytest.mark.parametrize("kind", SEGMENTATIONS)
    def test_masks_and_derived_boxes_are_those_of_cocos_tools(self, folder: Path, kind: str) -> None:
        entries = content()
        entries["annotations"] = [annotation(5, SEGMENTATIONS[kind])]
        (found,) = read(folder, entries).pictures[0].objects
        coco = COCO(str(folder / "coco.json"))
        expected = coco.annToMask(coco.anns[5]).astype(bool)
        mask = found.mask(HEIGHT, WIDTH)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)
        assert expected.any()
        x, y, w, h = coco_mask.toBbox(coco.annToRLE(coco.anns[5]))
        assert found.box == (x, y, x + w, y + h)

    def test_an_uncompressed_rle_is_kept_compressed(self, folder: Path) -> None:
        entries = content()
        entries["annotations"] = [annotation(5, SEGMENTATIONS["uncompressed RLE"])]
        assert read(folder, entries).pictures[0].objects[0].segmentation == RING

    def test_scenes_are_a_dataset(self, tmp_path: Path) -> None:
        write_scenes(tmp_path, 70, 3, (96, 128))
        dataset = read_dataset(tmp_path / "instances.json", tmp_path)
        assert dataset.classes == CATEGORIES
        for seed, picture in enumerate(dataset.pictures, 70):
            scene = make_scene(seed, (96, 128))
            np.testing.assert_array_equal(read_picture(picture), scene.image)
            for item, found in zip(scene.objects, picture.objects, strict=True):
                np.testing.assert_array_equal(found.mask(96, 128), scene.mask(item))
                assert (found.box, found.ignore) == (item.box, item.ignore)
                assert dataset.classes[found.class_index] == item.category

    def test_a_picture_may_have_no_objects(self, folder: Path) -> None:
        entries = content()
        entries["annotations"] = []
        assert [picture.objects for picture in read(folder, entries).pictures] == [(), ()]

    def test_a_box_over_the_edge_is_clipped(self, folder: Path) -> None:
        entries = content()
        entries["annotations"][0]["bbox"] = [-2, 4, 50, 26.5]
        assert read(folder, entries).pictures[0].objects[0].box == (0, 4, 40, 30)

    @pytest.mark.parametrize("absent", [None, [], {}])
    def test_a_crowd_without_a_segmentation_is_its_box(self, folder: Path, absent: Any) -> None:
        entries = content()
        entries["annotations"] = [annotation(5, absent, bbox=[4, 6, 10, 12], iscrowd=1)]
        (found,) = read(folder, entries).pictures[0].objects
        assert found.crowd
        assert masks.bounding_box(found.mask(HEIGHT, WIDTH)) == (4, 6, 14, 18)
        assert np.count_nonzero(found.mask(HEIGHT, WIDTH)) == 120

    def test_whole_numbers_may_be_written_with_a_point(self, folder: Path) -> None:
        entries = content()
        entries["images"][0].update(id=1.0, width=40.0)
        assert read(folder, entries).pictures[0].width == WIDTH

    def test_windows_paths_and_a_byte_order_mark(self, folder: Path) -> None:
        entries = content()
        entries["images"][1]["file_name"] = ".\\deep\\two.png"
        (folder / "coco.json").write_text("\ufeff" + json.dumps(entries), "utf-8")
        assert read_dataset(folder / "coco.json", folder).pictures[1].path == folder / "deep" / "two.png"

    @settings(max_examples=200, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_every_rle_that_pycocotools_writes_is_accepted(
        self, height: int, width: int, seed: int, part: float
    ) -> None:
        from segserve.training.coco import _runs

        mask = np.random.default_rng(seed).random((height, width)) < part
        np.testing.assert_array_equal(_runs(masks.encode_rle(mask)["counts"]), runs(mask))


def place(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the value at a path such as ``annotations.0.bbox``; ... removes it."""

    def change(entries: dict[str, Any]) -> None:
        *way, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        target: Any = entries
        for part in way:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return change


class TestDamage:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("images", ..., "coco.json: images: expected a list, got nothing"),
            ("images", {}, "images: expected a list, got {}"),
            ("images", [], "images: expected at least one, got"),
            ("annotations", ..., "annotations: expected a list, got nothing"),
            ("categories", [], "categories: expected at least one"),
            ("categories.1.name", "chair", "categories: the name 'chair' is given to 2 of them"),
            (
                "categories.1.name",
                " ",
                'category 3: name: expected the name of a class, 1 to 200 printable characters, got " "',
            ),
            ("categories.1.id", 7, r"categories\[1\]: id: 7 is also the id of an earlier one of the categories"),
            ("images.1.id", 1, r"images\[1\]: id: 1 is also the id of an earlier one of the images"),
            ("images.0.id", "1", r'images\[0\]: id: expected a whole number of 0 or more, got "1"'),
            ("images.0", "one.png", r'images\[0\]: expected an object, got "one.png"'),
            ("images.0.height", 0, "image 1: height: expected a whole number of 1 or more, got 0"),
            ("images.0.width", ..., "image 1: width: expected a whole number of 1 or more, got nothing"),
            ("images.0.width", 10**9, "image 1: width: expected at most 65536 pixels, got 1000000000"),
            ("images.0.file_name", "../one.png", "image 1: file_name: expected a path within the folder of images"),
            ("images.0.file_name", "deep/../../one.png", "file_name: expected a path within the folder"),
            ("images.0.file_name", "..\\one.png", "file_name: expected a path within the folder"),
            ("images.0.file_name", "/etc/passwd", "file_name: expected a path within the folder"),
            ("images.0.file_name", "one\0.png", "file_name: expected a path within the folder"),
            ("images.0.file_name", "x" * 10_000, "1 of its 2 pictures are missing"),
            ("images.0.file_name", "\ud800.png", "1 of its 2 pictures are missing"),
            ("images.0.width", 40.5, "image 1: width: expected a whole number of 1 or more, got 40.5"),
            ("images.0.file_name", ".", "file_name: expected a path within the folder"),
            ("images.0.file_name", 7, "image 1: file_name: expected a text, got 7"),
            ("annotations.1.id", 11, r"annotations\[1\]: id: 11 is also the id of an earlier one"),
            ("annotations.1.id", ..., r"annotations\[1\]: id: expected a whole number of 0 or more, got nothing"),
            ("annotations.0.image_id", 5, "annotation 11: image_id: expected the id of one of the 2 images, got 5"),
            ("annotations.0.category_id", 0, "annotation 11: category_id: expected the id of one of the 2 categories"),
            ("annotations.0.iscrowd", 2, "annotation 11: iscrowd: expected 0 or 1, got 2"),
            ("annotations.0.ignore", "yes", 'annotation 11: ignore: expected 0 or 1, got "yes"'),
            ("annotations.0.bbox", [1, 2, 3], r"annotation 11: bbox: expected four numbers .*, got \[1, 2, 3\]"),
            ("annotations.0.bbox", [1, 2, 3, None], "annotation 11: bbox: expected four numbers"),
            ("annotations.0.bbox", [1, 2, 3, float("nan")], "annotation 11: bbox: expected four numbers"),
            ("annotations.0.bbox", [1, 2, 3, 0], "annotation 11: bbox: .* area within the 40 x 30 picture"),
            ("annotations.0.bbox", [40, 2, 3, 3], "annotation 11: bbox: .* area within the 40 x 30 picture"),
            ("annotations.0.bbox", [4, -9, 3, 9], "annotation 11: bbox: .* area within the 40 x 30 picture"),
            (
                "annotations.0.segmentation",
                ...,
                "annotation 11: segmentation: expected polygons or an RLE, got nothing",
            ),
            ("annotations.0.segmentation", [], "annotation 11: segmentation: expected polygons or an RLE"),
            ("annotations.0.segmentation", {}, "annotation 11: segmentation.size: expected .30, 40. as of its picture"),
            ("annotations.0.segmentation", "box", "annotation 11: segmentation: expected polygons or an RLE"),
            ("annotations.0.segmentation", [[1, 1, 9, 9]], r"segmentation\[0\]: expected an even count of 6 or more"),
            ("annotations.0.segmentation", [1, 1, 9, 9, 5, 9], r"segmentation\[0\]: expected an even count"),
            ("annotations.0.segmentation.0", [1, 1, 9, 9, 5, 9, 3], "expected an even count of 6 or more numbers"),
            ("annotations.0.segmentation.0", [1, 1, 9, "9", 5, 9], "expected an even count of 6 or more numbers"),
            ("annotations.0.segmentation.0.3", 1e12, r"segmentation\[0\]: expected corners in or near the 40 x 30"),
            ("annotations.1.segmentation.size", [40, 30], r"annotation 12: segmentation.size: expected \[30, 40\]"),
            (
                "annotations.1.segmentation.counts",
                "",
                "annotation 12: segmentation.counts: expected the runs of 30 x 40",
            ),
            ("annotations.1.segmentation.counts", RING["counts"][:-1], "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", RING["counts"] + "1", "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", "oooooooooooooooo0", "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", "née", "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", [1000, 100], "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", [1300, -100], "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", [0.5, 1199.5], "expected the runs of 30 x 40"),
            ("annotations.1.segmentation.counts", None, "expected the runs of 30 x 40 .* got nothing"),
            ("annotations.1.segmentation.counts", [1200], "annotation 12: .* at least one pixel of the object"),
        ],
    )
    def test_the_field_is_named(self, folder: Path, path: str, value: Any, message: str) -> None:
        entries = copy.deepcopy(content())
        place(path, value)(entries)
        with pytest.raises(InvalidRequestError, match=message) as caught:
            read(folder, entries)
        assert caught.value.message.startswith(str(folder / "coco.json"))

    def test_an_outline_without_a_pixel_gives_no_box(self, folder: Path) -> None:
        entries = content()
        entries["annotations"] = [annotation(5, [[41, 4, 50, 4, 45, 9]])]
        with pytest.raises(InvalidRequestError, match="annotation 5: segmentation: expected at least one pixel within"):
            read(folder, entries)

    def test_missing_pictures_are_counted_and_the_first_are_named(self, folder: Path) -> None:
        entries = content()
        entries["images"] += [
            {"id": number, "file_name": f"{number}.png", "width": 9, "height": 9} for number in range(3, 8)
        ]
        with pytest.raises(
            InvalidRequestError, match=r"5 of its 7 pictures are missing: .*3\.png, .*5\.png and 2 more"
        ):
            read(folder, entries)

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"a"', "[]", "null", "\xff"])
    def test_no_coco_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "coco.json").write_text(text, "latin-1")
        with pytest.raises(InvalidRequestError, match=r"coco\.json: (not a JSON file|expected an object)"):
            read_dataset(tmp_path / "coco.json", tmp_path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequestError, match=r"coco\.json: cannot be read \(No such file"):
            read_dataset(tmp_path / "coco.json", tmp_path)

    def test_a_mask_of_another_size_is_refused(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="the RLE is of size"):
            read(folder, content()).pictures[1].objects[0].mask(WIDTH, HEIGHT)


class TestPictures:
    def test_exif_turns_the_picture(self, folder: Path) -> None:
        upright = make_scene(5, (HEIGHT + 10, WIDTH + 20)).image
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(upright).copy()).save(folder / "one.png", exif=exif)
        entries = content()
        entries["images"][0].update(height=HEIGHT + 10, width=WIDTH + 20)
        np.testing.assert_array_equal(read_picture(read(folder, entries).pictures[0]), upright)
        entries["images"][0].update(height=WIDTH + 20, width=HEIGHT + 10)
        with pytest.raises(
            InvalidRequestError, match=r"is 60 x 40, its annotations say 40 x 60\. Its EXIF orientation"
        ):
            read_picture(read(folder, entries).pictures[0])

    def test_another_size(self, folder: Path) -> None:
        entries = content()
        entries["images"][0]["width"] = WIDTH + 1
        with pytest.raises(
            InvalidRequestError, match=r"one\.png: the picture is 40 x 30, its annotations say 41 x 30\.$"
        ):
            read_picture(read(folder, entries).pictures[0])

    @pytest.mark.parametrize(
        ("damage", "message"),
        [(b"", r"one\.png: The image is empty"), (b"hello", r"one\.png: .*not an image"), (None, "cannot be read")],
    )
    def test_damage_names_the_file(self, folder: Path, damage: bytes | None, message: str) -> None:
        picture = read(folder, content()).pictures[0]
        picture.path.unlink() if damage is None else picture.path.write_bytes(damage)
        with pytest.raises(InvalidRequestError, match=message):
            read_picture(picture)
