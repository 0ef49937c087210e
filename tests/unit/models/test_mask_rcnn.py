"""The Mask R-CNN network and predictor: geometry by hand, torchvision as the reference, batches, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.imaging import ImageLimits, Rgb, decode
from segserve.masks import iou
from segserve.models.device import choose_placement
from segserve.models.mask_rcnn import Architecture, MaskRcnn, MaskRcnnParameters
from segserve.models.mask_rcnn.architecture import BoxHeadShape, InputShape, MaskHeadShape, ProposalShape, ResNetShape
from segserve.models.mask_rcnn.checkpoint import load_checkpoint, save_checkpoint
from segserve.models.mask_rcnn.detectron2_checkpoint import convert
from segserve.models.mask_rcnn.heads import Limits, _select
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.models.mask_rcnn.pictures import as_batch, input_size, padded_size, paste_mask, resize
from segserve.models.mask_rcnn.pooling import Pooler, level_of
from segserve.models.mask_rcnn.proposals import Anchors
from segserve.schema import Parameters

SMALL = Architecture(
    classes=("disc", "box"),
    backbone="mobilenet_v3_large",
    pyramid_channels=16,
    input=InputShape(min_size=64, max_size=96, pixel_std=(58.0, 57.0, 57.0)),
    proposals=ProposalShape(anchor_sizes=((8.0,), (16.0,), (32.0,), (64.0,), (128.0,)), post_nms=50),
    box_head=BoxHeadShape(layer_channels=32, score_threshold=0.0, max_instances=10),
    mask_head=MaskHeadShape(convolutions=1, conv_channels=16),
)


@pytest.fixture(scope="module")
def predictor() -> MaskRcnn:
    torch.manual_seed(0)
    network = MaskRcnnNetwork(SMALL)
    # Random heads answer everything alike: wider ones tell the boxes apart.
    torch.nn.init.normal_(network.roi_heads.box_predictor.cls_score.weight, std=1.0)
    torch.nn.init.normal_(network.roi_heads.mask_head.predictor.weight, std=1.0)
    return MaskRcnn(network, choose_placement("cpu"))


def picture(seed: int, height: int, width: int) -> Rgb:
    """Blurred noise: something to see at every scale."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return resize(small, (height, width))


@pytest.mark.parametrize(
    ("height", "width", "shape", "expected"),
    [
        (480, 640, InputShape(800, 1333), (800, 1067)),
        (640, 480, InputShape(800, 1333), (1067, 800)),
        (400, 1600, InputShape(800, 1333), (333, 1333)),
        (480, 640, InputShape(0, 1333), (480, 640)),
        (1, 1000, InputShape(320, 533), (1, 533)),
    ],
)
def test_input_size_is_the_shorter_side_unless_the_longer_would_be_too_long(
    height: int, width: int, shape: InputShape, expected: tuple[int, int]
) -> None:
    assert input_size(height, width, shape) == expected


@pytest.mark.parametrize(("size", "padded"), [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 65), (64, 96))])
def test_padding_is_to_multiples_of_32(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert padded_size(size) == padded


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_batch_is_normalized_in_the_order_of_the_weights_and_padded_with_zeros(order: str) -> None:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 200
    shape = InputShape(0, 0, order, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0))  # type: ignore[arg-type]
    batch = as_batch([red, red[:10]], shape)
    expected = [(200 - 10) / 2, -20 / 4, -30 / 5] if order == "RGB" else [-10 / 2, -20 / 4, (200 - 30) / 5]
    assert batch.shape == (2, 3, 32, 32)
    assert batch[0, :, 19, 29].tolist() == pytest.approx(expected)
    assert batch[0, :, 20:].abs().max() == 0
    assert batch[1, :, 10:].abs().max() == 0


def test_anchors_are_centered_not_rounded_and_ordered_by_size() -> None:
    shape = ProposalShape(anchor_sizes=((10.0, 20.0),) * 5, aspect_ratios=((0.5, 2.0),) * 5, anchor_offset=0.5)
    anchors = Anchors(shape)
    cells = anchors.generate_anchors((10.0, 20.0), (0.5, 2.0))
    assert cells.shape == (4, 4)
    widths, heights = cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1]
    assert (widths * heights).tolist() == pytest.approx([100, 100, 400, 400], rel=1e-5)
    assert (heights / widths).tolist() == pytest.approx([0.5, 2, 0.5, 2])
    levels = [torch.zeros(1, 8, 64 // 2**index, 64 // 2**index) for index in range(5)]
    grid = anchors(ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)]), levels)[0]
    centers = (grid[:, :2] + grid[:, 2:]) / 2
    assert centers[0].tolist() == pytest.approx([2.0, 2.0])
    assert centers[4].tolist() == pytest.approx([6.0, 2.0])


@pytest.mark.parametrize(("side", "level"), [(10, 2), (111, 2), (112, 3), (223, 3), (224, 4), (448, 5), (2000, 5)])
def test_boxes_are_pooled_from_the_level_of_their_size(side: float, level: int) -> None:
    assert level_of(torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side]])).tolist() == [level]


def test_pooler_takes_each_box_from_its_picture_and_level() -> None:
    features = {
        name: torch.stack([torch.full((1, size, size), float(10 * index + picture)) for picture in (1, 2)])
        for index, (name, size) in enumerate([("p2", 128), ("p3", 64), ("p4", 32), ("p5", 16), ("p6", 8)])
    }
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([[0.0, 0.0, 448.0, 448.0], [0.0, 0.0, 30.0, 30.0]])]
    pooled = Pooler(7, 0, True)(features, boxes)
    assert pooled.shape == (3, 1, 7, 7)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 32, 2])


def test_pasted_mask_covers_its_box_and_nothing_else() -> None:
    mask = paste_mask(torch.ones(28, 28), (10.0, 5.0, 20.0, 9.0), (12, 30))
    expected = np.zeros((12, 30), bool)
    expected[5:9, 10:20] = True
    np.testing.assert_array_equal(mask, expected)


def test_pasted_mask_follows_its_probabilities() -> None:
    left = torch.zeros(28, 28)
    left[:, :14] = 1
    mask = paste_mask(left, (-10.0, 0.0, 30.0, 10.0), (10, 25))
    assert mask[:, :10].all()
    assert not mask[:, 10:].any()


def test_selection_suppresses_within_a_class_only_and_keeps_the_best() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [0.0, 0, 10, 10], [50.0, 50, 90, 90]])[:, None]
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.0, 0.6]])
    kept, values, classes = _select(boxes, scores, (60, 60), Limits(0.05, 0.5, 100))
    assert values.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert classes.tolist() == [0, 1, 1]
    assert kept[2].tolist() == [50, 50, 60, 60]
    assert len(_select(boxes, scores, (60, 60), Limits(0.65, 0.5, 100))[0]) == 2
    assert len(_select(boxes, scores, (60, 60), Limits(0.05, 0.95, 100))[0]) == 4
    assert len(_select(boxes, scores, (60, 60), Limits(0.05, 0.5, 1))[0]) == 1


def test_broken_numbers_are_left_out() -> None:
    boxes = torch.tensor([[[float("nan"), 0, 1, 1]], [[0.0, 0, 5, 5]]])
    kept, _, _ = _select(boxes, torch.tensor([[0.9], [0.8]]), (9, 9), Limits(0.0, 0.5, 9))
    assert kept.tolist() == [[0, 0, 5, 5]]


def test_mixed_batch_answers_as_each_picture_alone(predictor: MaskRcnn) -> None:
    images = [picture(1, 64, 96), picture(2, 96, 64), picture(3, 61, 93), picture(4, 200, 128)]
    asked = [MaskRcnnParameters(), MaskRcnnParameters(max_instances=3), MaskRcnnParameters(), MaskRcnnParameters()]
    together = predictor.predict(images, asked)
    for image, wanted, answer in zip(images, asked, together, strict=True):
        (alone,) = predictor.predict([image], [wanted])
        assert (answer.width, answer.height) == (image.shape[1], image.shape[0])
        assert len(answer.instances) == len(alone.instances) > 0
        for mine, other in zip(answer.instances, alone.instances, strict=True):
            assert mine.label == other.label
            assert mine.score == pytest.approx(other.score, abs=1e-4)
            assert mine.box == pytest.approx(other.box, abs=0.05)
    assert len(together[1].instances) <= 3


def test_instances_are_ordered_bounded_and_within_the_picture(predictor: MaskRcnn) -> None:
    (answer,) = predictor.predict([picture(5, 90, 120)], [MaskRcnnParameters()])
    scores = [instance.score for instance in answer.instances]
    assert scores == sorted(scores, reverse=True)
    assert 0 < len(scores) <= 10
    for instance in answer.instances:
        x0, y0, x1, y1 = instance.box
        assert 0 <= x0 < x1 <= 120
        assert 0 <= y0 < y1 <= 90
        assert instance.mask.shape == (90, 120)


def test_parameters_of_a_request_win(predictor: MaskRcnn) -> None:
    image = picture(6, 90, 120)
    (everything,) = predictor.predict([image], [MaskRcnnParameters(score_threshold=0.0, max_instances=100)])
    scores = [instance.score for instance in everything.instances]
    middle = (scores[len(scores) // 2] + scores[len(scores) // 2 - 1]) / 2
    (some,) = predictor.predict([image], [MaskRcnnParameters(score_threshold=middle, max_instances=100)])
    assert [instance.score for instance in some.instances] == pytest.approx(
        [score for score in scores if score > middle], abs=1e-6
    )
    (none,) = predictor.predict([image], [MaskRcnnParameters(score_threshold=1.0)])
    assert none.instances == []
    given = Parameters(score_threshold=0.3, refine="polygon")
    assert MaskRcnnParameters(nms_iou=0.4).overridden(given) == MaskRcnnParameters(0.3, 0.4, None, "polygon")


@pytest.mark.parametrize("height,width", [(1, 1), (1, 200), (300, 2)])
def test_odd_pictures_are_answered(predictor: MaskRcnn, height: int, width: int) -> None:
    (answer,) = predictor.predict([np.zeros((height, width, 3), np.uint8)], [MaskRcnnParameters()])
    assert (answer.height, answer.width) == (height, width)


def test_wrong_input_is_refused(predictor: MaskRcnn) -> None:
    with pytest.raises(InvalidRequestError, match="one a picture"):
        predictor.predict([picture(1, 64, 64)], [])
    with pytest.raises(InvalidRequestError, match="H x W x 3"):
        predictor.predict([np.zeros((8, 8), np.uint8)], [MaskRcnnParameters()])


def test_a_saved_checkpoint_is_the_same_network(predictor: MaskRcnn, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "whole", predictor.network)
    loaded = MaskRcnn.from_folder(tmp_path / "whole", device="cpu")
    assert loaded.network.architecture == SMALL
    assert loaded.classes == ("disc", "box")
    image = picture(7, 70, 90)
    (mine,), (other,) = (each.predict([image], [MaskRcnnParameters()]) for each in (predictor, loaded))
    assert mine == other
    save_checkpoint(tmp_path / "half", predictor.network, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    assert next(load_checkpoint(tmp_path / "half").parameters()).dtype == torch.float32


def test_resnet_shapes_and_norms_survive_a_checkpoint(tmp_path: Path) -> None:
    shape = replace(SMALL, backbone=ResNetShape(18, 32, 32, norm="GN"), pyramid_channels=32, pyramid_norm="LN")
    save_checkpoint(tmp_path, MaskRcnnNetwork(shape))
    assert load_checkpoint(tmp_path).architecture == shape


def test_broken_checkpoints_are_refused_by_name(predictor: MaskRcnn, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match=r"config\.json"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, predictor.network)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        load_checkpoint(tmp_path)
    weights.write_bytes(whole)
    values = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**values, "classes": ["disc", "box", "ring"]}), "utf-8")
    with pytest.raises(InvalidRequestError, match=r"misshapen tensors: .*expected \("):
        load_checkpoint(tmp_path)
    config.write_text(json.dumps({**values, "model_type": "sam"}), "utf-8")
    with pytest.raises(InvalidRequestError, match="model_type"):
        load_checkpoint(tmp_path)
    config.write_text("{", "utf-8")
    with pytest.raises(InvalidRequestError, match="not JSON"):
        load_checkpoint(tmp_path)


def test_half_precision_finds_the_same_and_is_not_the_default(tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "data" / "detectron2"
    convert(golden / "model_final.pth", golden / "config.yaml", None, tmp_path)
    assert MaskRcnn.from_folder(tmp_path).placement.dtype == torch.float32
    image = decode((golden / "images" / "90001.png").read_bytes(), ImageLimits())
    asked = [MaskRcnnParameters(score_threshold=0.5)]
    whole, half = (
        MaskRcnn.from_folder(tmp_path, device="cpu", dtype=dtype).predict([image], asked)[0].instances
        for dtype in ("float32", "float16")
    )
    assert len(whole) == len(half) > 0
    assert whole != half, "float16 was not used"
    for mine, other in zip(half, whole, strict=True):
        assert mine.label == other.label
        assert mine.score == pytest.approx(other.score, abs=0.05)
        assert mine.box == pytest.approx(other.box, abs=1.5)
        assert iou(mine.mask, other.mask) > 0.95
