"""labelme's files: what was drawn is what COCO's tools see; damage is named; scenes go there and back."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segserve import imaging, masks
from segserve.errors import InvalidRequestError
from segserve.training.annotated_picture import AnnotatedPicture, Annotation, LeftOut, PictureFolder
from segserve.training.coco import rasterized
from segserve.training.labelme import read_file
from segserve.training.scenes import make_scene
from segserve.training.scenes.labelme_files import pixel_outlines, write_labelme_scenes

HEIGHT, WIDTH = 40, 60


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label: str, kind: str | None, points: list[list[float]], **fields: Any) -> dict[str, Any]:
    """A shape of labelme 5; without a kind, of labelme 3, which had polygons only."""
    known = {} if kind is None else {"shape_type": kind, "group_id": None, "flags": {}, "description": ""}
    return {"label": label, "points": points, **known, **fields}


def write(folder: Path, shapes: list[Any], name: str = "room.json", **fields: Any) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {"done": True}, "shapes": shapes, "imagePath": "room.png"}
    content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH, **fields}
    file.write_text(json.dumps(content), "utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "room.png")
    return tmp_path


def read(file: Path, folder: Path) -> AnnotatedPicture:
    found = read_file(file, folder, PictureFolder(folder))
    assert isinstance(found, AnnotatedPicture)
    return found


def mask_of(annotation: Annotation) -> np.ndarray:
    segmentation = annotation.segmentation
    return masks.decode_rle(rasterized(segmentation, HEIGHT, WIDTH) if isinstance(segmentation, list) else segmentation)


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def disk(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


class TestShapes:
    @pytest.mark.parametrize("kind", ["polygon", None])
    def test_polygon(self, folder: Path, kind: str | None) -> None:
        corners = [[5, 4], [30, 4], [30, 20], [5, 20]]
        (found,) = read(write(folder, [shape("sofa", kind, corners)]), folder).annotations
        assert found.label == "sofa"
        assert found.segmentation == [[5, 4, 30, 4, 30, 20, 5, 20]]
        np.testing.assert_array_equal(mask_of(found), block(5, 4, 30, 20))

    @pytest.mark.parametrize("points", [[[5, 4], [30, 20]], [[30, 4], [5, 20]], [[30, 20], [5, 4]]])
    def test_rectangle_from_any_two_corners(self, folder: Path, points: list[list[float]]) -> None:
        (found,) = read(write(folder, [shape("sofa", "rectangle", points)]), folder).annotations
        np.testing.assert_array_equal(mask_of(found), block(5, 4, 30, 20))

    def test_oriented_rectangle(self, folder: Path) -> None:
        points = [[10, 5], [30, 15], [25, 25], [5, 15]]
        (found,) = read(write(folder, [shape("sofa", "oriented_rectangle", points)]), folder).annotations
        assert found.segmentation == [[10, 5, 30, 15, 25, 25, 5, 15]]

    @pytest.mark.parametrize(("radius", "least"), [(3, 0.85), (17.5, 0.97)])
    def test_circle_from_center_and_a_point_on_it(self, folder: Path, radius: float, least: float) -> None:
        points = [[30.0, 20.0], [30.0 + radius * 0.6, 20.0 + radius * 0.8]]
        (found,) = read(write(folder, [shape("lamp", "circle", points)]), folder).annotations
        mask = mask_of(found)
        assert masks.iou(mask, disk(30, 20, radius)) > least
        assert np.count_nonzero(mask) == pytest.approx(math.pi * radius**2, rel=0.03)

    @pytest.mark.parametrize("values", [1, 255, True])
    def test_mask_in_its_box_whose_last_pixel_counts(self, folder: Path, values: int) -> None:
        drawn = np.zeros((6, 9), bool if values is True else np.uint8)
        drawn[1:, :8] = values
        drawn[3, 4] = 0
        (found,) = read(
            write(folder, [shape("rug", "mask", [[12.0, 7.0], [20.0, 12.0]], mask=png(drawn))]), folder
        ).annotations
        expected = block(12, 8, 20, 13)
        expected[10, 16] = False
        np.testing.assert_array_equal(mask_of(found), expected)

    @pytest.mark.parametrize(("left", "top"), [(-4, -3), (55, 36), (-4, 36)])
    def test_a_mask_over_the_edge_is_cut(self, folder: Path, left: int, top: int) -> None:
        points = [[left, top], [left + 9, top + 7]]
        (found,) = read(
            write(folder, [shape("rug", "mask", points, mask=png(np.ones((8, 10), np.uint8)))]), folder
        ).annotations
        expected = block(max(left, 0), max(top, 0), min(left + 10, WIDTH), min(top + 8, HEIGHT))
        np.testing.assert_array_equal(mask_of(found), expected)

    def test_shapes_of_one_group_and_label_are_one_object(self, folder: Path) -> None:
        parts = [
            shape("sofa", "rectangle", [[2, 2], [8, 8]], group_id=1),
            shape("chair", "rectangle", [[30, 2], [38, 8]], group_id=1),
            shape("sofa", "rectangle", [[20, 2], [28, 8]], group_id=1),
            shape("sofa", "rectangle", [[2, 20], [8, 28]], group_id=2),
            shape("sofa", "rectangle", [[20, 20], [28, 28]]),
            shape("sofa", "rectangle", [[40, 20], [48, 28]]),
        ]
        found = read(write(folder, parts), folder).annotations
        assert [item.label for item in found] == ["sofa", "chair", "sofa", "sofa", "sofa"]
        np.testing.assert_array_equal(mask_of(found[0]), block(2, 2, 8, 8) | block(20, 2, 28, 8))
        assert len(found[0].segmentation) == 2

    def test_a_group_of_a_polygon_and_a_mask_is_their_union(self, folder: Path) -> None:
        parts = [
            shape("sofa", "rectangle", [[2, 2], [8, 8]], group_id=0),
            shape("sofa", "mask", [[5, 5], [12, 12]], group_id=0, mask=png(np.ones((8, 8), bool))),
        ]
        (found,) = read(write(folder, parts), folder).annotations
        np.testing.assert_array_equal(mask_of(found), block(2, 2, 8, 8) | block(5, 5, 13, 13))

    def test_what_has_no_area_is_left_out_and_counted(self, folder: Path) -> None:
        shapes = [
            shape("sofa", "rectangle", [[2, 2], [8, 8]]),
            shape("sofa", "point", [[2, 2]]),
            shape("sofa", "line", [[2, 2], [9, 9]]),
            shape("sofa", "line", [[2, 2], [9, 9]]),
            shape("sofa", "linestrip", [[2, 2], [9, 9], [3, 9]]),
            shape("sofa", "polygon", [[2, 2], [9, 9]]),
            shape("sofa", "rectangle", [[70, 2], [78, 8]]),
            shape("__ignore__", "rectangle", [[2, 2], [8, 8]]),
        ]
        found = read(write(folder, shapes), folder)
        assert len(found.annotations) == 1
        assert found.skipped == Counter(
            {
                "line: without an area": 2,
                "point: without an area": 1,
                "linestrip: without an area": 1,
                "polygon of less than 3 corners": 1,
                "without a pixel in the picture": 1,
                "labeled __ignore__": 1,
            }
        )

    def test_the_flag_ignore(self, folder: Path) -> None:
        shapes = [
            shape("sofa", "rectangle", [[2, 2], [8, 8]], flags={"ignore": True, "blurred": True}),
            shape("sofa", "rectangle", [[22, 2], [28, 8]], flags={"ignore": False}),
        ]
        assert [item.ignore for item in read(write(folder, shapes), folder).annotations] == [True, False]

    def test_labels_in_any_script_are_one_class_however_they_are_typed(self, folder: Path) -> None:
        labels = ["Stühle", "Stu\u0308hle ", "沙发", "🪑"]
        shapes = [shape(label, "rectangle", [[2, 2], [8, 8]]) for label in labels]
        found = read(write(folder, shapes), folder).annotations
        assert [item.label for item in found] == ["Stühle", "Stühle", "沙发", "🪑"]


class TestPictures:
    def test_size_and_name(self, folder: Path) -> None:
        found = read(write(folder, []), folder)
        assert (found.name, found.height, found.width, found.annotations) == ("room.png", HEIGHT, WIDTH, ())
        assert not found.embedded

    @pytest.mark.parametrize(
        "image_path",
        [
            "room.png",
            ".\\room.png",
            "../deep/room.png",
            "..\\deep\\room.png",
            "C:\\Users\\me\\room.png",
            "/home/me/room.png",
        ],
    )
    def test_the_picture_is_found_beside_the_file_whatever_the_path(self, folder: Path, image_path: str) -> None:
        file = write(folder, [], name="deep/room.json", imagePath=image_path)
        (folder / "room.png").rename(folder / "deep" / "room.png")
        assert read(file, folder).name == "deep/room.png"

    def test_the_picture_is_found_in_the_folder_of_pictures(self, folder: Path, tmp_path: Path) -> None:
        annotations = tmp_path / "annotations"
        file = write(annotations, [], imagePath="room.png")
        found = read_file(file, annotations, PictureFolder(folder))
        assert isinstance(found, AnnotatedPicture)
        assert (found.name, found.embedded) == ("room.png", False)

    def test_a_picture_outside_of_the_folder_is_refused(self, folder: Path) -> None:
        annotations = folder / "annotations"
        file = write(annotations, [], imagePath="../room.png")
        with pytest.raises(
            InvalidRequestError, match=r"room\.json: imagePath: the picture .* is outside of .*--images"
        ):
            read_file(file, annotations, PictureFolder(annotations))

    def test_an_embedded_picture_stands_in_for_a_missing_one(self, folder: Path) -> None:
        picture = base64.b64encode((folder / "room.png").read_bytes()).decode()
        (folder / "room.png").unlink()
        found = read(
            write(folder, [], name="deep/room.json", imagePath="..\\photos\\room.png", imageData=picture), folder
        )
        assert (found.name, found.embedded, found.height, found.width) == ("deep/room.png", True, HEIGHT, WIDTH)

    def test_old_files_have_no_size(self, folder: Path) -> None:
        found = read(write(folder, [], imageHeight=None, imageWidth=None), folder)
        assert (found.height, found.width) == (HEIGHT, WIDTH)

    def test_the_size_is_that_of_the_upright_picture(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 8
        Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "room.png", exif=exif)
        found = read(write(folder, []), folder)
        assert (found.height, found.width) == (HEIGHT, WIDTH)


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            ({"shapes": None}, "room.json: shapes: expected a list, got nothing"),
            ({"shapes": ["sofa"]}, r'shapes\[0\]: expected an object, got "sofa"'),
            ({"imagePath": None}, "room.json: imagePath: expected a text, got nothing"),
            ({"imagePath": "gone.png"}, "imagePath: there is no picture 'gone.png', nor is one embedded"),
            ({"imagePath": "gone\0.png"}, "imagePath: there is no picture"),
            ({"imagePath": "x" * 10_000 + ".png"}, "imagePath: there is no picture"),
            ({"imagePath": "\ud800.png"}, "imagePath: there is no picture"),
            (
                {"imagePath": "gone\0.png", "imageData": png(np.ones((40, 60), bool))},
                "imagePath: expected the path of a",
            ),
            (
                {"imagePath": "x" * 10_000, "imageData": png(np.ones((40, 60), bool))},
                "imagePath: expected the path of a",
            ),
            (
                {"imagePath": "photos/..", "imageData": png(np.ones((40, 60), bool))},
                "imagePath: expected the path of a",
            ),
            (
                {"imagePath": "\ud800.png", "imageData": png(np.ones((40, 60), bool))},
                "imagePath: expected the path of a",
            ),
            ({"imagePath": "gone.png", "imageData": "%%%"}, 'imageData: expected a picture in base64, got "%%%"'),
            ({"imagePath": "gone.png", "imageData": "aGVsbG8="}, "room.json: imageData: .*not an image"),
            ({"imageHeight": 41}, "imageHeight: expected 40, as the upright picture is 60 x 40, got 41"),
            ({"imageWidth": "60"}, 'imageWidth: expected 60, as the upright picture is 60 x 40, got "60"'),
        ],
    )
    def test_of_the_file(self, folder: Path, damage: dict[str, Any], message: str) -> None:
        file = write(folder, **{"shapes": [], **damage})
        with pytest.raises(InvalidRequestError, match=message):
            read(file, folder)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                {"label": ""},
                r'room.json: shapes\[1\]: label: expected the name of a class, 1 to 200 printable characters, got ""',
            ),
            ({"label": None}, "label: expected the name of a class, .* got nothing"),
            ({"label": "so\nfa"}, "label: expected the name of a class"),
            ({"label": "s" * 201}, "label: expected the name of a class"),
            ({"shape_type": "star"}, r'shapes\[1\]: shape_type: expected one of polygon, .*, got "star"'),
            ({"points": []}, r"shapes\[1\]: points: expected a list of \[x, y\], got \[\]"),
            ({"points": [[1, 2], [3, 4], [5]]}, r"points: expected a list of \[x, y\]"),
            ({"points": [[1, 2], [3, float("inf")], [5, 6]]}, r"points: expected a list of \[x, y\]"),
            ({"points": [[1, 2], [3, 1e12], [5, 6]]}, "points: expected corners in or near the 60 x 40 picture"),
            ({"shape_type": "circle"}, "points: expected two points of a circle"),
            ({"shape_type": "circle", "points": [[1, 2], [3, 1e12]]}, "points: expected corners in or near"),
            ({"shape_type": "mask"}, "mask: expected a text, got nothing"),
            ({"shape_type": "mask", "mask": "!"}, "mask: expected a picture in base64"),
            ({"shape_type": "mask", "mask": "aGVsbG8="}, "mask: .*not an image"),
            (
                {"shape_type": "mask", "mask": png(np.ones((5, 5), bool)), "points": [[2, 2], [7, 6]]},
                "points: expected corners 4 and 4 pixels apart",
            ),
            ({"shape_type": "mask", "mask": png(np.ones((5, 5), bool))}, "points: expected the two corners"),
        ],
    )
    def test_of_a_shape(self, folder: Path, damage: dict[str, Any], message: str) -> None:
        sound = shape("sofa", "polygon", [[2, 2], [9, 2], [9, 9]])
        with pytest.raises(InvalidRequestError, match=message):
            read(write(folder, [sound, {**sound, **damage}]), folder)

    def test_a_broken_picture(self, folder: Path) -> None:
        (folder / "room.png").write_bytes(b"nonsense")
        with pytest.raises(InvalidRequestError, match=r"room\.png: .*not an image"):
            read(write(folder, []), folder)

    @pytest.mark.parametrize("content", ['{"images": []}', "[]", "3"])
    def test_other_json_files_are_left_out(self, folder: Path, content: str) -> None:
        (folder / "other.json").write_text(content)
        found = read_file(folder / "other.json", folder, PictureFolder(folder))
        assert found == LeftOut("JSON files that are not labelme's")


class TestScenes:
    def test_there_and_back_every_pixel_is_kept(self, tmp_path: Path) -> None:
        kinds: Counter[str] = Counter()
        write_labelme_scenes(tmp_path, 600_000_100, 12, (240, 320))
        for seed in range(600_000_100, 600_000_112):
            scene = make_scene(seed, (240, 320))
            file = tmp_path / f"{seed}.json"
            found = read(file, tmp_path)
            np.testing.assert_array_equal(imaging.decode((tmp_path / found.name).read_bytes()), scene.image)
            for item, annotation in zip(scene.objects, found.annotations, strict=True):
                assert (annotation.label, annotation.ignore) == (item.category, item.ignore)
                segmentation = annotation.segmentation
                rle = rasterized(segmentation, 240, 320) if isinstance(segmentation, list) else segmentation
                assert masks.iou(masks.decode_rle(rle), scene.mask(item)) == 1.0
            shapes = json.loads(file.read_text())["shapes"]
            kinds.update(drawn["shape_type"] for drawn in shapes)
            kinds["grouped"] += sum(drawn["group_id"] is not None for drawn in shapes)
        assert min(kinds["polygon"], kinds["mask"], kinds["grouped"]) > 0

    def test_outlines_have_few_corners(self) -> None:
        assert pixel_outlines(block(5, 4, 30, 20)) == [[[5, 4], [5, 20], [30, 20], [30, 4]]]
        assert pixel_outlines(block(5, 4, 30, 20) & ~block(8, 8, 9, 9)) is None

    @pytest.mark.parametrize("seed", range(20))
    def test_any_mask_is_traced_exactly_unless_it_has_a_hole(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        for _ in range(4):
            x, y, radius = random.uniform(0, WIDTH), random.uniform(0, HEIGHT), random.uniform(0.5, 14)
            mask |= disk(x, y, radius)
        mask |= random.random(mask.shape) < 0.01
        background, _ = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)
        outlines = pixel_outlines(mask)
        assert (outlines is None) == (background > 2)  # label 0 is the mask, 1 what is around it, the others are holes
        if outlines is None:
            return
        flat = [[value for corner in outline for value in corner] for outline in outlines]
        np.testing.assert_array_equal(masks.decode_rle(rasterized(flat, HEIGHT, WIDTH)), mask)

    def test_only_some_categories(self, tmp_path: Path) -> None:
        write_labelme_scenes(tmp_path, 600_000_100, 4, (120, 160), categories=("window", "floor"))
        labels = {
            shape["label"] for file in tmp_path.glob("*.json") for shape in json.loads(file.read_text())["shapes"]
        }
        assert labels == {"window", "floor"}

    def test_an_unknown_category(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequestError, match=r"categories: expected some of wall, .*, got unicorn"):
            write_labelme_scenes(tmp_path / "out", 1, 1, (64, 64), categories=["sofa", "unicorn"])
        assert not (tmp_path / "out").exists()

    def test_scenes_replace_earlier_ones_and_nothing_else(self, tmp_path: Path) -> None:
        write_labelme_scenes(tmp_path, 10, 3, (64, 64))
        (tmp_path / "000012.png").unlink()  # as an interruption leaves it
        write_labelme_scenes(tmp_path, 12, 1, (64, 64))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000012.json", "000012.png"]
        for name in ("holiday.png", "holiday.json", "000013.txt"):
            other = tmp_path / name
            other.write_text("{}")
            with pytest.raises(InvalidRequestError, match="holds other things than labelme scenes"):
                write_labelme_scenes(tmp_path, 1, 1, (64, 64))
            assert (tmp_path / "000012.png").exists()
            other.unlink()
