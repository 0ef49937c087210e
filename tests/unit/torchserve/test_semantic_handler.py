"""The handler of semantic with a small checkpoint of both engines, in TorchServe's own request context."""

import base64
import importlib.util
import io
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ts.context import Context, RequestProcessor

from onnx_files import brightest_class, damaged
from segserve import imaging, label_maps
from segserve.errors import SegserveError
from segserve.models.semantic.architecture import SemanticConfig, build_network
from segserve.models.semantic.checkpoint import save_checkpoint
from segserve.schema import WorkerLabelMap

ROOT = Path(__file__).parents[3]
CLASSES = ("floor", "wall", "sky")
SIZE = (32, 48)
SKY = 2
IMAGE = imaging.encode(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def process_settings():
    """A worker sets the log levels and threads of its process."""
    levels = {name: logging.getLogger(name).level for name in (None, "segserve")}
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """An unpacked archive; its ONNX file is not the network's but sees the sky everywhere."""
    folder = tmp_path_factory.mktemp("model_dir")
    config = SemanticConfig(CLASSES, "lraspp_mobilenet_v3_large", SIZE)
    torch.manual_seed(0)
    network = build_network(config)
    # What the network prefers must not be the ONNX file's choice.
    for name, parameter in network.classifier.named_parameters():
        if name == "low_classifier.bias":
            parameter.data = torch.tensor([5.0, 0.0, -100.0])
    save_checkpoint(folder / "checkpoint", config, network)
    onnx.save(brightest_class(3, SIZE, favorite=SKY), folder / "checkpoint" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def handler(model_dir):
    return started(model_dir)


def started(model_dir, **options):
    """A handler that has loaded the model, as TorchServe loads it from the file."""
    path = ROOT / "handlers" / "semantic_handler.py"
    spec = importlib.util.spec_from_file_location("semantic_handler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.SemanticHandler()
    handler.initialize(Context("rooms", str(model_dir), {}, 8, None, "0.12.0", model_yaml_config={"handler": options}))
    return handler


def ask(handler, *parameters, images=()):
    """Status, content type and body for a picture with each of the parameters, as one batch."""
    context = Context("rooms", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in parameters]
    images = images or [IMAGE] * len(parameters)
    items = [
        {"image": image, "prompt": json.dumps({"parameters": given})}
        for image, given in zip(images, parameters, strict=True)
    ]
    bodies = handler.handle(items, context)
    return [
        (context.get_response_status(index)[0], context.get_response_content_type(index), body)
        for index, body in enumerate(bodies)
    ]


def labels_of(answer):
    status, content_type, body = answer
    assert (status, content_type) == (200, "application/json"), body
    result = WorkerLabelMap.model_validate_json(body)
    assert (result.width, result.height, result.classes) == (90, 60, list(CLASSES))
    labels = label_maps.decode_png(base64.b64decode(result.label_map))
    counts = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert result.pixel_fraction == {
        name: pytest.approx(share, abs=1e-6) for name, share in zip(CLASSES, counts, strict=True) if share
    }
    return labels


def scores_of(answer):
    status, content_type, body = answer
    assert (status, content_type) == (200, "application/x-npy"), body
    return np.load(io.BytesIO(body), allow_pickle=False)


def test_every_item_of_a_batch_has_its_own_engine_output_and_size(handler):
    torch_map, onnx_map, small, logits, probabilities = ask(
        handler,
        {},
        {"engine": "onnx"},
        {"engine": "onnx", "size": "model"},
        {"engine": "torch", "output": "logits", "size": "model"},
        {"engine": "onnx", "output": "probabilities"},
    )
    assert SKY not in labels_of(torch_map)
    assert labels_of(torch_map).shape == (60, 90)
    assert (labels_of(onnx_map) == SKY).all()
    assert labels_of(small).shape == SIZE
    assert (scores_of(logits).shape, scores_of(logits).dtype) == ((3, *SIZE), np.float32)
    assert scores_of(probabilities).shape == (3, 60, 90)
    np.testing.assert_allclose(scores_of(probabilities).sum(axis=0), 1, atol=1e-5)
    assert (scores_of(probabilities).argmax(axis=0) == SKY).all()


def test_the_archives_engine_is_that_of_requests_without_one(model_dir):
    handler = started(model_dir, engine="onnx")
    bare, other = ask(handler, {}, {"engine": "torch"})
    assert (labels_of(bare) == SKY).all()
    assert SKY not in labels_of(other)


def test_it_describes_its_classes_and_the_engines_that_are_there(handler, model_dir, tmp_path):
    def description(of):
        context = Context("rooms", "", {}, 1, None, "0.12.0")
        context.request_processor = [RequestProcessor({"describe": "True"})]
        return json.loads(of.handle([{}], context)[0])

    told = description(handler)
    assert (told["kind"], told["engine"], told["engines"]) == ("semantic", "torch", ["torch", "onnx"])
    assert (told["classes"], told["prompts"]) == (list(CLASSES), [])
    assert told["parameters"] == ["engine", "output", "size"]
    assert description(started(without_onnx(model_dir, tmp_path)))["engines"] == ["torch"]


def test_an_engine_that_is_not_there_and_other_mistakes_spare_the_neighbors(model_dir, tmp_path):
    handler = started(without_onnx(model_dir, tmp_path))
    good, missing, unknown, foreign, broken, last = ask(
        handler,
        {},
        {"engine": "onnx"},
        {"output": "edges"},
        {"score_threshold": 0.5},
        {},
        {"size": "model"},
        images=[IMAGE, IMAGE, IMAGE, IMAGE, b"no picture", IMAGE],
    )
    assert [each[0] for each in (good, missing, unknown, foreign, broken, last)] == [200, 400, 400, 400, 415, 200]
    assert "onnx" in json.loads(missing[2])["error"]["message"]
    assert "parameters.output" in json.loads(unknown[2])["error"]["message"]
    assert labels_of(good).shape == (60, 90)
    assert labels_of(last).shape == SIZE


def test_too_many_scores_are_refused_with_the_way_out(handler):
    large = imaging.encode(np.zeros((1800, 1700, 3), np.uint8))
    refused, good = ask(handler, {"output": "logits"}, {"output": "logits", "size": "model"}, images=[large, large])
    assert refused[0] == 413
    assert "model" in json.loads(refused[2])["error"]["message"]
    assert scores_of(good).shape == (3, *SIZE)


@pytest.mark.parametrize("way", ["truncated", "climbing", "absolute", "misshapen"])
def test_a_bad_onnx_file_is_refused_at_load_with_the_reason(model_dir, tmp_path, caplog, way):
    folder = without_onnx(model_dir, tmp_path)
    whole = tmp_path / "whole.onnx"
    onnx.save(brightest_class(3, SIZE), whole)
    content, word = damaged(whole, folder)[way]
    (folder / "checkpoint" / "model.onnx").write_bytes(content)
    with pytest.raises(SegserveError, match=word):
        started(folder)
    (line,) = [message for message in caplog.messages if message.startswith("rooms cannot be loaded: ")]
    assert word in line


def without_onnx(model_dir, tmp_path):
    """A copy of the unpacked archive that holds the network alone."""
    (tmp_path / "unpacked" / "checkpoint").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "unpacked" / "checkpoint" / name).hardlink_to(model_dir / "checkpoint" / name)
    return tmp_path / "unpacked"
