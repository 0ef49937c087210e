"""The generic handler around a small predictor, in TorchServe's own request context."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from ts.context import Context, RequestProcessor

from segserve import masks
from segserve.catalog import GROUNDED_SAM
from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.models.segmentation import Instance, LabelMap, Segmentation
from segserve.schema import WorkerResult
from segserve.torchserve.base_handler import TIMING_HEADER, BaseHandler


class BrightSpots:
    """Finds what is brighter than 200; a picture of 13 pixels' width breaks it."""

    def __init__(self):
        self.batches = []
        self.warm = False

    def warm_up(self):
        self.warm = True

    def predict(self, images, prompts):
        self.batches.append([(image.shape[:2], prompt) for image, prompt in zip(images, prompts, strict=True)])
        return [self._one(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    def _one(self, image, prompt):
        height, width = image.shape[:2]
        if width == 13:
            raise IndexError("width 13")
        mask = image[..., 0] > 200
        box = masks.bounding_box(mask)
        found = (
            [] if box is None else [Instance.from_mask(prompt, 0.123456, tuple(float(v) + 0.004 for v in box), mask)]
        )
        return Segmentation(width, height, found)


class SpotHandler(BaseHandler):
    entry = GROUNDED_SAM

    def load(self, folder, options):
        if (folder / "refuse").exists():
            raise InvalidRequestError("the folder says no")
        return BrightSpots()

    def prompt(self, wanted):
        if "forbidden" in wanted.text:
            raise InvalidPromptError("not this word")
        return wanted.text


def picture(width=20, height=10, spot=(2, 3, 8, 7), format="PNG"):
    pixels = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = spot
    pixels[y0:y1, x0:x1] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def make_context(model_dir, gpu=None, config=None, requests=0, headers=None):
    context = Context("grounded_sam", str(model_dir), {}, 8, gpu, "0.12.0", model_yaml_config=config or {})
    context.request_processor = [RequestProcessor(dict(headers or {})) for _ in range(requests)]
    return context


@pytest.fixture
def root_level():
    levels = {name: logging.getLogger(name).level for name in (None, "segserve")}
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def handler(tmp_path, root_level):
    handler = SpotHandler()
    handler.initialize(make_context(tmp_path))
    return handler


def serve(handler, items, tmp_path, headers=None):
    """Bodies as JSON and statuses, the way TorchServe would send them."""
    context = make_context(tmp_path, requests=len(items), headers=headers)
    answers = handler.handle(items, context)
    assert len(answers) == len(items)
    return (
        [json.loads(answer) for answer in answers],
        [context.get_response_status(i)[0] for i in range(len(items))],
        context,
    )


def item(image=None, text="spot", **prompt):
    return {"image": image or picture(), "prompt": json.dumps({"text": text, **prompt})}


def test_it_is_warm_and_single_threaded_when_it_reports_ready(handler):
    assert handler.predictor.warm
    assert torch.get_num_threads() == 1


def test_after_loading_only_warnings_and_our_own_lines_are_logged(handler):
    assert not logging.getLogger("ts.anything").isEnabledFor(logging.INFO)
    assert logging.getLogger("segserve.anything").isEnabledFor(logging.INFO)


def test_an_answer_has_the_wire_form(handler, tmp_path):
    (body,), (status,), context = serve(handler, [item()], tmp_path)
    assert status == 200
    assert context.get_response_content_type(0) == "application/json"
    assert float(context.get_response_headers(0)[TIMING_HEADER]) >= 0
    result = WorkerResult.model_validate(body)
    assert (result.width, result.height) == (20, 10)
    (instance,) = result.instances
    assert (instance.label, instance.score, instance.area) == ("spot", 0.1235, 24)
    assert instance.box == (2.0, 3.0, 8.0, 7.0)
    mask = masks.decode_rle(instance.mask.model_dump())
    assert mask[3:7, 2:8].all()
    assert np.count_nonzero(mask) == 24


def test_bad_items_get_their_own_status_and_the_good_ones_run_together(handler, tmp_path):
    items = [
        item(),
        item(image=b"hello, I am text"),
        item(text=". . ."),
        item(picture(31, 17)),
        {"image": picture(), "prompt": "{broken"},
        item(picture()[:60]),
        item(text="forbidden"),
        item(parameters={"score_threshold": 0.5}),
        item(points=[[1, 2, 1]]),
        {},
        item(picture(format="GIF")),
    ]
    bodies, statuses, context = serve(handler, items, tmp_path)
    assert statuses == [200, 415, 422, 200, 400, 422, 422, 400, 422, 400, 200]
    assert handler.predictor.batches == [[((10, 20), "spot"), ((17, 31), "spot"), ((10, 20), "spot")]]
    codes = [body.get("error", {}).get("code") for body in bodies]
    assert codes[1] == "not_an_image"
    assert codes[2] == codes[6] == codes[8] == "invalid_prompt"
    assert codes[5] == "undecodable_image"
    assert codes[4] == codes[7] == codes[9] == "invalid_request"
    assert [body["width"] for body in (bodies[0], bodies[3], bodies[10])] == [20, 31, 20]
    assert {context.get_response_content_type(i) for i in range(len(items))} == {"application/json"}


def test_an_item_that_breaks_the_model_spares_its_neighbours(handler, tmp_path, caplog):
    bodies, statuses, _ = serve(handler, [item(), item(picture(13, 8)), item(picture(40, 20))], tmp_path)
    assert statuses == [200, 500, 200]
    assert bodies[1]["error"]["code"] == "internal_error"
    assert "width 13" not in json.dumps(bodies[1])
    assert "IndexError: width 13" in caplog.text
    assert bodies[2]["width"] == 40


def test_a_batch_of_bad_items_runs_no_model(handler, tmp_path):
    _, statuses, _ = serve(handler, [item(b"x"), {}], tmp_path)
    assert statuses == [415, 400]
    assert handler.predictor.batches == []


def test_the_raw_form_finds_its_prompt_in_the_header(handler, tmp_path):
    headers = {"X-Segserve-Prompt": '{"text": "spot"}', "Content-Type": "image/png"}
    (body,), (status,), _ = serve(handler, [{"body": picture()}], tmp_path, headers)
    assert status == 200
    assert body["instances"][0]["label"] == "spot"


def test_it_describes_itself(handler, tmp_path):
    (body,), (status,), _ = serve(handler, [{}], tmp_path, {"describe": "True"})
    assert status == 200
    assert body["device"] == "cpu"
    assert body["prompts"] == ["text"]
    assert (body["kind"], body["engine"], body["engines"], body["classes"]) == ("grounded_sam", None, None, None)
    handler.predictor.classes = ("spot", "stain")
    (body,), _, _ = serve(handler, [{}], tmp_path, {"describe": "True"})
    assert body["classes"] == ["spot", "stain"]


def test_too_many_pixels_are_refused_by_the_environments_limit(tmp_path, monkeypatch, root_level):
    monkeypatch.setenv("SEGSERVE_MAX_PIXELS", "100")
    handler = SpotHandler()
    handler.initialize(make_context(tmp_path))
    (body,), (status,), _ = serve(handler, [item()], tmp_path)
    assert status == 413
    assert body["error"]["code"] == "image_too_large"


def test_a_model_that_cannot_be_loaded_says_so_in_one_line(tmp_path, caplog, root_level):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "refuse").touch()
    with pytest.raises(InvalidRequestError):
        SpotHandler().initialize(make_context(tmp_path))
    assert "grounded_sam cannot be loaded: the folder says no" in caplog.messages


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda:1"), (False, "cpu")])
def test_the_gpu_that_torchserve_chose_is_used_where_there_is_one(tmp_path, monkeypatch, root_level, cuda, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    handler = SpotHandler()
    handler.initialize(make_context(tmp_path, gpu=1))
    assert handler.options.device == device


def test_the_yaml_reaches_the_worker(tmp_path, root_level):
    handler = SpotHandler()
    handler.initialize(make_context(tmp_path, config={"handler": {"threads": 2, "box_threshold": 0.4}}))
    assert torch.get_num_threads() == 2
    assert handler.options.defaults == {"box_threshold": 0.4}


def test_an_answer_that_torchserve_would_not_pass_on_spares_its_neighbors(handler, tmp_path, monkeypatch):
    def scores(image, prompt):
        pixels = 2**18 if prompt == "large" else 4
        return LabelMap(2, 2, np.zeros((2, 2), np.uint8), ("spot",), np.zeros((200, pixels), np.float32))

    monkeypatch.setattr(handler.predictor, "_one", scores)
    context = make_context(tmp_path, requests=2)
    large, small = handler.handle([item(text="large"), item(text="small")], context)
    assert [context.get_response_status(index)[0] for index in range(2)] == [413, 200]
    assert json.loads(large)["error"]["code"] == "answer_too_large"
    assert np.load(io.BytesIO(small)).shape == (200, 4)
    assert context.get_response_content_type(1) == "application/x-npy"
