"""SAM 2's original files: names and shapes are those of its authors' package (1.1.0), as it builds sam2.1_hiera_t."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from segserve.cli import main
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.checkpoints import CLICK_SEGMENTERS, load_model
from segserve.models.sam2 import Sam2
from segserve.models.sam2 import original_checkpoint as original

from .sam2_checkpoints import randomized

LISTED = Path(__file__).parents[2] / "data" / "sam2_original_tensors.txt"
SMALL = (8, (1, 2, 7, 2))
"""Width and blocks: as deep as the tiny model, so that it has tensors of the same names."""


def listed() -> dict[str, torch.Tensor]:
    """Every tensor of the original tiny model, without values."""
    lines = (line.split() for line in LISTED.read_text().splitlines())
    return {name: torch.empty([int(side) for side in shape.split("x")], device="meta") for name, shape in lines}


def test_every_tensor_of_the_original_has_its_place() -> None:
    state = listed()
    config = original.configuration(state)
    with torch.device("meta"):
        expected = tf.Sam2Model(config).state_dict()
    found = original.renamed(state)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    # transformers' own default is the tiny model.
    assert config.to_dict() == tf.Sam2Config().to_dict()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("image_encoder.trunk.blocks.1.norm2.bias", "vision_encoder.backbone.blocks.1.layer_norm2.bias"),
        ("image_encoder.trunk.blocks.3.proj.weight", "vision_encoder.backbone.blocks.3.proj.weight"),
        ("image_encoder.trunk.blocks.3.attn.proj.weight", "vision_encoder.backbone.blocks.3.attn.proj.weight"),
        ("image_encoder.neck.convs.2.conv.bias", "vision_encoder.neck.convs.2.bias"),
        ("sam_mask_decoder.transformer.layers.1.norm3.weight", "mask_decoder.transformer.layers.1.layer_norm3.weight"),
        ("sam_mask_decoder.transformer.layers.0.mlp.layers.1.bias", "transformer.layers.0.mlp.proj_out.bias"),
        ("sam_mask_decoder.iou_prediction_head.layers.0.weight", "mask_decoder.iou_prediction_head.proj_in.weight"),
        ("sam_mask_decoder.iou_prediction_head.layers.1.weight", "mask_decoder.iou_prediction_head.layers.0.weight"),
        ("sam_mask_decoder.output_hypernetworks_mlps.2.layers.2.bias", "output_hypernetworks_mlps.2.proj_out.bias"),
        ("sam_mask_decoder.output_upscaling.3.weight", "mask_decoder.upscale_conv2.weight"),
        ("sam_prompt_encoder.mask_downscaling.4.bias", "prompt_encoder.mask_embed.layer_norm2.bias"),
        ("no_mem_embed", "no_memory_embedding"),
    ],
)  # fmt: skip
def test_where_a_tensor_goes(name: str, place: str) -> None:
    assert name in listed()
    (found,) = original.renamed({name: torch.zeros(1)})
    assert found in (place, f"mask_decoder.{place}")


@pytest.mark.parametrize(
    ("width", "depths", "heads", "last_global"),
    [
        (96, (1, 2, 7, 2), [1, 2, 4, 8], 9),
        (96, (1, 2, 11, 2), [1, 2, 4, 8], 13),
        (112, (2, 3, 16, 3), [2, 4, 8, 16], 20),
        (144, (2, 6, 36, 4), [2, 4, 8, 16], 43),
    ],
    ids=["tiny", "small", "base-plus", "large"],
)
def test_the_published_sizes_are_told_apart(
    width: int, depths: tuple[int, ...], heads: list[int], last_global: int
) -> None:
    backbone = original.configuration(trunk(width, depths)).vision_config.backbone_config
    assert tuple(backbone.blocks_per_stage) == depths
    assert backbone.embed_dim_per_stage == [width, 2 * width, 4 * width, 8 * width]
    assert backbone.num_attention_heads_per_stage == heads
    assert backbone.global_attention_blocks[-1] == last_global
    assert backbone.window_positional_embedding_background_size == [7, 9]


def trunk(width: int, depths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The tensors that show a model's size."""
    start = "image_encoder.trunk."
    state = {f"{start}patch_embed.proj.weight": torch.empty(width, 3, 7, 7, device="meta")}
    state[f"{start}pos_embed"] = torch.empty(1, width, 7, 9, device="meta")
    block = 0
    for stage, depth in enumerate(depths):
        for index in range(depth):
            state[f"{start}blocks.{block}.attn.proj.weight"] = torch.empty(1, device="meta")
            if stage and not index:
                state[f"{start}blocks.{block}.proj.weight"] = torch.empty(1, device="meta")
            block += 1
    return state


@pytest.fixture
def small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """An original file of a model with a small trunk, and the model of transformers that has its weights."""
    monkeypatch.setitem(original.SIZES, SMALL, original.Size(1, (8, 4, 14, 7), (4,)))
    config = original.configuration(trunk(*SMALL))
    model = randomized(tf.Sam2Model(config), 6)
    weights = model.state_dict()
    state = {}
    for name, tensor in listed().items():
        place = list(original.renamed({name: tensor}))
        if len(place) == 1 and place[0] in weights:
            state[name] = weights[place[0]].clone()
        elif not place:
            state[name] = torch.ones(2)
    for row in range(4):
        state[f"sam_prompt_encoder.point_embeddings.{row}.weight"] = weights["prompt_encoder.point_embed.weight"][[row]]
    matrix = weights["shared_image_embedding.positional_embedding"]
    state["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = matrix
    file = tmp_path / "sam2.pt"
    torch.save({"model": state}, file)
    return file, model


def test_the_folder_holds_the_files_weights(
    small_file: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, model = small_file
    out = tmp_path / "folder"
    assert main(["convert", "sam2", str(file), "--out", str(out)]) == 0
    assert "segserve archive sam2 --weights" in capsys.readouterr().out
    loaded = load_model(out, CLICK_SEGMENTERS).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    assert Sam2.from_folder(out, device="cpu").input_size == (1024, 1024)


def test_what_is_no_original_file_is_refused(tmp_path: Path, small_file: tuple[Path, Any]) -> None:
    file, _ = small_file
    state = torch.load(file, weights_only=True)["model"]
    lacking = {name: tensor for name, tensor in state.items() if "conv_s1" not in name}
    cases: list[tuple[Any, str]] = [
        ({"state_dict": state}, "under the key 'model'"),
        ({"model": {"a": 1}}, "under the key 'model'"),
        ([], "under the key 'model'"),
        ({"model": {"conv.weight": torch.ones(2)}}, "no image_encoder.trunk"),
        ({"model": lacking}, r"2 differ, e\.g\. mask_decoder\.conv_s1\.bias"),
        ({"model": {**state, "extra.weight": torch.ones(2)}}, r"1 differ, e\.g\. extra\.weight: expected none"),
    ]
    for content, words in cases:
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(InvalidRequestError, match=words):
            original.convert(tmp_path / "other.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
POSITIONS = "image_encoder.trunk.pos_embed"
POINT = "sam_prompt_encoder.point_embeddings.2.weight"
HEAD = "sam_mask_decoder.iou_prediction_head.layers.2.bias"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        (PATCHES, torch.tensor(1.0), r"expected 4 dimensions, came the shape \(\)"),
        (PATCHES, torch.ones(8), r"expected 4 dimensions, came the shape \(8,\)"),
        (POSITIONS, torch.tensor(1.0), r"expected 4 dimensions"),
        (POSITIONS, torch.ones(1, 8, 0, 7), "1 to 64 rows"),
        (POSITIONS, torch.ones(1).expand(1, 8, 10**6, 10**6), "1 to 64 rows"),
        (POINT, torch.tensor(1.0), r"expected the shape \(1, 256\), came \(\)"),
        (POINT, torch.ones(1, 3), r"expected the shape \(1, 256\), came \(1, 3\)"),
        (POINT, torch.ones(2, 256), r"expected the shape \(1, 256\), came \(2, 256\)"),
        (HEAD, torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), "torch.qint8"),
        (HEAD, torch.ones(4).to_sparse(), "cannot be read"),
        (HEAD, torch.ones(4, dtype=torch.complex64), "torch.complex64"),
        (HEAD, torch.ones(4, device="meta"), "cannot be read"),
        (HEAD, torch.ones(4, dtype=torch.int64), "torch.int64"),
        ("image_encoder.trunk.blocks." + "9" * 5000 + ".norm1.bias", torch.ones(1), "1 differ"),
    ],
)
def test_a_tensor_of_an_odd_form_gets_one_line(
    small_file: tuple[Path, Any], name: str, tensor: torch.Tensor, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = small_file
    state = torch.load(file, weights_only=True)["model"]
    torch.save({"model": {**state, name: tensor}}, file)
    with pytest.raises(InvalidRequestError, match=words) as caught:
        original.convert(file, file.parent / "out")
    assert name[:100] in caught.value.message or "differ" in words
    assert main(["convert", "sam2", str(file), "--out", str(file.parent / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("segserve convert: ")


def test_tensors_that_share_memory_are_converted(small_file: tuple[Path, Any], tmp_path: Path) -> None:
    file, _ = small_file
    state = torch.load(file, weights_only=True)["model"]
    row = torch.ones(1, 256)
    state.update({f"sam_prompt_encoder.point_embeddings.{index}.weight": row for index in range(4)})
    state["sam_prompt_encoder.not_a_point_embed.weight"] = row
    state["sam_prompt_encoder.no_mask_embed.weight"] = row
    torch.save({"model": state}, file)
    loaded = load_model(original.convert(file, tmp_path / "folder"), CLICK_SEGMENTERS).state_dict()
    assert torch.equal(loaded["prompt_encoder.no_mask_embed.weight"], row)


def test_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"96 with \[1, 2, 7, 2\].*Came 96 with \[1, 2, 3, 4\]"):
        original.configuration(trunk(96, (1, 2, 3, 4)))


class Harmful:
    """Would make a file, if a reader ran it."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"model": Harmful(tmp_path / "made")}, tmp_path / "harm.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harmful(tmp_path / "made"), protocol=2))
    for name in ("harm.pt", "plain.pt"):
        with pytest.raises(InvalidRequestError, match="more than weights"):
            original.read(tmp_path / name)
    assert not (tmp_path / "made").exists()
    with pytest.raises(NotFoundError, match=r"nowhere\.pt"):
        original.read(tmp_path / "nowhere.pt")
