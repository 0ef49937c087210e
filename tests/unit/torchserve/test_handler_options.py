"""The handler section of an archive's yaml."""

import pytest

from segserve.catalog import GROUNDED_SAM, MASK_RCNN, SAM2, SEMANTIC
from segserve.errors import InvalidRequestError
from segserve.torchserve.handler_options import HandlerOptions, read_options


@pytest.mark.parametrize(
    ("section", "gpu", "device", "threads"),
    [
        ({}, None, "cpu", 1),
        (None, None, "cpu", 1),
        ({}, 3, "cuda:3", 0),
        ({"device": "cuda:1"}, 3, "cuda:1", 0),
        ({"device": "cpu", "threads": 4}, 0, "cpu", 4),
        ({"device": "auto", "threads": "auto"}, None, "cpu", 1),
        ({"threads": 0}, None, "cpu", 0),
    ],
)
def test_device_and_threads(section, gpu, device, threads):
    options = read_options({"handler": section}, gpu, GROUNDED_SAM)
    assert (options.device, options.threads) == (device, threads)


def test_the_rest_are_the_parameters_defaults():
    section = {"box_threshold": 0.4, "refine": "polygon", "dtype": "float32"}
    options = read_options({"handler": section}, None, GROUNDED_SAM)
    assert options.defaults == {"box_threshold": 0.4, "refine": "polygon"}
    assert options.dtype == "float32"


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"box_treshold": 0.4}, "box_treshold"),
        ({"score_threshold": 0.4}, "score_threshold"),
        ({"box_threshold": 4}, "box_threshold"),
        ({"max_instances": "few"}, "max_instances"),
        ({"threads": "many"}, "threads"),
        ({"threads": True}, "threads"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_mistakes_are_named(section, named):
    with pytest.raises(InvalidRequestError, match=rf"handler\.{named}"):
        read_options({"handler": section}, None, GROUNDED_SAM)


def test_the_engine_is_one_of_those_the_model_has():
    assert read_options({"handler": {}}, None, MASK_RCNN).engine == "torchvision"
    assert read_options({"handler": {"engine": "detectron2"}}, None, MASK_RCNN).engine == "detectron2"
    assert read_options({"handler": {}}, None, GROUNDED_SAM).engine is None
    for engine in ("onnx", None, 2):
        with pytest.raises(InvalidRequestError, match=r"handler\.engine: expected torchvision or detectron2"):
            read_options({"handler": {"engine": engine}}, None, MASK_RCNN)
    with pytest.raises(InvalidRequestError, match=r"handler\.engine: unknown option of grounded_sam"):
        read_options({"handler": {"engine": "torchvision"}}, None, GROUNDED_SAM)


def test_what_requests_choose_is_no_option_of_an_archive():
    assert read_options({"handler": {"engine": "onnx"}}, None, SEMANTIC) == HandlerOptions(
        "cpu", threads=1, engine="onnx"
    )
    for name, value in (("output", "logits"), ("size", "model")):
        with pytest.raises(InvalidRequestError, match=rf"handler\.{name}: unknown option of semantic"):
            read_options({"handler": {name: value}}, None, SEMANTIC)
    with pytest.raises(InvalidRequestError, match=r"handler\.engine: expected torch or onnx"):
        read_options({"handler": {"engine": "torchvision"}}, None, SEMANTIC)


def test_embeddings_are_kept_unless_the_yaml_says_otherwise():
    for entry in (GROUNDED_SAM, SAM2):
        assert read_options({}, None, entry).embedding_cache_bytes == 256 * 2**20
        assert read_options({"handler": {"embedding_cache_mb": 0}}, None, entry).embedding_cache_bytes == 0
        assert read_options({"handler": {"embedding_cache_mb": 3}}, 0, entry).embedding_cache_bytes == 3 * 2**20
    assert read_options({}, None, MASK_RCNN).embedding_cache_bytes == 0


@pytest.mark.parametrize(
    ("entry", "value"), [(SAM2, -1), (SAM2, 1.5), (SAM2, True), (SAM2, "much"), (MASK_RCNN, 256), (SEMANTIC, 0)]
)
def test_impossible_caches_are_refused(entry, value):
    with pytest.raises(InvalidRequestError, match=r"handler\.embedding_cache_mb"):
        read_options({"handler": {"embedding_cache_mb": value}}, None, entry)
