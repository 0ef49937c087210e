"""The demo SAM's construction: sizes, initialization, prompts, and the fast attention against the official one."""

import pytest
import torch

from segserve.training.segmenter import (
    SegmenterSize,
    build_segmenter,
    build_segmenter_processor,
    few_token_attention,
    predict_masks,
    speed_up_decoder,
)

SIZE = SegmenterSize(image=64, patch=8, width=16, embedding=16, layers=2, heads=2, window=4, decoder_heads=2)


@pytest.fixture
def segmenter() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_segmenter(SIZE).eval()


def test_mask_grid_is_four_times_the_token_grid(segmenter: torch.nn.Module) -> None:
    with torch.no_grad():
        answer = segmenter(pixel_values=torch.zeros(1, 3, 64, 64), input_boxes=torch.tensor([[[4.0, 4.0, 40.0, 30.0]]]))
    assert SIZE.mask_side == 32
    assert answer.pred_masks.shape[-2:] == (32, 32)
    assert SegmenterSize().mask_side == 128


def test_a_seed_fixes_the_initial_weights() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_segmenter(SIZE).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    assert not torch.equal(first[name], other[name])


def test_positions_differ_between_tokens_and_prompts_share_the_pictures_frequencies(
    segmenter: torch.nn.Module,
) -> None:
    code = segmenter.vision_encoder.pos_embed[0].flatten(0, 1)
    distances = torch.cdist(code, code) + 9.0 * torch.eye(len(code))
    assert distances.min() > 0.05
    own = segmenter.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(own, segmenter.shared_image_embedding.positional_embedding)
    assert not own.requires_grad


def test_an_untrained_model_already_answers_prompts_differently(segmenter: torch.nn.Module) -> None:
    pixels = torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 60.0, 60.0]]])
    with torch.no_grad():
        masks = segmenter(pixel_values=pixels, input_boxes=boxes, multimask_output=False).pred_masks[0, :, 0]
    assert (masks[0] - masks[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("multimask", [False, True])
def test_predict_masks_gives_what_the_models_forward_gives(segmenter: torch.nn.Module, multimask: bool) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 20.0]], [[30.0, 30.0, 60.0, 60.0]]])
    points = torch.tensor([[[[5.0, 6.0], [7.0, 8.0]]], [[[40.0, 41.0], [0.0, 0.0]]]])
    labels = torch.tensor([[[1, 0]], [[1, -1]]])
    for prompts in ({"boxes": boxes}, {"points": points, "labels": labels}, {"boxes": boxes, "points": points}):
        given = {**prompts, "labels": labels} if "points" in prompts else prompts
        with torch.no_grad():
            embeddings = segmenter.get_image_embeddings(pixels)
            logits, scores = predict_masks(segmenter, embeddings, multimask=multimask, **given)
            official = segmenter(
                pixel_values=pixels, multimask_output=multimask, **{f"input_{name}": v for name, v in given.items()}
            )
        torch.testing.assert_close(logits, official.pred_masks)
        torch.testing.assert_close(scores, official.iou_scores)


def test_the_fast_decoder_gives_the_same_masks(segmenter: torch.nn.Module) -> None:
    embeddings, boxes = torch.randn(1, 16, 8, 8), torch.tensor([[[0.0, 0.0, 20.0, 20.0], [9.0, 9.0, 60.0, 60.0]]])
    with torch.no_grad():
        slow, _ = predict_masks(segmenter, embeddings, boxes=boxes)
        speed_up_decoder(segmenter)
        fast, _ = predict_masks(segmenter, embeddings, boxes=boxes)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(40, 3), (3, 40), (5, 5)])
def test_few_token_attention_equals_torchs(queries: int, keys: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 2, queries, 6), torch.randn(2, 2, keys, 6), torch.randn(2, 2, keys, 6)
    found, _ = few_token_attention(torch.nn.Identity(), query, key, value, attention_mask=None, scaling=0.7)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.7)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_few_token_attention_refuses_masks() -> None:
    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="no attention mask"):
        few_token_attention(torch.nn.Identity(), query, query, query, attention_mask=query, scaling=1.0)


def test_the_processor_fits_pictures_and_prompts_to_the_model() -> None:
    import numpy as np

    processor = build_segmenter_processor(SIZE)
    picture = np.zeros((60, 128, 3), np.uint8)
    inputs = processor(images=picture, input_boxes=[[[0.0, 0.0, 128.0, 60.0]]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert inputs["input_boxes"].tolist() == [[[0.0, 0.0, 64.0, 30.0]]]
    masks = processor.post_process_masks(
        torch.ones(1, 1, 1, 32, 32), inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    assert masks[0].shape == (1, 1, 60, 128)
