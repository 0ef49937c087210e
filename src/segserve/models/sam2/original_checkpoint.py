"""The original files of SAM 2 and 2.1 (``.pt``, as their authors publish them) as checkpoint folders of transformers.

Such a file has the weights only. What they do not show, the attention heads and windows, is known for the four
published sizes, which are told apart by their widths and depths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segserve.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from transformers import Sam2Config

IMAGE_SIZE = 1024
"""Pixels of the input of every published SAM 2."""

_TRUNK = "image_encoder.trunk."
_VIDEO_ONLY = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.|"
    r"(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
"""Weights that follow objects through a video. Single pictures need none of them."""

_MOST_POSITIONS = 64
"""Rows and columns of the positional embedding; published are 7 and 14."""

_MATRIX = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_CORNERS_AND_POINTS = "sam_prompt_encoder.point_embeddings."

_RENAMED = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    # Perceptrons: of two layers within blocks, of three as heads.
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"(_head|_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
    (r"(_head|_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
    (r"(_head|_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
)
"""Parts of names, here and in transformers; applied in this order."""


@dataclass(frozen=True)
class Size:
    """What the weights of a published size do not show. heads: of the first stage; they double at each further one."""

    heads: int
    windows: tuple[int, ...]
    global_blocks: tuple[int, ...]


SIZES: dict[tuple[int, tuple[int, ...]], Size] = {
    (96, (1, 2, 7, 2)): Size(1, (8, 4, 14, 7), (5, 7, 9)),
    (96, (1, 2, 11, 2)): Size(1, (8, 4, 14, 7), (7, 10, 13)),
    (112, (2, 3, 16, 3)): Size(2, (8, 4, 14, 7), (12, 16, 20)),
    (144, (2, 6, 36, 4)): Size(2, (8, 4, 16, 8), (23, 33, 43)),
}
"""tiny, small, base-plus and large, by the width of their first stage and the blocks of each."""


def convert(file: Path, out: Path) -> Path:
    """Make a checkpoint folder of an original file.

    Args:
        file: ``.pt``; no code in it is run.
        out: the folder, which is made if need be.

    Returns:
        The folder.

    Raises:
        NotFoundError: there is no such file.
        InvalidRequestError: it is no file of weights, or not those of a published SAM 2.
    """
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    state = read(file)
    config = configuration(state)
    with torch.device("meta"):
        model = Sam2Model(config)
    weights = renamed(state)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InvalidRequestError(
            f"{file.name}: these are not the weights of a published SAM 2; {len(wrong)} differ, e.g. {wrong[0]}: "
            f"expected {expected.get(wrong[0], 'none')}, came {found.get(wrong[0], 'none')}."
        )
    # Each with memory of its own: those of a file may share it.
    model.load_state_dict({name: tensor.clone().contiguous() for name, tensor in weights.items()}, assign=True)
    model.save_pretrained(out)
    Sam2Processor(Sam2ImageProcessor()).save_pretrained(out)
    return out


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of an original file, by their names in it.

    Raises:
        NotFoundError, InvalidRequestError: as convert.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no file {file}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidRequestError(
            f"{file.name}: expected weights as torch.save writes them; it cannot be read, or holds more than weights."
        ) from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidRequestError(f"{file.name}: expected the weights under the key 'model', as SAM 2's authors do.")
    return {str(name): _plain(str(name), tensor) for name, tensor in state.items()}


def configuration(state: Mapping[str, Tensor]) -> Sam2Config:
    """What transformers has to know of the model.

    Raises:
        InvalidRequestError: not of a published size.
    """
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig

    width, depths = _size(state)
    size = SIZES.get((width, depths))
    if size is None:
        known = "; ".join(f"{known_width} with {list(known_depths)}" for known_width, known_depths in SIZES)
        raise InvalidRequestError(
            f"expected the weights of a SAM 2 as published: a width of {known} blocks. Came {width} with "
            f"{list(depths)}: such a model cannot be converted, since its file does not say how its attention works."
        )
    widths = [width * 2**stage for stage in range(len(depths))]
    backbone = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=size.heads,
        blocks_per_stage=list(depths),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[size.heads * 2**stage for stage in range(len(depths))],
        window_size_per_stage=list(size.windows),
        global_attention_blocks=list(size.global_blocks),
        window_positional_embedding_background_size=list(state[f"{_TRUNK}pos_embed"].shape[-2:]),
    )
    return Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1]))


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights for single pictures, by transformers' names.

    Raises:
        InvalidRequestError: the embeddings of points are of unequal shapes.
    """
    weights = {}
    for name, tensor in state.items():
        if _VIDEO_ONLY.match(name) or name == _MATRIX or name.startswith(_CORNERS_AND_POINTS):
            continue
        new_name = name
        for pattern, replacement in _RENAMED:
            new_name = re.sub(pattern, replacement, new_name)
        weights[new_name] = tensor
    # transformers has the matrix twice, and the embeddings of point labels and box corners as one.
    if _MATRIX in state:
        weights["shared_image_embedding.positional_embedding"] = state[_MATRIX]
        weights["prompt_encoder.shared_embedding.positional_embedding"] = state[_MATRIX].clone()
    parts = _rows(state, _CORNERS_AND_POINTS)
    if parts:
        weights["prompt_encoder.point_embed.weight"] = torch.cat(list(parts.values()))
    return weights


def _plain(name: str, tensor: Tensor) -> Tensor:
    """A tensor of a file as float32."""
    if tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta:
        try:
            return tensor.to(torch.float32)
        except RuntimeError:
            # Told below.
            pass
    raise InvalidRequestError(
        f"{name[:200]}: expected floating-point numbers, came a tensor of {tensor.dtype} that cannot be read as such."
    )


def _rows(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The tensors whose names start so, by name: each of one row, all as long.

    Raises:
        InvalidRequestError: another shape.
    """
    rows = {name: state[name] for name in sorted(state) if name.startswith(start)}
    lengths = [row.shape[-1] for row in rows.values() if row.dim() == 2]
    for name, row in rows.items():
        if row.dim() != 2 or row.shape[0] != 1 or row.shape[1] != lengths[0]:
            wanted = f"(1, {lengths[0]})" if lengths else "(1, n)"
            raise InvalidRequestError(f"{name[:200]}: expected the shape {wanted}, came {tuple(row.shape)}.")
    return rows


def _size(state: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]]:
    """Width of the first stage, and how many blocks each stage has: a projection widens the first of the next."""
    first, positions = (state.get(f"{_TRUNK}{name}") for name in ("patch_embed.proj.weight", "pos_embed"))
    if first is None or positions is None:
        raise InvalidRequestError("expected the weights of SAM 2; there is no image_encoder.trunk in the file.")
    for name, tensor in (("patch_embed.proj.weight", first), ("pos_embed", positions)):
        if tensor.dim() != 4:
            raise InvalidRequestError(f"{_TRUNK}{name}: expected 4 dimensions, came the shape {tuple(tensor.shape)}.")
    if not all(1 <= side <= _MOST_POSITIONS for side in positions.shape[-2:]):
        raise InvalidRequestError(
            f"{_TRUNK}pos_embed: expected 1 to {_MOST_POSITIONS} rows and columns, came the shape "
            f"{tuple(positions.shape)}."
        )
    found = (re.match(rf"{re.escape(_TRUNK)}blocks\.(\d{{1,4}})\.(proj\.weight)?", name) for name in state)
    blocks = [(int(match[1]), match[2] is not None) for match in found if match]
    depth = 1 + max((index for index, _ in blocks), default=-1)
    starts = [0, *sorted(index for index, widens in blocks if widens), depth]
    return int(first.shape[0]), tuple(end - start for start, end in pairwise(starts))
