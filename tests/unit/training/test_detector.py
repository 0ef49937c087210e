"""The demo detector: vocabulary, processor, and what is trainable in a new model."""

import pytest
import torch
from torch import nn
from transformers.models.grounding_dino.modeling_grounding_dino import SPECIAL_TOKENS, GroundingDinoFrozenBatchNorm2d

from segserve.training.detector import DetectorSize, build_detector, build_processor, build_vocabulary, frozen_copy
from segserve.training.phrases import known_words

TINY = DetectorSize(
    image=128,
    width=32,
    backbone=(8, 8, 16, 16),
    depths=(1, 1, 1, 1),
    stem=8,
    encoder_layers=1,
    decoder_layers=2,
    feedforward=32,
    queries=8,
    points=2,
    heads=2,
    text_layers=1,
)


def test_vocabulary_keeps_the_numbers_that_transformers_hard_codes() -> None:
    words = build_vocabulary()
    assert [words[index] for index in SPECIAL_TOKENS] == ["[CLS]", "[SEP]", ".", "?"]
    assert (words[0], words[100], words[103]) == ("[PAD]", "[UNK]", "[MASK]")
    assert len(set(words)) == len(words)


def test_the_tokenizer_uses_those_numbers() -> None:
    tokenizer = build_processor(TINY).tokenizer
    assert tokenizer("sofa. chair?")["input_ids"] == [
        101,
        tokenizer.vocab["sofa"],
        1012,
        tokenizer.vocab["chair"],
        1029,
        102,
    ]


def test_every_known_word_is_one_token() -> None:
    tokenizer = build_processor(TINY).tokenizer
    for word in known_words():
        assert tokenizer.tokenize(word) == [word]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Red CHAIR", ["red", "chair"]),
        ("chairs", ["chair", "##s"]),
        ("xyz", ["x", "##y", "##z"]),
        ("沙发", ["[UNK]", "[UNK]"]),
        ("стул", ["[UNK]"]),
    ],
)
def test_any_text_can_be_tokenized(text: str, tokens: list[str]) -> None:
    assert build_processor(TINY).tokenizer.tokenize(text) == tokens


def test_the_processor_makes_pictures_of_the_models_size() -> None:
    image = torch.zeros(3, 40, 90, dtype=torch.uint8)
    inputs = build_processor(TINY)(images=image, text="sofa.", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 128, 128)


def test_everything_in_a_new_model_learns() -> None:
    model = build_detector(1300, TINY)
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == []
    assert not any(isinstance(module, GroundingDinoFrozenBatchNorm2d) for module in model.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_new_scores_are_low() -> None:
    torch.manual_seed(0)
    processor = build_processor(TINY)
    model = build_detector(len(processor.tokenizer), TINY).eval()
    inputs = processor(
        images=torch.randint(0, 255, (3, 128, 128), dtype=torch.uint8), text="sofa. red chair.", return_tensors="pt"
    )
    with torch.no_grad():
        scores = model(**inputs).logits.sigmoid()
    assert scores.max() < 0.3
    assert scores[scores > 0].mean() < 0.1


def test_a_frozen_copy_computes_the_same_and_has_frozen_norms() -> None:
    torch.manual_seed(0)
    processor = build_processor(TINY)
    model = build_detector(len(processor.tokenizer), TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    inputs = processor(
        images=torch.randint(0, 255, (3, 128, 128), dtype=torch.uint8), text="sofa. lamp.", return_tensors="pt"
    )
    copy = frozen_copy(model)
    with torch.no_grad():
        trained, frozen = model.eval()(**inputs), copy(**inputs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    torch.testing.assert_close(frozen.logits, trained.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(frozen.pred_boxes, trained.pred_boxes, atol=1e-5, rtol=1e-4)
