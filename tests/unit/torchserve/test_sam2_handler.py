"""The handler of sam2 with a small checkpoint, in TorchServe's own request context."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from ts.context import Context, RequestProcessor

from segserve import imaging, mask_logits
from segserve.errors import SegserveError
from segserve.masks import decode_rle
from segserve.models.sam2 import ClickPrompt, Sam2
from segserve.schema import Parameters, Prompt, WorkerResult
from unit.models.sam2_checkpoints import save_sam2

ROOT = Path(__file__).parents[3]
CLICK = {"points": [[20, 30, 1]]}


def picture(seed):
    return imaging.encode(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8))


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
    save_sam2(folder / "checkpoint")
    return folder


@pytest.fixture
def handler(model_dir):
    """One whose cache is empty."""
    return started(model_dir)


def started(model_dir, **options):
    """A handler that has loaded the model, as TorchServe loads it from the file."""
    spec = importlib.util.spec_from_file_location("sam2_handler", ROOT / "handlers" / "sam2_handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.Sam2Handler()
    handler.initialize(Context("clicks", str(model_dir), {}, 8, None, "0.12.0", model_yaml_config={"handler": options}))
    return handler


def ask(handler, *items):
    """(status, cache header, bytes header, body) for each (image, prompt), sent as one batch."""
    context = Context("clicks", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in items]
    bodies = handler.handle([{"image": image, "prompt": json.dumps(prompt)} for image, prompt in items], context)
    return [
        (
            context.get_response_status(index)[0],
            context.get_response_headers(index).get("X-Segserve-Cache"),
            context.get_response_headers(index).get("X-Segserve-Cache-Bytes"),
            json.loads(body),
        )
        for index, body in enumerate(bodies)
    ]


def outcomes(answers):
    return [cache for _, cache, _, _ in answers]


def without_scores(body):
    """What has to be the same whatever else is in a batch."""
    return [(each["label"], each.get("object"), each["mask"]) for each in body["instances"]]


def test_answers_are_those_of_the_predictor(handler, model_dir):
    prompt = {"objects": [CLICK, {"box": [10, 10, 70, 50]}], "parameters": {"multimask": False}}
    ((status, _, _, body),) = ask(handler, (picture(1), prompt))
    assert status == 200
    WorkerResult.model_validate(body)
    wanted = Prompt(objects=prompt["objects"])
    parameters = handler.model.defaults.overridden(Parameters(multimask=False))
    found = Sam2.from_folder(model_dir / "checkpoint", device="cpu").predict(
        [imaging.decode(picture(1))], [ClickPrompt.from_wire(wanted, parameters)]
    )[0]
    assert len(found.instances) == 2
    assert [each["mask"] for each in body["instances"]] == [each.rle for each in found.instances]
    assert [each["object"] for each in body["instances"]] == [each.object for each in found.instances]
    assert [each["label"] for each in body["instances"]] == [each.label for each in found.instances]


def test_a_batch_tells_hits_from_misses_for_each_picture(handler):
    first = ask(handler, (picture(1), CLICK))
    assert outcomes(first) == ["miss"]
    kept = int(first[0][2])
    assert kept == handler.embedding_cache.counts.nbytes > 0
    mixed = ask(handler, (picture(2), CLICK), (picture(1), {"boxes": [[5, 5, 80, 50]]}), (picture(2), CLICK))
    # The second of two equal pictures in a batch is not encoded either.
    assert outcomes(mixed) == ["miss", "hit", "hit"]
    assert [int(size) for _, _, size, _ in mixed] == [2 * kept] * 3
    assert without_scores(mixed[0][3]) == without_scores(mixed[2][3])
    again = ask(handler, (picture(1), CLICK))
    assert outcomes(again) == ["hit"]
    assert without_scores(again[0][3]) == without_scores(first[0][3])


def test_the_same_pixels_in_another_file_are_the_same_picture(handler):
    ask(handler, (picture(1), CLICK))
    pixels = imaging.decode(picture(1))
    other_file = imaging.encode(pixels, "PNG") + b"trailing bytes"
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    assert outcomes(ask(handler, (other_file, CLICK), (imaging.encode(changed), CLICK))) == ["hit", "miss"]


def test_the_cache_is_bounded_by_its_option(model_dir):
    handler = started(model_dir, embedding_cache_mb=1)
    size = int(ask(handler, (picture(0), CLICK))[0][2])
    fitting = 2**20 // size
    for seed in range(1, fitting + 2):
        ((_, outcome, kept, _),) = ask(handler, (picture(seed), CLICK))
        assert outcome == "miss" and int(kept) <= 2**20
    # The oldest made room, the latest are there.
    assert outcomes(ask(handler, (picture(fitting + 1), CLICK), (picture(0), CLICK))) == ["hit", "miss"]


def test_without_a_cache_nothing_is_said_of_one(model_dir):
    handler = started(model_dir, embedding_cache_mb=0)
    for _ in range(2):
        ((status, outcome, kept, body),) = ask(handler, (picture(1), CLICK))
        assert (status, outcome, kept) == (200, None, None)
        assert body["instances"]


def test_a_bad_item_fails_alone_and_says_why(handler):
    answers = ask(
        handler,
        (picture(1), CLICK),
        (picture(1), {"points": [[500, 30, 1]]}),
        (picture(1), {"objects": [{"mask": mask_logits.to_text(np.zeros((5, 7), np.float32))}]}),
        (picture(1), {"objects": [{"mask": "bm9uZQ=="}]}),
        (picture(1), {"points": [[20, 30, 1]], "boxes": [[1, 1, 9, 9], [2, 2, 8, 8]]}),
        (picture(1), {}),
        (b"no image", CLICK),
        (picture(2), CLICK),
    )
    assert [status for status, *_ in answers] == [200, 422, 422, 400, 422, 422, 415, 200]
    assert outcomes(answers) == ["miss", *[None] * 6, "miss"]
    expected = ("outside the picture of 90 x 60", "objects.0.mask", "objects.0.mask", "objects", "prompt.points")
    for answer, words in zip(answers[1:6], expected, strict=True):
        assert words in answer[3]["error"]["message"]


def test_an_earlier_mask_corrects(handler):
    prompt = {**CLICK, "parameters": {"multimask": False, "low_res": True}}
    ((_, _, _, first),) = ask(handler, (picture(1), prompt))
    text = first["instances"][0]["low_res"]
    assert mask_logits.from_text(text, "low_res").shape == (16, 16)
    refined, plain = ask(
        handler,
        (picture(1), {"objects": [{"points": [[70, 50, 0]], "mask": text}]}),
        (picture(1), {"objects": [{"points": [[70, 50, 0]]}]}),
    )
    assert outcomes((refined, plain)) == ["hit", "hit"]
    masks = [decode_rle(body["instances"][0]["mask"]) for *_, body in (refined, plain)]
    assert (masks[0] != masks[1]).any(), "the earlier mask made no difference"
    assert "low_res" not in refined[3]["instances"][0]


def test_the_yaml_has_the_defaults(model_dir):
    handler = started(model_dir, multimask=True, threads=0)
    assert len(ask(handler, (picture(1), {"boxes": [[5, 5, 80, 50]]}))[0][3]["instances"]) == 3
    assert torch.get_num_threads() >= 1
    context = Context("clicks", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({"describe": "True"})]
    described = json.loads(handler.handle([{}], context)[0])
    assert (described["kind"], described["embedding_cache_mb"]) == ("sam2", 256)
    assert described["prompts"] == ["points", "boxes", "objects"]
    with pytest.raises(SegserveError, match="box_threshold"):
        started(model_dir, box_threshold=0.5)
