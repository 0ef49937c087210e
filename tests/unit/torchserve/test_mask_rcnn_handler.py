"""The handler of mask_rcnn with the golden checkpoint, in TorchServe's own request context."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest
import torch
from ts.context import Context, RequestProcessor

from segserve.errors import SegserveError
from segserve.models.mask_rcnn.detectron2_checkpoint import convert, convert_for_detectron2

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "data" / "detectron2"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
IMAGE = (GOLDEN / "images" / EXPECTED["images"][0]["image"]).read_bytes()


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
    folder = tmp_path_factory.mktemp("model_dir")
    convert(GOLDEN / "model_final.pth", GOLDEN / "config.yaml", EXPECTED["classes"], folder / "checkpoint")
    return folder


def started(model_dir, **options):
    """A handler that has loaded the model, as TorchServe loads it from the file."""
    path = ROOT / "handlers" / "mask_rcnn_handler.py"
    spec = importlib.util.spec_from_file_location("mask_rcnn_handler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.MaskRcnnHandler()
    handler.initialize(Context("shapes", str(model_dir), {}, 8, None, "0.12.0", model_yaml_config={"handler": options}))
    return handler


def ask(handler, *prompts):
    """Status and body for the image with each prompt, as one batch."""
    context = Context("shapes", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in prompts]
    items = [{"image": IMAGE, **({} if prompt is None else {"prompt": json.dumps(prompt)})} for prompt in prompts]
    answers = handler.handle(items, context)
    return [(context.get_response_status(index)[0], json.loads(answer)) for index, answer in enumerate(answers)]


def scores(answer):
    status, body = answer
    assert status == 200, body
    return [instance["score"] for instance in body["instances"]]


def test_the_requests_parameters_are_laid_over_the_archives(model_dir):
    handler = started(model_dir, score_threshold=0.9, max_instances=3)
    own, lower, more, fewer = ask(
        handler,
        None,
        {"parameters": {"score_threshold": 0.05}},
        {"parameters": {"score_threshold": 0.05, "max_instances": 100}},
        {"parameters": {"max_instances": 1}},
    )
    everything = [each["score"] for each in EXPECTED["images"][0]["instances"]]
    assert scores(more) == pytest.approx(everything, abs=2e-3)
    assert scores(lower) == scores(more)[:3]
    assert scores(own) == [score for score in scores(lower) if score > 0.9] != []
    assert scores(fewer) == scores(more)[:1]


def test_without_any_the_checkpoints_own_threshold_holds(model_dir):
    (bare,) = ask(started(model_dir), None)
    assert scores(bare) == pytest.approx([each["score"] for each in EXPECTED["images"][0]["instances"]], abs=2e-3)


def test_prompts_of_other_kinds_spare_their_neighbors(model_dir):
    text, good, unknown = ask(
        started(model_dir), {"text": "disc."}, {"parameters": {}}, {"parameters": {"box_threshold": 0.4}}
    )
    assert (text[0], text[1]["error"]["code"]) == (422, "invalid_prompt")
    assert (unknown[0], unknown[1]["error"]["code"]) == (400, "invalid_request")
    assert scores(good)


def test_it_describes_engine_and_classes(model_dir):
    handler = started(model_dir)
    context = Context("shapes", "", {}, 1, None, "0.12.0")
    context.request_processor = [RequestProcessor({"describe": "True"})]
    description = json.loads(handler.handle([{}], context)[0])
    assert (description["kind"], description["engine"]) == ("mask_rcnn", "torchvision")
    assert (description["classes"], description["prompts"]) == (EXPECTED["classes"], [])


def test_the_other_engine_is_detectron2_itself(tmp_path, caplog):
    convert_for_detectron2(GOLDEN / "model_final.pth", GOLDEN / "config.yaml", None, tmp_path / "checkpoint")
    if importlib.util.find_spec("detectron2"):
        (answer,) = ask(started(tmp_path, engine="detectron2"), None)
        assert len(scores(answer)) == len(EXPECTED["images"][0]["instances"])
        return
    with pytest.raises(SegserveError, match="detectron2"):
        started(tmp_path, engine="detectron2")
    assert "shapes cannot be loaded: " in caplog.text


def test_a_checkpoint_of_the_other_engine_is_told(tmp_path):
    convert_for_detectron2(GOLDEN / "model_final.pth", GOLDEN / "config.yaml", None, tmp_path / "checkpoint")
    with pytest.raises(SegserveError, match="engine"):
        started(tmp_path)
