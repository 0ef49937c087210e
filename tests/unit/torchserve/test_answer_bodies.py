"""The bytes of a worker's answer."""

import base64
import io
import json

import numpy as np
import pytest

from segserve import label_maps
from segserve.errors import TooLargeError
from segserve.models.segmentation import Instance, LabelMap, Segmentation
from segserve.schema import WorkerLabelMap, WorkerResult
from segserve.torchserve.answer_bodies import encode

CLASSES = ("background", "sofa", "floor")


def label_map(scores=None):
    labels = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 2]], np.uint8)
    return LabelMap(8, 6, labels, CLASSES, scores)


def test_a_label_map_is_a_gray_picture_with_the_shares_of_its_classes():
    body, content_type = encode(label_map())
    assert content_type == "application/json"
    answer = WorkerLabelMap.model_validate_json(body)
    # The picture's size; the label map may have that of the model's input.
    assert (answer.width, answer.height, answer.classes) == (8, 6, list(CLASSES))
    decoded = label_maps.decode_png(base64.b64decode(answer.label_map))
    assert (decoded.dtype, decoded.tolist()) == (np.uint8, label_map().labels.tolist())
    assert answer.pixel_fraction == {
        "background": pytest.approx(7 / 12, abs=1e-6),
        "floor": pytest.approx(5 / 12, abs=1e-6),
    }


def test_more_than_256_classes_take_16_bits():
    labels = np.array([[0, 299], [299, 1]], np.uint16)
    body, _ = encode(LabelMap(2, 2, labels, tuple(f"class {index}" for index in range(300))))
    decoded = label_maps.decode_png(base64.b64decode(json.loads(body)["label_map"]))
    assert (decoded.dtype, decoded.tolist()) == (np.uint16, labels.tolist())


def test_scores_are_a_numpy_file_without_pickle():
    scores = np.arange(36, dtype=np.float32).reshape(3, 3, 4) / 7
    body, content_type = encode(label_map(scores))
    assert content_type == "application/x-npy"
    read = np.load(io.BytesIO(body), allow_pickle=False)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, scores)


def test_instances_are_json():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    body, content_type = encode(
        Segmentation(5, 4, [Instance.from_mask("sofa", 0.123456, (1.004, 1.0, 4.0, 3.0), mask)])
    )
    (instance,) = WorkerResult.model_validate_json(body).instances
    assert content_type == "application/json"
    assert (instance.label, instance.score, instance.box, instance.area) == ("sofa", 0.1235, (1.0, 1.0, 4.0, 3.0), 6)


@pytest.mark.parametrize("scores", [None, np.zeros((3, 100, 100), np.float32)])
def test_more_than_torchserve_passes_on_is_refused_with_a_way_out(scores):
    size = len(encode(label_map(scores))[0])
    assert encode(label_map(scores), limit=size)
    with pytest.raises(TooLargeError, match=r"parameters\.size") as caught:
        encode(label_map(scores), limit=size - 1)
    assert caught.value.error_code == "answer_too_large"
