"""Small SAM 2 checkpoints with random weights, in the layout of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf

SIDE = 64
"""Pixels of the model's input."""


def vision_config(side: int = SIDE) -> Any:
    backbone = tf.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[side, side], blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 2, 4, 2], global_attention_blocks=[4], mlp_ratio=2.0,
        window_positional_embedding_background_size=[5, 5],
    )  # fmt: skip
    sizes = [[side // 4, side // 4], [side // 8, side // 8], [side // 16, side // 16]]
    return tf.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=sizes,
        fpn_hidden_size=32,
    )  # fmt: skip


def prompt_and_decoder(side: int = SIDE) -> dict[str, Any]:
    return {
        "prompt_encoder_config": tf.Sam2PromptEncoderConfig(
            hidden_size=32, image_size=side, patch_size=16, mask_input_channels=8
        ),
        "mask_decoder_config": tf.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    }


def sam2_config(side: int = SIDE) -> Any:
    return tf.Sam2Config(vision_config=vision_config(side), **prompt_and_decoder(side))


def randomized(model: Any, seed: int) -> Any:
    """Weights so large that picture, prompt and earlier mask all matter to the answer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.2 / max(parameter[0].numel(), 1) ** 0.5, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        matrix = model.shared_image_embedding.positional_embedding
        matrix.copy_(torch.randn(matrix.shape, generator=generator))
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(matrix)
    return model.eval()


def processor(side: int = SIDE) -> Any:
    size = {"height": side, "width": side}
    quarter = {"height": side // 4, "width": side // 4}
    return tf.Sam2Processor(tf.Sam2ImageProcessor(size=size, mask_size=quarter))


def save_sam2(folder: Path, *, seed: int = 0, side: int = SIDE) -> Path:
    """A SAM 2 of some 0.2 M parameters with its processor."""
    randomized(tf.Sam2Model(sam2_config(side)), seed).save_pretrained(folder)
    processor(side).save_pretrained(folder)
    return folder
