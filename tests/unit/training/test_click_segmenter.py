"""The demo SAM 2's construction: sizes, initialization, and its prompted half against the official forward."""

import pytest
import torch
from transformers import Sam2Model

from segserve.training.click_segmenter import (
    ClickSegmenterSize,
    build_click_processor,
    build_click_segmenter,
    encode_pictures,
    predict_clicked,
)

SIZE = ClickSegmenterSize(image=64, width=8, blocks=(1, 1, 2, 1), windows=(4, 4, 4, 2), embedding=32, decoder_heads=2)
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
POINTS = torch.tensor([[[[9.0, 12.0], [40.0, 50.0]], [[30.0, 5.0], [0.0, 0.0]]]]).repeat(2, 1, 1, 1)
LABELS = torch.tensor([[[1, 0], [1, -1]]]).repeat(2, 1, 1)
BOXES = torch.tensor([[[4.0, 4.0, 40.0, 30.0], [20.0, 10.0, 60.0, 62.0]]]).repeat(2, 1, 1)


@pytest.fixture(scope="module")
def segmenter() -> Sam2Model:
    torch.manual_seed(3)
    return build_click_segmenter(SIZE).eval()


def test_masks_are_predicted_on_the_encoders_finest_grid(segmenter: Sam2Model) -> None:
    with torch.no_grad():
        answer = segmenter(pixel_values=PIXELS, input_boxes=BOXES)
    assert answer.pred_masks.shape == (2, 2, 3, SIZE.mask_side, SIZE.mask_side)
    assert (SIZE.mask_side, SIZE.token_side, ClickSegmenterSize().mask_side) == (16, 4, 64)


def test_the_default_model_fits_the_repository() -> None:
    weights = build_click_segmenter().parameters()
    assert sum(weight.numel() for weight in weights) < 4_000_000  # half precision: below 8 MB


def test_prompts_and_the_picture_share_the_frequencies_of_positions(segmenter: Sam2Model) -> None:
    own = segmenter.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(own, segmenter.shared_image_embedding.positional_embedding)
    assert own.std() > 0.5


def test_a_seed_fixes_the_initial_weights() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_click_segmenter(SIZE).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mask_decoder.mask_tokens.weight"], other["mask_decoder.mask_tokens.weight"])


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kinds", ["points", "boxes", "both"])
def test_answers_are_those_of_the_official_forward(segmenter: Sam2Model, kinds: str, multimask: bool) -> None:
    official: dict[str, torch.Tensor] = {}
    own: dict[str, torch.Tensor] = {}
    if kinds != "boxes":
        official |= {"input_points": POINTS, "input_labels": LABELS}
        own |= {"points": POINTS, "labels": LABELS}
    if kinds != "points":
        official |= {"input_boxes": BOXES}
        own |= {"boxes": BOXES}
    with torch.no_grad():
        wanted = segmenter(pixel_values=PIXELS, multimask_output=multimask, **official)
        logits, scores = predict_clicked(segmenter, encode_pictures(segmenter, PIXELS), multimask=multimask, **own)
    torch.testing.assert_close(logits, wanted.pred_masks)
    torch.testing.assert_close(scores, wanted.iou_scores)


def test_each_prompts_mask_is_its_own(segmenter: Sam2Model) -> None:
    masks = 5.0 * torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, scores = predict_clicked(
            segmenter, encode_pictures(segmenter, PIXELS), points=POINTS, labels=LABELS, masks=masks
        )
        for picture in range(2):
            for prompt in range(2):
                wanted = segmenter(
                    pixel_values=PIXELS[picture : picture + 1],
                    input_points=POINTS[picture : picture + 1, prompt : prompt + 1],
                    input_labels=LABELS[picture : picture + 1, prompt : prompt + 1],
                    input_masks=masks[picture, prompt][None, None],
                    multimask_output=False,
                )
                torch.testing.assert_close(logits[picture, prompt], wanted.pred_masks[0, 0])
                torch.testing.assert_close(scores[picture, prompt], wanted.iou_scores[0, 0])


def test_the_processor_makes_what_the_model_takes() -> None:
    picture = torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8)
    processed = build_click_processor(SIZE)(images=picture, input_points=[[[[25, 15]]]], return_tensors="pt")
    assert processed["pixel_values"].shape == (1, 3, 64, 64)
    assert processed["input_points"].flatten().tolist() == [32.0, 32.0]
