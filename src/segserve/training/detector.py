"""The demo Grounding DINO: its vocabulary, its processor and the small model itself, all built from nothing.

Only official transformers classes are used, so that a trained folder loads anywhere transformers does.
Architecture: Liu et al., "Grounding DINO" (2023); the sizes are segserve's own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    ResNetConfig,
)
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoFrozenBatchNorm2d

from segserve.training.phrases import known_words

# transformers' Grounding DINO recognizes these four tokens by number, not by name: they must keep BERT's numbers.
SPECIAL_IDS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
FURTHER_IDS = {"[PAD]": 0, "[UNK]": 100, "[MASK]": 103}
FIRST_PUNCTUATION_ID = 980
FIRST_WORD_ID = 1030
PUNCTUATION = "!'(),-/:;&"
BACKBONE_STRIDES = (16, 32, 64)


@dataclass(frozen=True)
class DetectorSize:
    """Sizes of the model; the default is the one the repository's demo weights have, tests take a smaller one."""

    image: int = 256
    width: int = 96
    backbone: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    stem: int = 32
    encoder_layers: int = 2
    decoder_layers: int = 3
    feedforward: int = 256
    queries: int = 100
    points: int = 4
    heads: int = 4
    text_layers: int = 2


def build_vocabulary() -> list[str]:
    """WordPiece vocabulary in the order of its ids: special tokens, punctuation, letters, digits, known words.

    Every lower-case Latin word can be written with it (letter by letter at worst); other scripts become ``[UNK]``.
    """
    words = [f"[unused{index}]" for index in range(FIRST_WORD_ID)]
    for token, index in chain(SPECIAL_IDS.items(), FURTHER_IDS.items()):
        words[index] = token
    for offset, character in enumerate(PUNCTUATION):
        words[FIRST_PUNCTUATION_ID + offset] = character
    single = [*ascii_lowercase, *digits]
    words += [*single, *(f"##{character}" for character in single)]
    words += [word for word in known_words() if len(word) > 1]
    return words


def build_processor(size: DetectorSize | None = None) -> GroundingDinoProcessor:
    """Tokenizer and image processor; pictures are stretched to ``size.image`` squared pixels."""
    size = size or DetectorSize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(build_vocabulary()) + "\n", encoding="utf-8")
        tokenizer = BertTokenizer(vocab=str(path), do_lower_case=True, model_max_length=256)
    images = GroundingDinoImageProcessor(size={"height": size.image, "width": size.image})
    return GroundingDinoProcessor(images, tokenizer)


def detector_config(vocabulary_size: int, size: DetectorSize | None = None) -> GroundingDinoConfig:
    """Configuration of the model; dropout is off everywhere because generated scenes never repeat."""
    size = size or DetectorSize()
    backbone = ResNetConfig(
        embedding_size=size.stem,
        hidden_sizes=list(size.backbone),
        depths=list(size.depths),
        layer_type="basic",
        out_features=["stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=size.width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.heads,
        intermediate_size=2 * size.width,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=size.width,
        encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers,
        encoder_ffn_dim=size.feedforward,
        decoder_ffn_dim=size.feedforward,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        num_queries=size.queries,
        num_feature_levels=len(BACKBONE_STRIDES),
        encoder_n_points=size.points,
        decoder_n_points=size.points,
        dropout=0.0,
        fusion_droppath=0.0,
        max_text_len=256,
        two_stage=True,
        embedding_init_target=True,
        auxiliary_loss=False,
        disable_custom_kernels=True,
    )


def build_detector(vocabulary_size: int, size: DetectorSize | None = None) -> GroundingDinoForObjectDetection:
    """A freshly initialized model, ready to be trained: every parameter learns, batch norms keep real statistics."""
    model = GroundingDinoForObjectDetection(detector_config(vocabulary_size, size))
    _start_scores_low(model)
    with torch.no_grad():
        for layer in model.model.encoder.layers:
            layer.fusion_layer.vision_param.fill_(0.1)  # transformers' 1e-4 leaves text and picture apart for long
            layer.fusion_layer.text_param.fill_(0.1)
    make_trainable(model)
    return model


def make_trainable(model: GroundingDinoForObjectDetection) -> None:
    """Unfreeze the backbone and give it real batch norms, in place (transformers freezes both on construction)."""
    model.model.unfreeze_backbone()
    _thaw_batch_norms(model.model.backbone)
    box_head = model.bbox_embed[0].layers[0].weight
    box_head.register_hook(_without_first_input)


def frozen_copy(model: GroundingDinoForObjectDetection) -> GroundingDinoForObjectDetection:
    """The trained weights in the model that ``from_pretrained`` builds (frozen batch norms), in evaluation mode."""
    copy = GroundingDinoForObjectDetection(model.config)
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    copy.load_state_dict(weights, strict=True)
    return cast(GroundingDinoForObjectDetection, copy.eval())


def _start_scores_low(model: GroundingDinoForObjectDetection) -> None:
    """Make the first similarity scores about sigmoid(-4): almost all of them belong to background.

    Channel 0 of what is compared is made a constant: 1 on the picture's side, -4 on the text's.
    The box heads also read states that were not normalized, where channel 0 is not constant, and so ignore it.
    """
    with torch.no_grad():
        text_norm = model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
        text_norm.weight.fill_(0.12)
        text_norm.weight[0] = 0.0
        text_norm.bias[0] = -4.0
        for norm in (model.model.decoder.layer_norm, model.model.enc_output_norm):
            norm.weight[0] = 0.0
            norm.bias[0] = 1.0
        model.bbox_embed[0].layers[0].weight[:, 0] = 0.0


def _without_first_input(gradient: Tensor) -> Tensor:
    masked = gradient.clone()
    masked[:, 0] = 0.0
    return masked


def _thaw_batch_norms(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, GroundingDinoFrozenBatchNorm2d):
            thawed = nn.BatchNorm2d(child.weight.shape[0], momentum=0.05)
            state: dict[str, Any] = dict(child.state_dict())
            thawed.load_state_dict(state | {"num_batches_tracked": torch.tensor(0)})
            setattr(module, name, thawed)
        else:
            _thaw_batch_norms(child)
