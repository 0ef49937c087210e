"""Small checkpoints with random weights, in the layout of transformers, and the demo checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

WORDS = [
    *("wall", "floor", "ceiling", "sofa", "chair", "table", "lamp", "rug", "window", "door", "picture", "plant", "bed"),
    *("red", "green", "blue", "white", "wooden", "t", "shirt", "cafe", "don", "a", "the", "of", "dog", "cat"),
]
DEMO_FOLDER = Path(__file__).parents[3] / "weights" / "demo" / "grounded_sam"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    return DEMO_FOLDER


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT's layout, in which Grounding DINO knows [CLS], [SEP], '.' and '?' by their numbers."""
    tokens = [f"[unused{index}]" for index in range(1030)]
    for index, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}.items():
        tokens[index] = token
    tokens[1012], tokens[1029] = ".", "?"
    tokens += list("-'!,0123456789") + WORDS + ["##s", "##let"]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> Any:
    return tf.BertTokenizer(vocab=str(vocabulary), do_lower_case=True, model_max_length=256)


def randomize(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights so large that every layer matters to the answer; transformers starts some at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                spread = 0.5 if "bbox_embed" in name else 1.2
                parameter.normal_(0, spread / parameter[0].numel() ** 0.5, generator=generator)
            elif name.endswith(("vision_param", "text_param", "decoder.layer_norm.weight")):
                parameter.fill_(0.5)
            elif parameter.dim() == 0:
                parameter.zero_()
    return model


def save_detector(
    folder: Path, tokenizer: Any, *, kind: str, size: dict[str, int], seed: int, pad_size: dict[str, int] | None = None
) -> Path:
    """A Grounding DINO ("grounding-dino", "mm-grounding-dino") of 32 channels."""
    if "shortest_edge" in size:
        backbone: Any = tf.SwinConfig(
            embed_dim=16, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=4, out_features=["stage2", "stage3"]
        )
    else:
        backbone = tf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic",
            out_features=["stage2", "stage3"],
        )  # fmt: skip
    text = tf.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    names = {
        "grounding-dino": (tf.GroundingDinoConfig, tf.GroundingDinoForObjectDetection),
        "mm-grounding-dino": (tf.MMGroundingDinoConfig, tf.MMGroundingDinoForObjectDetection),
    }
    config_class, model_class = names[kind]
    config = config_class(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=24, num_feature_levels=3,
        encoder_n_points=2, decoder_n_points=2, max_text_len=48, two_stage=True, embedding_init_target=True,
        disable_custom_kernels=True,
    )  # fmt: skip
    randomize(model_class(config), seed).save_pretrained(folder)
    tf.GroundingDinoProcessor(tf.GroundingDinoImageProcessor(size=size, pad_size=pad_size), tokenizer).save_pretrained(
        folder
    )
    return folder


def save_segmenter(folder: Path, *, kind: str, seed: int) -> Path:
    """A SAM ("sam", "sam_hq") that sees 64 x 64 pixels."""
    vision: dict[str, Any] = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 32, "num_pos_feats": 8,
    }  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8}
    decoder: dict[str, Any] = {
        "hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    if kind == "sam":
        config: Any = tf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
        model: Any = tf.SamModel(config)
    else:
        hq = decoder | {"vit_dim": 32}
        config = tf.SamHQConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=hq)
        model = tf.SamHQModel(config)
    randomize(model, seed)
    model.prompt_encoder.shared_embedding.load_state_dict(model.shared_image_embedding.state_dict())
    model.save_pretrained(folder)
    processor = tf.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )  # fmt: skip
    (tf.SamProcessor if kind == "sam" else tf.SamHQProcessor)(processor).save_pretrained(folder)
    return folder


SQUARE = {"height": 64, "width": 64}
WIDE = {"height": 136, "width": 160}
KEPT_ASPECT = {"shortest_edge": 64, "longest_edge": 128}


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("detectors")
    return {
        "square": save_detector(root / "square", tokenizer, kind="grounding-dino", size=SQUARE, seed=1),
        "aspect": save_detector(root / "aspect", tokenizer, kind="grounding-dino", size=KEPT_ASPECT, seed=2),
        "padded": save_detector(
            root / "padded", tokenizer, kind="grounding-dino", size=KEPT_ASPECT, seed=2, pad_size=WIDE
        ),
        "mm": save_detector(root / "mm", tokenizer, kind="mm-grounding-dino", size=KEPT_ASPECT, seed=3),
    }


@pytest.fixture(scope="session")
def segmenters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("segmenters")
    return {kind: save_segmenter(root / kind, kind=kind, seed=5) for kind in ("sam", "sam_hq")}
