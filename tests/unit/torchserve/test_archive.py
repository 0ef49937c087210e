"""What is in an archive, and what is refused as a checkpoint."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from segserve.config import ArchivedModel
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.semantic.checkpoint import MODEL_TYPES
from segserve.torchserve.archive import build_archive, find_archives, read_archive
from segserve.torchserve.checkpoint_folder import PARTS

HANDLERS = Path(__file__).parents[3] / "handlers"
WEIGHTS = b"not weights, but stored as they are " * 100


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with the files of a Grounded SAM checkpoint, and some that do not belong into an archive."""
    root = tmp_path / "checkpoint"
    for part, family in (("grounding_dino", "grounding-dino"), ("sam", "sam")):
        folder = root / part
        (folder / "onnx").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
        (folder / "model.safetensors").write_bytes(WEIGHTS)
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        (folder / "onnx" / "model.onnx").write_bytes(b"onnx")
        (folder / ".gitattributes").write_text("x")
    (root / "grounding_dino" / "tokenizer.json").write_text("{}")
    return root


def build(checkpoint, out, **options):
    return build_archive("grounded_sam", checkpoint, out, handlers=HANDLERS, **options)


def test_the_folder_tree_survives_and_nothing_else_comes_along(checkpoint, tmp_path):
    path = build(checkpoint, tmp_path / "store")
    assert path == tmp_path / "store" / "grounded_sam.mar"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "MAR-INF/MANIFEST.json",
            "checkpoint/grounding_dino/config.json",
            "checkpoint/grounding_dino/model.safetensors",
            "checkpoint/grounding_dino/tokenizer.json",
            "checkpoint/sam/config.json",
            "checkpoint/sam/model.safetensors",
            "grounded_sam.yaml",
            "grounded_sam_handler.py",
        ]
        assert archive.read("checkpoint/sam/model.safetensors") == WEIGHTS
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        assert archive.read(manifest["model"]["handler"]) == (HANDLERS / "grounded_sam_handler.py").read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["grounded_sam.mar"]


def test_weights_are_stored_and_texts_deflated(checkpoint, tmp_path):
    with zipfile.ZipFile(build(checkpoint, tmp_path)) as archive:
        kinds = {entry.filename: entry.compress_type for entry in archive.infolist()}
        # Java reads entries one after the other: the sizes must stand before the data.
        assert not any(entry.flag_bits & 0x08 for entry in archive.infolist())
    assert kinds["checkpoint/sam/model.safetensors"] == zipfile.ZIP_STORED
    assert kinds["checkpoint/sam/config.json"] == zipfile.ZIP_DEFLATED


def test_the_same_input_gives_the_same_bytes(checkpoint, tmp_path):
    first = build(checkpoint, tmp_path / "a").read_bytes()
    (checkpoint / "sam" / "config.json").touch()
    assert build(checkpoint, tmp_path / "b").read_bytes() == first


def test_progress_ends_at_the_whole(checkpoint, tmp_path):
    seen = []
    build(checkpoint, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    total = sum(f.stat().st_size for f in checkpoint.rglob("*") if f.suffix in (".json", ".safetensors"))
    assert seen[-1] == (total, total)


def test_name_version_and_changes_are_what_is_read_back(checkpoint, tmp_path):
    path = build(
        checkpoint,
        tmp_path,
        name="mine",
        version="2.5",
        profiles={"cpu": {"workers": 3}, "gpu": {}},
        handler_options={"box_threshold": 0.4},
    )
    info = read_archive(path)
    assert (path.name, info.name, info.version) == ("mine.mar", "mine", "2.5")
    original = yaml.safe_load((HANDLERS / "grounded_sam.yaml").read_text())
    assert info.config["profiles"]["cpu"] == {**original["profiles"]["cpu"], "workers": 3}
    assert info.config["profiles"]["gpu"] == original["profiles"]["gpu"]
    assert info.config["handler"] == {**original["handler"], "box_threshold": 0.4}


def test_an_unchanged_yaml_keeps_its_comments(checkpoint, tmp_path):
    with zipfile.ZipFile(build(checkpoint, tmp_path)) as archive:
        assert archive.read("grounded_sam.yaml") == (HANDLERS / "grounded_sam.yaml").read_bytes()


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda root: (root / "sam" / "model.safetensors").unlink(), "safetensors"),
        (lambda root: (root / "sam" / "config.json").unlink(), "config.json"),
        (lambda root: (root / "sam" / "config.json").write_text("[1]"), "config.json"),
        (lambda root: (root / "sam" / "config.json").write_text('{"model_type": "bert"}'), "'bert'"),
        (lambda root: (root / "grounding_dino" / "tokenizer.json").unlink(), "tokenizer"),
        (lambda root: (root / "sam").rename(root / "segment"), "sam/"),
    ],
)
def test_what_is_no_checkpoint_is_refused_before_packing(checkpoint, tmp_path, break_it, named):
    break_it(checkpoint)
    with pytest.raises(InvalidRequestError) as caught:
        build(checkpoint, tmp_path / "store")
    assert named in caught.value.message
    assert not (tmp_path / "store").exists()


def test_unknown_models_missing_folders_and_bad_names_are_refused(checkpoint, tmp_path):
    with pytest.raises(NotFoundError, match="Unknown model 'llama'"):
        build_archive("llama", checkpoint, tmp_path, handlers=HANDLERS)
    with pytest.raises(NotFoundError, match="nowhere"):
        build(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InvalidRequestError, match="name"):
        build(checkpoint, tmp_path, name="../up")


def test_a_failed_build_leaves_the_old_archive(checkpoint, tmp_path):
    path = build(checkpoint, tmp_path)
    before = path.read_bytes()

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(checkpoint, tmp_path, version="2.0", progress=fail)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.glob("*.partial")] == []


def test_a_store_is_read_by_name(checkpoint, tmp_path):
    store = tmp_path / "store"
    build(checkpoint, store, name="b")
    build(checkpoint, store, name="a")
    assert [info.name for info in find_archives(store)] == ["a", "b"]
    assert [info.name for info in find_archives(store, ["b", "b"])] == ["b"]
    with pytest.raises(NotFoundError, match="'c'"):
        find_archives(store, ["c"])
    with pytest.raises(NotFoundError, match="segserve archive"):
        find_archives(tmp_path / "empty")
    (store / "broken.mar").write_bytes(b"no zip")
    with pytest.raises(InvalidRequestError, match=r"broken\.mar"):
        find_archives(store)


@pytest.fixture
def mask_rcnn(tmp_path):
    """A folder with the files of a Mask R-CNN checkpoint, beside what its training left there."""
    folder = tmp_path / "trained"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "mask_rcnn", "classes": ["balloon", "kite"]}))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for name in ("metrics.json", "training.json", "last.safetensors", "model_final.pth", "samples/1.png", ".hidden"):
        (folder / name).write_bytes(b"x")
    return folder


def test_of_a_mask_rcnn_only_what_a_worker_reads_comes_along(mask_rcnn, tmp_path):
    path = build_archive("mask_rcnn", mask_rcnn, tmp_path / "store", handlers=HANDLERS)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [
            "MAR-INF/MANIFEST.json",
            "checkpoint/config.json",
            "checkpoint/model.safetensors",
            "mask_rcnn.yaml",
            "mask_rcnn_handler.py",
        ]


def test_an_archive_tells_which_model_it_is(checkpoint, mask_rcnn, tmp_path):
    balloons = build_archive("mask_rcnn", mask_rcnn, tmp_path, handlers=HANDLERS, name="balloons")
    assert read_archive(balloons).about == ArchivedModel("mask_rcnn", "torchvision", ("balloon", "kite"))
    assert read_archive(build(checkpoint, tmp_path, name="anything")).about == ArchivedModel("grounded_sam")
    foreign = tmp_path / "foreign.mar"
    with zipfile.ZipFile(foreign, "w") as archive:
        manifest = {"model": {"modelName": "foreign", "modelVersion": "1", "handler": "image_segmenter"}}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    assert read_archive(foreign).about == ArchivedModel()


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda root: (root / "model.safetensors").unlink(), "model.safetensors"),
        (lambda root: (root / "config.json").unlink(), "config.json"),
        (lambda root: (root / "config.json").write_text('{"model_type": "sam"}'), "'sam'"),
    ],
)
def test_what_is_no_mask_rcnn_is_refused_before_packing(mask_rcnn, tmp_path, break_it, named):
    break_it(mask_rcnn)
    with pytest.raises(InvalidRequestError) as caught:
        build_archive("mask_rcnn", mask_rcnn, tmp_path / "store", handlers=HANDLERS)
    assert named in caught.value.message
    assert not (tmp_path / "store").exists()


@pytest.fixture
def semantic(tmp_path):
    """A folder with the files of a semantic checkpoint of segserve's, beside what its training left there."""
    folder = tmp_path / "streets"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "semantic", "classes": ["road", "sky"]}))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for name in (
        "metrics.json",
        "training.json",
        "last.safetensors",
        "model.export.json",
        "model.pth",
        "samples/1.png",
    ):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def segformer(tmp_path):
    """The same as transformers saves it, in two pieces."""
    folder = tmp_path / "segformer"
    folder.mkdir()
    labels = {str(index): name for index, name in enumerate(["wall", "door", "sky", *"abcdefgh", "door"])}
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer", "id2label": labels}, sort_keys=True))
    for name in ("preprocessor_config.json", "model.safetensors.index.json"):
        (folder / name).write_text("{}")
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (folder / name).write_bytes(WEIGHTS)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md"):
        (folder / name).write_bytes(b"x")
    return folder


def packed(path):
    with zipfile.ZipFile(path) as archive:
        return sorted(name for name in archive.namelist() if name.startswith("checkpoint/"))


def test_of_a_semantic_checkpoint_only_what_a_worker_reads_comes_along(semantic, segformer, tmp_path):
    path = build_archive("semantic", semantic, tmp_path / "store", handlers=HANDLERS)
    assert packed(path) == ["checkpoint/config.json", "checkpoint/model.safetensors"]
    path = build_archive("semantic", segformer, tmp_path / "store", handlers=HANDLERS)
    assert packed(path) == [
        "checkpoint/config.json",
        "checkpoint/model-00001-of-00002.safetensors",
        "checkpoint/model-00002-of-00002.safetensors",
        "checkpoint/model.safetensors.index.json",
        "checkpoint/preprocessor_config.json",
    ]


def test_the_classes_of_both_kinds_of_semantic_checkpoints_are_told(semantic, segformer, tmp_path):
    streets = build_archive("semantic", semantic, tmp_path, handlers=HANDLERS, name="streets")
    assert read_archive(streets).about == ArchivedModel("semantic", "torch", ("road", "sky"), ("torch",))
    rooms = build_archive("semantic", segformer, tmp_path, handlers=HANDLERS, name="rooms")
    # In the order of their numbers, and each but once: label 11 is another door.
    assert read_archive(rooms).about.classes == ("wall", "door", "sky", *"abcdefgh", "door 11")


def test_the_engine_onnx_needs_its_file(semantic, tmp_path):
    with pytest.raises(InvalidRequestError, match=r"engine onnx needs a model\.onnx"):
        build_archive("semantic", semantic, tmp_path, handlers=HANDLERS, handler_options={"engine": "onnx"})
    assert not list(tmp_path.glob("*.mar"))


def test_a_model_of_another_task_is_no_semantic_checkpoint(segformer, tmp_path):
    (segformer / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(InvalidRequestError, match="came 'resnet'"):
        build_archive("semantic", segformer, tmp_path, handlers=HANDLERS)


def test_the_families_of_semantic_checkpoints_are_those_that_can_be_loaded():
    (part,) = PARTS["semantic"]
    assert set(part.families) == set(MODEL_TYPES)
