"""VGG Image Annotator's files: shapes, both versions of the form, and what names the class."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segserve import masks
from segserve.errors import InvalidRequestError
from segserve.training.annotated_picture import AnnotatedPicture, LeftOut, PictureFolder
from segserve.training.coco import rasterized
from segserve.training.json_fields import find_json
from segserve.training.via import ClassNaming, Entry, choose_naming, read_entries, read_entry

HEIGHT, WIDTH = 40, 60
BALLOON = ClassNaming(None, "balloon")


def polygon(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"name": "polygon", "all_points_x": [x for x, _ in corners], "all_points_y": [y for _, y in corners]}


SQUARE = polygon((10, 10), (20, 10), (20, 20), (10, 20), (10, 10))


def region(shape: Any, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def picture(regions: Any, filename: str = "room.png") -> dict[str, Any]:
    return {"fileref": "", "size": 123, "filename": filename, "regions": regions, "file_attributes": {}}


def write(folder: Path, content: Any, name: str = "via_region_data.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(content), "utf-8")
    return file


def entries(file: Path) -> list[Entry]:
    found = read_entries(file)
    assert isinstance(found, list)
    return found


def read(folder: Path, regions: Any, naming: ClassNaming = BALLOON) -> AnnotatedPicture:
    (entry,) = entries(write(folder, {"room.png123": picture(regions)}))
    found = read_entry(entry, PictureFolder(folder), naming)
    assert isinstance(found, AnnotatedPicture)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "room.png")
    return tmp_path


class TestForms:
    @pytest.mark.parametrize("regions", [[region(SQUARE)], {"0": region(SQUARE)}])
    @pytest.mark.parametrize("project", [False, True])
    def test_exports_and_projects_with_lists_and_objects(self, folder: Path, regions: Any, project: bool) -> None:
        content: Any = {"room.png123": picture(regions)}
        if project:
            content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
        (entry,) = entries(write(folder, content))
        found = read_entry(entry, PictureFolder(folder), BALLOON)
        assert isinstance(found, AnnotatedPicture)
        assert (found.name, found.height, found.width) == ("room.png", HEIGHT, WIDTH)
        (square,) = found.annotations
        assert square.label == "balloon"
        mask = masks.decode_rle(rasterized(square.segmentation, HEIGHT, WIDTH))
        assert masks.bounding_box(mask) == (10, 10, 20, 20)
        assert mask.sum() == 100

    def test_pictures_without_regions_are_left_out(self, folder: Path) -> None:
        for regions in ([], {}):
            (entry,) = entries(write(folder, {"room.png123": picture(regions)}))
            assert read_entry(entry, PictureFolder(folder), BALLOON) == LeftOut("pictures without regions")

    @pytest.mark.parametrize("content", [{}, [], {"shapes": [], "imagePath": "a.png"}, {"images": [{}]}])
    def test_other_json_files_are_left_out(self, folder: Path, content: Any) -> None:
        assert read_entries(write(folder, content)) == LeftOut("JSON files that are not of VGG Image Annotator")

    def test_files_are_found_at_any_depth(self, folder: Path) -> None:
        for part in ("val", "train"):
            (folder / part).mkdir()
            write(folder / part, {})
        assert [file.parent.name for file in find_json(folder)] == ["train", "val"]
        assert find_json(folder / "val" / "via_region_data.json") == [folder / "val" / "via_region_data.json"]
        (folder / "empty").mkdir()
        with pytest.raises(InvalidRequestError, match="expected a folder with JSON files of annotations, found none"):
            find_json(folder / "empty")

    def test_the_size_is_that_of_the_upright_picture(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "room.png", exif=exif)
        assert (read(folder, [region(SQUARE)]).height, read(folder, [region(SQUARE)]).width) == (HEIGHT, WIDTH)


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "inside"),
        [
            (
                {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 12},
                lambda x, y: (abs(x - 20) < 10) & (abs(y - 11) < 6),
            ),
            ({"name": "circle", "cx": 30, "cy": 20, "r": 12}, lambda x, y: np.hypot(x - 30, y - 20) <= 12),
            (
                {"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 8},
                lambda x, y: ((x - 30) / 20) ** 2 + ((y - 20) / 8) ** 2 <= 1,
            ),
            (
                {"name": "ellipse", "cx": 30, "cy": 20, "rx": 18, "ry": 6, "theta": math.pi / 4},
                lambda x, y: ((x + y - 50) / 18) ** 2 / 2 + ((y - x + 10) / 6) ** 2 / 2 <= 1,
            ),
        ],
        ids=["rect", "circle", "ellipse", "turned ellipse"],
    )
    def test_its_pixels(self, folder: Path, shape: dict[str, Any], inside: Any) -> None:
        (found,) = read(folder, [region(shape)]).annotations
        rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        mask = masks.decode_rle(rasterized(found.segmentation, HEIGHT, WIDTH))
        assert masks.iou(mask, inside(columns, rows)) > 0.95

    def test_what_has_no_area_is_left_out_and_counted(self, folder: Path) -> None:
        shapes = [
            {"name": "point", "cx": 3, "cy": 4},
            {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 9]},
            polygon((1, 1), (5, 5)),
            {"name": "rect", "x": 62, "y": 5, "width": 20, "height": 12},
            SQUARE,
        ]
        found = read(folder, [region(shape) for shape in shapes])
        assert len(found.annotations) == 1
        assert found.skipped == Counter(
            {
                "point: without an area": 1,
                "polyline: without an area": 1,
                "polygon of less than 3 corners": 1,
                "without a pixel in the picture": 1,
            }
        )


class TestClasses:
    @pytest.mark.parametrize(
        ("attributes", "expected"),
        [
            ([{"name": "cat"}, {"name": "dog"}], "name"),
            ([{"species": "cat"}, {"species": "dog", "note": ""}], "species"),
            ([{"name": "cat", "occluded": "yes"}], "name"),
            ([{"color": "red", "class": "cat"}], "class"),
        ],
    )
    def test_the_attribute_is_found(self, folder: Path, attributes: list[dict[str, Any]], expected: str) -> None:
        content = {"room.png1": picture([region(SQUARE, **values) for values in attributes])}
        assert choose_naming(entries(write(folder, content)), None, None) == ClassNaming(expected, None)

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({}, r"no attribute that names a class: say which class all are of \(--class\)"),
            ({"color": "red", "size": "2"}, r"have the attributes color, size: say which .* \(--attribute\)"),
        ],
    )
    def test_or_must_be_said(self, folder: Path, attributes: dict[str, Any], message: str) -> None:
        content = {"room.png1": picture([region(SQUARE, **attributes)])}
        with pytest.raises(InvalidRequestError, match=message):
            choose_naming(entries(write(folder, content)), None, None)

    @pytest.mark.parametrize(
        ("naming", "expected"),
        [
            (ClassNaming("name", None), ["red balloon", "kite", "kite"]),
            (ClassNaming("kind", "balloon"), ["round", "balloon", "balloon"]),
            (ClassNaming(None, "balloon"), ["balloon"] * 3),
        ],
    )
    def test_names(self, folder: Path, naming: ClassNaming, expected: list[str]) -> None:
        regions = [
            region(SQUARE, name=" red balloon", kind="round"),
            region(SQUARE, name={"kite": True, "balloon": False}, kind=""),
            region(SQUARE, name="kite"),
        ]
        assert [found.label for found in read(folder, regions, naming).annotations] == expected

    @pytest.mark.parametrize("value", ["", None, {"kite": True, "balloon": True}, 7])
    def test_no_single_name(self, folder: Path, value: Any) -> None:
        message = r"room.png123: regions\[1\]: region_attributes.name: expected the name of a class"
        with pytest.raises(InvalidRequestError, match=message):
            read(folder, [region(SQUARE, name="kite"), region(SQUARE, name=value)], ClassNaming("name", None))


class TestDamage:
    @pytest.mark.parametrize(
        ("regions", "message"),
        [
            (None, "room.png123: regions: expected a list or an object, got nothing"),
            (["square"], r'regions\[0\]: expected an object, got "square"'),
            ({"7": {}}, r"regions\[7\]: shape_attributes: expected an object, got nothing"),
            ([region({"name": "heart"})], 'shape_attributes: name: expected one of polygon, .*, got "heart"'),
            ([region({"name": "circle", "cx": 1, "cy": 2})], "shape_attributes: r: expected a number, got nothing"),
            ([region({"name": "rect", "x": "1"})], 'shape_attributes: x: expected a number, got "1"'),
            ([region({"name": "rect", "x": 1, "y": 1, "width": 1e12, "height": 3})], "a shape in or near the 60 x 40"),
            ([region({"name": "circle", "cx": 1, "cy": 1, "r": 1e12})], "a shape in or near the 60 x 40"),
            ([region({**SQUARE, "all_points_y": [1, 2]})], "all_points_y: expected 5 numbers"),
            ([region({**SQUARE, "all_points_x": None})], "all_points_x: expected a list"),
            ([region({**SQUARE, "all_points_x": [1, 2, 3, 4, None]})], "all_points_x: expected 5 numbers"),
        ],
    )
    def test_the_field_is_named(self, folder: Path, regions: Any, message: str) -> None:
        with pytest.raises(InvalidRequestError, match=message) as caught:
            read(folder, regions)
        assert caught.value.message.startswith(f"{folder / 'via_region_data.json'}: room.png123: ")

    @pytest.mark.parametrize(
        ("filename", "message"),
        [
            ("gone.png", "filename: there is no picture 'gone.png' in "),
            ("", 'filename: expected a text, got ""'),
            ("../outside.png", "filename: the picture .* is outside of .*--images"),
        ],
    )
    def test_pictures(self, folder: Path, filename: str, message: str) -> None:
        inner = folder / "inner"
        inner.mkdir()
        Image.new("RGB", (9, 9)).save(folder / "outside.png")
        (entry,) = entries(write(inner, {"key": picture([region(SQUARE)], filename)}))
        with pytest.raises(InvalidRequestError, match=message):
            read_entry(entry, PictureFolder(inner), BALLOON)
