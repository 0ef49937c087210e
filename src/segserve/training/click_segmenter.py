"""The demo SAM 2: its processor and the small model itself, built from nothing.

Only official transformers classes are used, so that a trained folder loads anywhere transformers does.
Architecture: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (2024), with the encoder of Ryali et al.,
"Hiera" (2023); the sizes are segserve's own. Its video half (memory) is left out, as transformers' ``Sam2Model`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from segserve.training.segmenter import POSITION_STRENGTH, TOKEN_DEVIATION, sine_positions

STAGES = 4
MASK_CELLS_PER_TOKEN = 4
LOGIT_LIMIT = 32.0
"""Low-resolution logits are cut to this before they are fed back, as in SAM 2."""


@dataclass(frozen=True)
class ClickSegmenterSize:
    """Sizes of the model; the default is the one the repository's demo weights have, tests take a smaller one.

    Attributes:
        image: side in pixels of the square that pictures are stretched to.
        patch: pixels of a token's side in the encoder's first stage; masks are predicted on that grid.
        width: channels of the first stage; each of the four has twice the channels and half the side of the one before.
        blocks: of each stage; the last block of the third, which has at least 2, attends to the whole picture, the
            others inside windows.
        windows: side in tokens of each stage's windows; each divides its stage's grid, and every one but the last also
            the next stage's when halved, since that stage's first block still has it.
        embedding: channels of the image embedding, of prompts and of the mask decoder; a multiple of 32.
        decoder_heads: of the mask decoder's attention.
    """

    image: int = 256
    patch: int = 4
    width: int = 48
    blocks: tuple[int, int, int, int] = (1, 2, 3, 1)
    windows: tuple[int, int, int, int] = (8, 4, 8, 4)
    embedding: int = 96
    decoder_heads: int = 4

    @property
    def mask_side(self) -> int:
        """Side of the square grid that masks are predicted on."""
        return self.image // self.patch

    @property
    def token_side(self) -> int:
        """Side of the square grid of the image embedding."""
        return self.mask_side // MASK_CELLS_PER_TOKEN


@dataclass(frozen=True)
class EncodedPictures:
    """What the encoder makes of a batch of pictures.

    Attributes:
        embeddings: (B, C, T, T).
        fine: (B, C / 8, 4 T, 4 T) features for the decoder's last step.
        medium: (B, C / 4, 2 T, 2 T).
    """

    embeddings: Tensor
    fine: Tensor
    medium: Tensor

    def repeat(self, prompts: int) -> EncodedPictures:
        """Each picture ``prompts`` times in a row."""
        return EncodedPictures(**{name: value.repeat_interleave(prompts, 0) for name, value in vars(self).items()})


def build_click_segmenter(size: ClickSegmenterSize | None = None) -> Sam2Model:
    """A randomly initialized ``Sam2Model`` that learns from scratch; seed it with ``torch.manual_seed``.

    Parameters that the training leaves alone (the random Fourier features of positions, the head that tells whether
    the object is in the picture at all, which videos need) do not require gradients.
    """
    size = size or ClickSegmenterSize()
    segmenter = Sam2Model(_configuration(size))
    _initialize(segmenter, size)
    segmenter.shared_image_embedding.requires_grad_(False)
    segmenter.prompt_encoder.shared_embedding.requires_grad_(False)
    segmenter.mask_decoder.pred_obj_score_head.requires_grad_(False)
    return segmenter


def build_click_processor(size: ClickSegmenterSize | None = None) -> Sam2Processor:
    """The processor of ``build_click_segmenter``'s model: stretches pictures to ``size.image`` squared."""
    size = size or ClickSegmenterSize()
    return Sam2Processor(
        Sam2ImageProcessor(
            size={"height": size.image, "width": size.image},
            mask_size={"height": size.mask_side, "width": size.mask_side},
        )
    )


def encode_pictures(segmenter: Sam2Model, pixel_values: Tensor) -> EncodedPictures:
    """``Sam2Model.get_image_embeddings`` with gradients. (B, 3, S, S) pixels, normalized."""
    fine, medium, coarse = segmenter.vision_encoder(pixel_values).fpn_hidden_states
    return EncodedPictures(
        embeddings=coarse + segmenter.no_memory_embedding.reshape(1, -1, 1, 1),
        fine=segmenter.mask_decoder.conv_s0(fine),
        medium=segmenter.mask_decoder.conv_s1(medium),
    )


def predict_clicked(
    segmenter: Sam2Model,
    encoded: EncodedPictures,
    *,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    boxes: Tensor | None = None,
    masks: Tensor | None = None,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """The prompted half of ``Sam2Model.forward``, with prompts encoded in full precision under autocast.

    Args:
        segmenter: the model.
        encoded: B pictures.
        points: (B, P, N, 2) x, y in pixels of the square.
        labels: (B, P, N) 1 on the object, 0 beside it, -1 no point.
        boxes: (B, P, 4) x0, y0, x1, y1 in pixels of the square.
        masks: (B, P, G, G) logits of an earlier answer. transformers' decoder takes one mask a picture, so each prompt
            gets a picture of its own.
        multimask: three candidates instead of one mask.

    Returns:
        Logits (B, P, K, G, G) and predicted IoU (B, P, K).
    """
    prompts: tuple[Tensor | None, ...] = (points, labels, boxes)
    count = next(value.shape[1] for value in prompts if value is not None)
    pictures = len(encoded.embeddings)
    if masks is not None:
        encoded = encoded.repeat(count)
        prompts = tuple(None if value is None else value.flatten(0, 1)[:, None] for value in prompts)
        masks = masks.flatten(0, 1)[:, None].float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    embeddings = encoded.embeddings
    with torch.autocast(embeddings.device.type, enabled=False):
        sparse, dense = segmenter.prompt_encoder(*prompts, masks)
        positions = segmenter.get_image_wide_positional_embeddings()
    logits, scores, *_ = segmenter.mask_decoder(
        image_embeddings=embeddings,
        image_positional_embeddings=positions.expand(len(embeddings), -1, -1, -1).to(embeddings.dtype),
        sparse_prompt_embeddings=sparse.to(embeddings.dtype),
        dense_prompt_embeddings=dense.to(embeddings.dtype),
        multimask_output=multimask,
        high_resolution_features=[encoded.fine, encoded.medium],
    )
    return logits.reshape(pictures, count, *logits.shape[2:]), scores.reshape(pictures, count, -1)


def _configuration(size: ClickSegmenterSize) -> Sam2Config:
    widths = [size.width * 2**stage for stage in range(STAGES)]
    backbone = Sam2HieraDetConfig(
        hidden_size=size.width,
        image_size=[size.image, size.image],
        patch_kernel_size=[7, 7],
        patch_stride=[size.patch, size.patch],
        patch_padding=[3, 3],
        window_positional_embedding_background_size=[size.token_side, size.token_side],
        blocks_per_stage=list(size.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=list(size.windows),
        global_attention_blocks=[sum(size.blocks[:3]) - 1],
        mlp_ratio=2.0,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[size.mask_side // 2**level] * 2 for level in range(STAGES - 1)],
        fpn_hidden_size=size.embedding,
        # The fine levels get the coarse ones' context too: the first stages alone know little in so small a model.
        fpn_top_down_levels=list(range(STAGES)),
    )
    prompts = Sam2PromptEncoderConfig(
        hidden_size=size.embedding, image_size=size.image, patch_size=size.image // size.token_side
    )
    decoder = Sam2MaskDecoderConfig(
        hidden_size=size.embedding,
        mlp_dim=2 * size.embedding,
        num_attention_heads=size.decoder_heads,
        iou_head_hidden_dim=size.embedding,
        # Otherwise one answer is swapped for the best of three where its outline is soft, which a small model's is; the
        # three have learned single clicks mostly.
        dynamic_multimask_via_stability=False,
    )
    return Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


@torch.no_grad()
def _initialize(segmenter: Sam2Model, size: ClickSegmenterSize) -> None:
    """Replace transformers' initialization, made for loading checkpoints: with it a small model learns little."""
    for module in segmenter.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
    prompts, decoder = segmenter.prompt_encoder, segmenter.mask_decoder
    tokens = [prompts.point_embed, prompts.not_a_point_embed, prompts.no_mask_embed]
    for token in [*tokens, decoder.iou_token, decoder.mask_tokens, decoder.obj_score_token]:
        nn.init.normal_(token.weight, std=TOKEN_DEVIATION)
    # transformers draws the two independently, but a prompt finds its place in the picture by their being equal.
    frequencies = segmenter.shared_image_embedding.positional_embedding
    frequencies.normal_(std=1.0)
    prompts.shared_embedding.positional_embedding.copy_(frequencies)
    backbone = segmenter.vision_encoder.backbone
    positions = sine_positions(size.token_side, size.width).permute(0, 3, 1, 2)
    backbone.pos_embed.copy_(POSITION_STRENGTH * positions)
