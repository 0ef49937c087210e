"""Scenes on disk: what COCO tools and segserve itself read back is what was painted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from segserve.errors import InvalidRequestError
from segserve.training.scenes import CATEGORIES, make_scene
from segserve.training.scenes import files as scene_files
from segserve.training.scenes.files import read_scenes, write_scenes

SIZE = (96, 128)
SEED, COUNT = 40, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "new" / "folder"
    write_scenes(out, SEED, COUNT, SIZE)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestWriting:
    def test_the_files(self, folder: Path) -> None:
        names = [f"{seed:06d}.png" for seed in range(SEED, SEED + COUNT)]
        expected = {"instances.json", "semantic/classes.json"}
        expected |= {f"{kind}/{name}" for kind in ("images", "semantic") for name in names}
        assert set(contents(folder)) == expected

    def test_coco_tools_see_the_painted_instances(self, folder: Path) -> None:
        coco = COCO(str(folder / "instances.json"))
        assert [entry["name"] for entry in coco.loadCats(range(1, 14))] == list(CATEGORIES)
        assert coco.getCatIds(supNms="stuff") == [1, 2, 3]
        assert len(coco.getImgIds()) == COUNT
        for entry in coco.loadImgs(coco.getImgIds()):
            scene = make_scene(entry["seed"], SIZE)
            assert entry["file_name"] == f"images/{entry['seed']:06d}.png"
            assert (entry["height"], entry["width"]) == SIZE
            found = coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))
            assert len(found) == len(scene.objects)
            for item, annotation in zip(scene.objects, found, strict=True):
                np.testing.assert_array_equal(coco.annToMask(annotation), scene.instances == item.id)
                rows, columns = np.nonzero(scene.instances == item.id)
                assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["area"] == len(rows)
                assert annotation["category_id"] == CATEGORIES.index(item.category) + 1
                assert (annotation["phrase"], annotation["color"]) == (item.phrase, item.color)
                assert annotation["ignore"] == int(item.ignore)
                assert annotation["iscrowd"] == 0

    def test_pictures_and_label_maps_are_lossless(self, folder: Path) -> None:
        classes = json.loads((folder / "semantic" / "classes.json").read_text())
        assert [classes[str(index)] for index in range(len(classes))] == list(CATEGORIES)
        for seed in range(SEED, SEED + COUNT):
            scene = make_scene(seed, SIZE)
            image = cv2.imread(str(folder / "images" / f"{seed:06d}.png"))
            labels = cv2.imread(str(folder / "semantic" / f"{seed:06d}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(image[..., ::-1], scene.image)
            np.testing.assert_array_equal(labels, scene.semantic)

    def test_the_same_request_writes_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        write_scenes(tmp_path, SEED, COUNT, SIZE)
        assert contents(tmp_path) == contents(folder)

    def test_without_a_size_each_seed_has_its_own(self, tmp_path: Path) -> None:
        write_scenes(tmp_path, 3, 2)
        assert [scene.image.shape for scene in read_scenes(tmp_path)] == [make_scene(s).image.shape for s in (3, 4)]

    def test_progress_counts_scenes(self, tmp_path: Path) -> None:
        done: list[int] = []
        write_scenes(tmp_path, 0, 3, (64, 64), done.append)
        assert done == [1, 2, 3]

    def test_scenes_replace_earlier_scenes(self, tmp_path: Path) -> None:
        write_scenes(tmp_path, 10, 4, (64, 64))
        write_scenes(tmp_path, 12, 1, (64, 64))
        assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["000012.png", "000012.png"]
        assert [scene.seed for scene in read_scenes(tmp_path)] == [12]


class TestRefusals:
    @pytest.mark.parametrize(
        "existing",
        [
            {"holiday.jpg": "picture"},
            {"instances.json": "no json"},
            {"instances.json": "[]"},
            {
                "instances.json": '{"info": {"description": "COCO", "seed": 1, "count": 1}}',
                "images/000001.png": "x",
            },
        ],
    )
    def test_a_folder_of_others_is_left_alone(self, tmp_path: Path, existing: dict[str, str]) -> None:
        for name, text in existing.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        before = contents(tmp_path)
        with pytest.raises(InvalidRequestError, match="is not empty and holds no scenes"):
            write_scenes(tmp_path, 1, 1, (64, 64))
        assert contents(tmp_path) == before

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(InvalidRequestError, match="expected a folder, found a file"):
            write_scenes(tmp_path / "out", 1, 1, (64, 64))

    @pytest.mark.parametrize(
        ("seed", "count", "size", "message"),
        [
            (-1, 1, None, "seed: expected 0 or more, got -1"),
            (0, 0, None, "count: expected 1 or more, got 0"),
            (0, 1, (64, 31), "size: expected sides of 32 to 4096 pixels, got 31x64"),
            (0, 1, (5000, 64), "got 64x5000"),
        ],
    )
    def test_values_out_of_range(
        self, tmp_path: Path, seed: int, count: int, size: tuple[int, int] | None, message: str
    ) -> None:
        with pytest.raises(InvalidRequestError, match=message):
            write_scenes(tmp_path / "out", seed, count, size)
        assert not (tmp_path / "out").exists()


class TestReading:
    def test_what_was_painted_comes_back(self, folder: Path) -> None:
        stored = list(read_scenes(folder))
        assert [scene.seed for scene in stored] == list(range(SEED, SEED + COUNT))
        for found in stored:
            scene = make_scene(found.seed, SIZE)
            np.testing.assert_array_equal(found.image, scene.image)
            np.testing.assert_array_equal(found.semantic, scene.semantic)
            assert found.path == folder / "images" / f"{found.seed:06d}.png"
            assert len(found.instances) == len(scene.objects)
            for instance, item in zip(found.instances, scene.objects, strict=True):
                np.testing.assert_array_equal(instance.mask, scene.mask(item))
                assert instance.mask.dtype == bool
                names = (instance.category, instance.phrase, instance.color)
                assert names == (item.category, item.phrase, item.color)
                assert (instance.box, instance.ignore) == (item.box, item.ignore)

    def test_a_folder_without_scenes(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "absent"):
            with pytest.raises(InvalidRequestError, match="holds no scenes of segserve"):
                next(read_scenes(folder))

    @pytest.mark.parametrize(
        ("damage", "message"),
        [(b"", "missing or empty"), (b"not a png", "not a readable PNG"), (None, "missing or empty")],
    )
    def test_a_damaged_picture_is_named(self, tmp_path: Path, damage: bytes | None, message: str) -> None:
        write_scenes(tmp_path, 7, 1, (64, 64))
        picture = tmp_path / "images" / "000007.png"
        picture.unlink() if damage is None else picture.write_bytes(damage)
        with pytest.raises(InvalidRequestError, match=f"000007.png: {message}"):
            next(read_scenes(tmp_path))

    def test_an_interrupted_folder_is_not_read_but_can_be_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_scenes(tmp_path, 20, 4, (64, 64), stop)
        with pytest.raises(InvalidRequestError, match="writing was interrupted"):
            next(read_scenes(tmp_path))
        write_scenes(tmp_path, 30, 1, (64, 64))
        assert [scene.seed for scene in read_scenes(tmp_path)] == [30]
        assert {path.name for path in tmp_path.rglob("*.png")} == {"000030.png"}


def test_the_file_names_its_maker(folder: Path) -> None:
    info = json.loads((folder / "instances.json").read_text())["info"]
    assert info == {
        "description": "segserve scenes",
        "version": str(scene_files.GENERATOR_VERSION),
        "seed": SEED,
        "count": COUNT,
        "size": list(SIZE),
    }
