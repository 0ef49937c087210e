"""The demo SAM: its processor and the small model itself, built from nothing.

Only official transformers classes are used, so that a trained folder loads anywhere transformers does.
Architecture: Kirillov et al., "Segment Anything" (2023); the sizes are segserve's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

MASK_CELLS_PER_TOKEN = 4
TOKEN_DEVIATION = 0.5
POSITION_STRENGTH = 0.3
FEW_TOKENS = "segserve_few_tokens"


@dataclass(frozen=True)
class SegmenterSize:
    """Sizes of the model; the default is the one the repository's demo weights have, tests take a smaller one.

    Attributes:
        image: side in pixels of the square that pictures are scaled and padded to.
        patch: pixels of a token's side; the mask grid is four times as fine as the token grid.
        width: channels of the image encoder.
        embedding: channels of the image embedding, of prompts and of the mask decoder.
        layers, heads: of the image encoder; only its last layer attends to the whole picture.
        window: side in tokens of the square inside which the other layers attend.
        decoder_layers, decoder_heads: of the mask decoder.
    """

    image: int = 256
    patch: int = 8
    width: int = 128
    embedding: int = 96
    layers: int = 4
    heads: int = 4
    window: int = 16
    decoder_layers: int = 2
    decoder_heads: int = 4

    @property
    def mask_side(self) -> int:
        """Side of the square grid that masks are predicted on."""
        return self.image // self.patch * MASK_CELLS_PER_TOKEN


def build_segmenter(size: SegmenterSize | None = None) -> SamModel:
    """A randomly initialized ``SamModel`` that learns from scratch; seed it with ``torch.manual_seed``.

    Parameters that the training leaves alone (the random Fourier features of positions, the embedding of mask
    prompts) do not require gradients.
    """
    size = size or SegmenterSize()
    segmenter = SamModel(_configuration(size))
    _initialize(segmenter, size)
    segmenter.shared_image_embedding.requires_grad_(False)
    segmenter.prompt_encoder.shared_embedding.requires_grad_(False)
    segmenter.prompt_encoder.mask_embed.requires_grad_(False)
    return segmenter


def build_segmenter_processor(size: SegmenterSize | None = None) -> SamProcessor:
    """The processor of ``build_segmenter``'s model: scales the longest side to ``size.image`` and pads."""
    size = size or SegmenterSize()
    square = {"height": size.image, "width": size.image}
    mask_square = {"height": size.mask_side, "width": size.mask_side}
    image_processor = SamImageProcessor(
        size={"longest_edge": size.image},
        pad_size=square,
        mask_size={"longest_edge": size.mask_side},
        mask_pad_size=mask_square,
    )
    return SamProcessor(image_processor)


def predict_masks(
    segmenter: SamModel,
    embeddings: Tensor,
    *,
    boxes: Tensor | None = None,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """The prompted half of ``SamModel.forward``, with prompts encoded in full precision under autocast.

    Args:
        segmenter: the model.
        embeddings: (B, C, T, T) from ``segmenter.vision_encoder``.
        boxes: (B, P, 4) x0, y0, x1, y1 in pixels of the padded square.
        points: (B, P, N, 2) x, y in pixels of the padded square.
        labels: (B, P, N) 1 foreground, 0 background, -1 no point.
        multimask: three candidates instead of one mask.

    Returns:
        Logits (B, P, K, G, G) and predicted IoU (B, P, K).
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        sparse, dense = segmenter.prompt_encoder(points, labels, boxes, None)
        positions = segmenter.get_image_wide_positional_embeddings()
    logits, scores = segmenter.mask_decoder(
        image_embeddings=embeddings,
        image_positional_embeddings=positions.expand(len(embeddings), -1, -1, -1).to(embeddings.dtype),
        sparse_prompt_embeddings=sparse.to(embeddings.dtype),
        dense_prompt_embeddings=dense.to(embeddings.dtype),
        multimask_output=multimask,
    )
    return logits, scores


def speed_up_decoder(segmenter: SamModel) -> None:
    """Make the mask decoder's attention between 1,024 cells and a handful of tokens fast, in place; same results.

    Fused attention kernels are tuned for many keys: with seven of them they take a quarter of a training step.
    """
    ALL_ATTENTION_FUNCTIONS.register(FEW_TOKENS, few_token_attention)
    for module in segmenter.mask_decoder.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = FEW_TOKENS


def few_token_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attention_mask: Tensor | None,
    scaling: float,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' interface, (N, heads, length, channels) in and (N, length, heads, channels) out.

    With fewer keys than queries the softmax runs along the outer dimension, which vectorizes over the queries.

    Raises:
        ValueError: a mask is given.
    """
    if attention_mask is not None:
        raise ValueError("few_token_attention: expected no attention mask")
    if key.shape[2] < query.shape[2]:
        weights = (key @ query.transpose(2, 3) * scaling).softmax(dim=2).transpose(2, 3)
    else:
        weights = (query @ key.transpose(2, 3) * scaling).softmax(dim=3)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def _configuration(size: SegmenterSize) -> SamConfig:
    vision = SamVisionConfig(
        hidden_size=size.width,
        output_channels=size.embedding,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image,
        patch_size=size.patch,
        mlp_ratio=2.0,
        window_size=size.window,
        global_attn_indexes=[size.layers - 1],
        num_pos_feats=size.embedding // 2,
        # Relative positions cost half of the encoder's time on a CPU; absolute ones suffice at one resolution.
        use_rel_pos=False,
        initializer_range=0.02,
    )
    prompts = SamPromptEncoderConfig(
        hidden_size=size.embedding, image_size=size.image, patch_size=size.patch, mask_input_channels=16
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=size.embedding,
        mlp_dim=2 * size.embedding,
        num_hidden_layers=size.decoder_layers,
        num_attention_heads=size.decoder_heads,
        iou_head_hidden_dim=size.embedding,
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


@torch.no_grad()
def _initialize(segmenter: SamModel, size: SegmenterSize) -> None:
    """Replace transformers' initialization, made for loading checkpoints: with it a small model learns nothing."""
    for module in segmenter.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
    prompts, decoder = segmenter.prompt_encoder, segmenter.mask_decoder
    tokens = [*prompts.point_embed, prompts.not_a_point_embed, prompts.no_mask_embed]
    for token in [*tokens, decoder.iou_token, decoder.mask_tokens]:
        nn.init.normal_(token.weight, std=TOKEN_DEVIATION)
    frequencies = segmenter.shared_image_embedding.positional_embedding
    frequencies.normal_(std=1.0)
    prompts.shared_embedding.positional_embedding.copy_(frequencies)
    segmenter.vision_encoder.pos_embed.copy_(POSITION_STRENGTH * sine_positions(size.image // size.patch, size.width))


def sine_positions(side: int, channels: int) -> Tensor:
    """(1, side, side, channels): sines and cosines of the row in the first half of the channels, then the column's."""
    frequencies = math.pi * 2.0 ** torch.linspace(-1.0, math.log2(max(2.0, side / 2)), channels // 4)
    centers = (torch.arange(side) + 0.5) / side
    angles = centers[:, None] * frequencies
    code = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows = code[:, None].expand(side, side, -1)
    columns = code[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1)[None]
