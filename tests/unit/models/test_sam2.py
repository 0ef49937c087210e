"""SAM 2 as it is served: batches, the cache, prompts that do not fit, odd pictures, checkpoints that will not do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segserve import mask_logits, masks
from segserve.catalog import SAM2
from segserve.errors import InvalidPromptError, InvalidRequestError, NotFoundError
from segserve.models import checkpoints
from segserve.models.embedding_cache import EmbeddingCache
from segserve.models.sam2 import ClickPrompt, Sam2, Sam2Parameters, Target
from segserve.models.segmentation import Segmentation
from segserve.schema import Parameters, WorkerPrompt, check_prompt, parse

from .patchwork import picture
from .sam2_checkpoints import processor, save_sam2

IMAGES = [picture(0, 45, 80), picture(1, 90, 37), picture(2, 45, 80), picture(3, 64, 64)]
CLICK = Target(((30.0, 20.5, 1),))
PAIR = Target(((30.0, 20.5, 1), (3.25, 40.0, 0)))
BOX = Target(box=(4.0, 5.5, 30.0, 33.0))
PROMPTS = [
    ClickPrompt((CLICK,), Sam2Parameters(low_res=True)),
    ClickPrompt((BOX, CLICK, PAIR), Sam2Parameters(low_res=True)),
    ClickPrompt((PAIR,), Sam2Parameters(multimask=True, low_res=True)),
    ClickPrompt((CLICK, Target(((1.0, 1.0, 1),))), Sam2Parameters(multimask=False, low_res=True)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam2(tmp_path_factory.mktemp("sam2") / "checkpoint", seed=3)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Sam2:
    return Sam2.from_folder(folder, device="cpu")


@pytest.fixture
def caching(folder: Path) -> Sam2:
    return Sam2.from_folder(folder, device="cpu", cache=EmbeddingCache(2**20))


def assert_identical(first: Segmentation, second: Segmentation) -> None:
    """Bit for bit."""
    assert (first.width, first.height) == (second.width, second.height)
    assert first.instances == second.instances
    for one, other in zip(first.instances, second.instances, strict=True):
        assert one.low_res is not None and other.low_res is not None
        assert np.array_equal(one.low_res, other.low_res)


def test_a_batch_answers_as_each_picture_alone(plain: Sam2) -> None:
    together = plain.predict(IMAGES, PROMPTS)
    assert [len({each.object for each in found.instances}) for found in together] == [1, 3, 1, 2]
    for image, prompt, found in zip(IMAGES, PROMPTS, together, strict=True):
        assert found.cached is None
        assert_identical(found, plain.predict([image], [prompt])[0])


def test_cached_answers_are_the_uncached_ones_also_in_mixed_batches(plain: Sam2, caching: Sam2) -> None:
    expected = plain.predict(IMAGES, PROMPTS)
    caching.predict(IMAGES[1:2], PROMPTS[:1])
    order = [0, 1, 2, 0, 3]
    batches = [caching.predict([IMAGES[i] for i in order], [PROMPTS[i] for i in order]) for _ in range(2)]
    assert [each.cached for each in batches[0]] == [False, True, False, True, False]
    assert all(each.cached for each in batches[1])
    for batch in batches:
        for index, found in zip(order, batch, strict=True):
            assert_identical(found, expected[index])


def test_an_evicted_picture_is_encoded_again(folder: Path, plain: Sam2) -> None:
    room = plain.embed(IMAGES[0]).nbytes
    predictor = Sam2.from_folder(folder, device="cpu", cache=EmbeddingCache(2 * room))
    cached = [predictor.predict([IMAGES[i]], [PROMPTS[i]])[0].cached for i in (0, 1, 0, 2, 1, 2)]
    assert cached == [False, False, True, False, False, True]
    assert predictor.cache is not None
    assert predictor.cache.counts.evictions == 2 and predictor.cache.counts.nbytes == 2 * room
    assert_identical(predictor.predict([IMAGES[0]], [PROMPTS[0]])[0], plain.predict([IMAGES[0]], [PROMPTS[0]])[0])


def test_a_second_prompt_does_not_encode(caching: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode, prepare = caching._model.get_image_embeddings, caching._image_processor

    def spy(pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(caching._model, "get_image_embeddings", spy)
    assert not caching.predict(IMAGES[:1], PROMPTS[:1])[0].cached
    monkeypatch.setattr(caching, "_image_processor", None)
    assert caching.predict(IMAGES[:1], PROMPTS[1:2])[0].cached
    monkeypatch.setattr(caching, "_image_processor", prepare)
    assert encoded == [1]


def test_a_picture_can_be_embedded_ahead(caching: Sam2) -> None:
    caching.embed(IMAGES[0])
    assert caching.predict(IMAGES[:1], PROMPTS[:1])[0].cached


def test_predictors_of_other_weights_share_a_cache_without_mixing(tmp_path: Path, folder: Path, plain: Sam2) -> None:
    cache = EmbeddingCache(2**20)
    other = Sam2.from_folder(save_sam2(tmp_path, seed=4), device="cpu", cache=cache)
    same = Sam2.from_folder(folder, device="cpu", cache=cache)
    other.predict(IMAGES[:1], PROMPTS[:1])
    found = same.predict(IMAGES[:1], PROMPTS[:1])[0]
    assert not found.cached
    assert_identical(found, plain.predict(IMAGES[:1], PROMPTS[:1])[0])


def test_warming_up_leaves_the_cache_alone(caching: Sam2) -> None:
    caching.warm_up()
    assert caching.cache is not None and caching.cache.counts.misses == caching.cache.counts.entries == 0


def test_an_objects_answer_does_not_change_with_how_many_are_decoded_at_once(
    plain: Sam2, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = tuple(Target(((float(x), 20.0, 1),)) for x in range(5, 75, 10))
    prompt = ClickPrompt(targets, Sam2Parameters(low_res=True))
    at_once = plain.predict(IMAGES[:1], [prompt])[0].instances
    monkeypatch.setattr("segserve.models.sam2.decoding.DECODED_AT_ONCE", {"cpu": 3})
    parted = plain.predict(IMAGES[:1], [prompt])[0].instances
    assert {each.object for each in parted} == set(range(7))
    for one, other in zip(at_once, parted, strict=True):
        assert (one.object, one.score) == (other.object, pytest.approx(other.score, abs=1e-5))
        assert masks.iou(one.mask, other.mask) >= 0.999


def test_objects_of_several_pictures_can_be_encoded_and_decoded_together(
    folder: Path, plain: Sam2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU."""
    predictor = Sam2.from_folder(folder, device="cpu")
    predictor._decoder.across_pictures = True
    monkeypatch.setattr("segserve.models.sam2.predictor.ENCODED_AT_ONCE", {"cpu": 3})
    monkeypatch.setattr("segserve.models.sam2.decoding.DECODED_AT_ONCE", {"cpu": 32})
    calls: list[int] = []
    decode = predictor._model.mask_decoder.forward

    def spy(**named: Any) -> Any:
        calls.append(len(named["sparse_prompt_embeddings"]))
        return decode(**named)

    monkeypatch.setattr(predictor._model.mask_decoder, "forward", spy)
    for found, expected in zip(predictor.predict(IMAGES, PROMPTS), plain.predict(IMAGES, PROMPTS), strict=True):
        assert len(found.instances) == len(expected.instances) > 0
        for one, other in zip(found.instances, expected.instances, strict=True):
            assert (one.object, one.score) == (other.object, pytest.approx(other.score, abs=1e-5))
            assert np.count_nonzero(one.mask != other.mask) <= 0.001 * one.mask.size
            assert one.low_res is not None and other.low_res is not None
            np.testing.assert_allclose(one.low_res, other.low_res, atol=2e-4)
    # Clicks with three masks, a box, two points with one mask and with three, clicks with one mask.
    assert sorted(calls) == [1, 1, 1, 2, 2]


def test_lower_precision_gives_nearly_the_same_answer(folder: Path, plain: Sam2) -> None:
    rough = Sam2.from_folder(folder, device="cpu", dtype="bfloat16", cache=EmbeddingCache(2**20))
    prompt = ClickPrompt((BOX,), Sam2Parameters(low_res=True))
    exact = plain.predict(IMAGES[:1], [prompt])[0].instances[0]
    first, second = (rough.predict(IMAGES[:1], [prompt])[0] for _ in range(2))
    assert second.cached
    assert_identical(first, second)
    assert first.instances[0].low_res is not None and first.instances[0].low_res.dtype == np.float32
    assert first.instances[0].score != exact.score
    assert first.instances[0].score == pytest.approx(exact.score, abs=0.05)
    assert masks.iou(first.instances[0].mask, exact.mask) > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (3, 5), (2, 2)])
def test_odd_pictures_are_answered(plain: Sam2, size: tuple[int, int]) -> None:
    height, width = size
    corner = (float(width), float(height))
    targets = (Target(((*corner, 1),)), Target(box=(0.0, 0.0, *corner)), Target(((0.0, 0.0, 1), (*corner, 0))))
    prompt = ClickPrompt(targets, Sam2Parameters(multimask=True, refine=True))
    found = plain.predict([picture(5, height, width)], [prompt])[0]
    assert (found.width, found.height) == (width, height)
    for each in found.instances:
        assert each.mask.shape == size and each.area > 0
        assert 0 <= each.box[0] < each.box[2] <= width and 0 <= each.box[1] < each.box[3] <= height


def test_a_box_is_that_of_its_mask(plain: Sam2) -> None:
    for each in plain.predict(IMAGES[:1], [ClickPrompt((CLICK, BOX, PAIR), Sam2Parameters(multimask=True))])[
        0
    ].instances:
        assert each.box == masks.bounding_box(each.mask)
        assert each.low_res is None


def test_refined_masks(plain: Sam2) -> None:
    rough = plain.predict(IMAGES[:1], [ClickPrompt((CLICK,), Sam2Parameters(multimask=True))])[0]
    for refine in (True, "polygon"):
        parameters = Sam2Parameters(multimask=True, refine=refine)
        fine = plain.predict(IMAGES[:1], [ClickPrompt((CLICK,), parameters)])[0]
        for one, other in zip(rough.instances, fine.instances, strict=True):
            assert np.array_equal(masks.refine(one.mask, polygon=refine == "polygon"), other.mask)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(((81.0, 20.0, 1),), name="prompt.points"), ["prompt.points", "[81, 20]", "80 x 45"]),
        (Target(((3.0, 4.0, 1), (-0.5, 20.0, 0))), ["[-0.5, 20]", "outside"]),
        (Target(box=(80.0, 0.0, 90.0, 10.0), name="prompt.boxes.3"), ["prompt.boxes.3", "no area", "80 x 45"]),
        (
            Target(mask=np.zeros((16, 17), np.float32), name="prompt.objects.2"),
            ["prompt.objects.2.mask", "16 x 16", "16 x 17"],
        ),
    ],
)
def test_a_prompt_that_does_not_fit_its_picture(plain: Sam2, target: Target, words: list[str]) -> None:
    with pytest.raises(InvalidPromptError) as caught:
        plain.predict(IMAGES[:1], [ClickPrompt((CLICK, target))])
    for word in words:
        assert word in caught.value.message
    with pytest.raises(InvalidPromptError):
        plain.check(ClickPrompt((target,)), IMAGES[0])


def test_a_mirrored_view_is_a_picture(plain: Sam2) -> None:
    view = IMAGES[0][:, ::-1]
    found = plain.predict([view], PROMPTS[:1])[0]
    assert_identical(found, plain.predict([view.copy()], PROMPTS[:1])[0])
    assert plain.embed(view).seen == (64, 64)


def test_a_box_may_reach_beyond_the_picture(plain: Sam2) -> None:
    assert plain.predict(IMAGES[:1], [ClickPrompt((Target(box=(-20.0, -3.0, 500.0, 60.0)),))])[0].height == 45


def test_an_object_needs_something_to_go_by() -> None:
    with pytest.raises(InvalidPromptError, match="points, a box or a mask"):
        Target()
    with pytest.raises(InvalidPromptError, match="1 to 64 objects, came 65"):
        ClickPrompt((CLICK,) * 65)


def test_as_many_prompts_as_pictures(plain: Sam2) -> None:
    with pytest.raises(InvalidRequestError, match="expected 2, one a picture, came 1"):
        plain.predict(IMAGES[:2], PROMPTS[:1])


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(plain: Sam2, image: Any) -> None:
    with pytest.raises(InvalidRequestError, match="expected H x W x 3 uint8"):
        plain.predict([image], PROMPTS[:1])
    with pytest.raises(InvalidRequestError, match="expected H x W x 3 uint8"):
        plain.embed(image)


def test_no_pictures_no_answers(plain: Sam2, caching: Sam2) -> None:
    assert plain.predict([], []) == caching.predict([], []) == []


# From the wire


def wire(body: dict[str, Any]) -> ClickPrompt:
    prompt = parse(WorkerPrompt, body)
    check_prompt(prompt, SAM2)
    return ClickPrompt.from_wire(prompt)


def test_points_are_one_object_and_boxes_one_each() -> None:
    assert [each.points for each in wire({"points": [[1, 2, 1], [3, 4, 0]]}).targets] == [((1, 2, 1), (3, 4, 0))]
    assert [each.box for each in wire({"boxes": [[0, 0, 5, 5], [1, 1, 9, 9]]}).targets] == [(0, 0, 5, 5), (1, 1, 9, 9)]
    both = wire({"points": [[1, 2, 1]], "boxes": [[0, 0, 5, 5]]}).targets
    assert [(each.points, each.box) for each in both] == [(((1, 2, 1),), (0, 0, 5, 5))]
    several = wire({"objects": [{"points": [[1, 2, 1]]}, {"box": [0, 0, 5, 5], "points": [[2, 2, 0]]}]}).targets
    assert [(each.points, each.box) for each in several] == [(((1, 2, 1),), None), (((2, 2, 0),), (0, 0, 5, 5))]


def test_an_answers_low_res_can_be_sent_again(plain: Sam2) -> None:
    first = plain.predict(IMAGES[:1], PROMPTS[:1])[0].instances[0]
    assert first.low_res is not None
    text = mask_logits.to_text(first.low_res)
    sent = wire({"objects": [{"mask": text, "points": [[30, 20.5, 1], [3.25, 40, 0]]}]})
    corrected = plain.predict(IMAGES[:1], [sent])[0].instances
    exact = plain.predict(IMAGES[:1], [ClickPrompt((Target(PAIR.points, mask=first.low_res),))])[0].instances
    assert [each.object for each in corrected] == [0]
    assert masks.iou(corrected[0].mask, exact[0].mask) >= 0.99
    assert corrected[0].score == pytest.approx(exact[0].score, abs=1e-2)


@pytest.mark.parametrize(
    ("target", "wanted", "expected"),
    [
        (CLICK, None, True),
        (PAIR, None, False),
        (BOX, None, False),
        (Target(CLICK.points, (0.0, 0.0, 5.0, 5.0)), None, False),
        (Target(CLICK.points, mask=np.zeros((16, 16), np.float32)), None, False),
        (CLICK, False, False),
        (BOX, True, True),
    ],
)
def test_a_single_point_means_three_masks(target: Target, wanted: bool | None, expected: bool) -> None:
    assert ClickPrompt((target,), Sam2Parameters(multimask=wanted)).multimask(target) is expected


def test_parameters_of_a_request_are_laid_over_the_defaults() -> None:
    defaults = Sam2Parameters(multimask=True, refine="polygon")
    assert defaults.overridden(Parameters()) == defaults
    given = Parameters(multimask=False, low_res=True, refine=False)
    assert defaults.overridden(given) == Sam2Parameters(multimask=False, low_res=True, refine=False)


# Checkpoints


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"model_type": "sam"}))
    with pytest.raises(InvalidRequestError, match="expected model_type sam2 or sam2_video, came 'sam'"):
        Sam2.from_folder(tmp_path / "other", device="cpu")
    with pytest.raises(NotFoundError, match="nowhere"):
        Sam2.from_folder(tmp_path / "nowhere", device="cpu")


def test_a_processor_of_another_size_is_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "wide")
    processor(128).save_pretrained(tmp_path / "wide")
    with pytest.raises(InvalidRequestError, match=r"expected pictures of 64 x 64.*128 x 128"):
        Sam2.from_folder(tmp_path / "wide", device="cpu")


def test_a_missing_processor_is_told(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "processor_config.json").unlink()
    with pytest.raises(InvalidRequestError, match="processor files"):
        checkpoints.load_processor(tmp_path / "bare", "Sam2Processor")
