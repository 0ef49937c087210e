"""Whether weights of detectron2 fit a configuration, and if not, which setting disagrees."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.models.mask_rcnn.network import MaskRcnnNetwork

NOT_NEEDED = re.compile(
    r"pixel_(mean|std)"
    r"|.*\.num_batches_tracked"
    r"|.*_momentum"
    r"|proposal_generator\.anchor_generator\.cell_anchors\.\d+"
    r"|(ema|teacher|model_ema|ema_model|modelTeacher|modelStudent)\..+"
)
"""What detectron2 computes from the configuration, counts while training, and what a training keeps beside them."""

_SETTINGS = (
    (r"roi_heads\.(box_head\.\d|box_predictor)", "MODEL.ROI_HEADS.NAME"),
    (r"roi_heads\.keypoint_head", "MODEL.KEYPOINT_ON"),
    (r"roi_heads\.mask_head\.(predictor|deconv)", "MODEL.MASK_ON or MODEL.ROI_MASK_HEAD.NAME"),
    (r"backbone\.fpn_.*\.norm", "MODEL.FPN.NORM"),
    (r"backbone\.bottom_up\..*\.conv2_offset", "MODEL.RESNETS.DEFORM_ON_PER_STAGE"),
    (r"backbone\.bottom_up\.res\d\.\d+\.(conv\d|shortcut)\.weight", "MODEL.RESNETS.DEPTH"),
    (r"backbone\.bottom_up\..*\.norm\.", "MODEL.RESNETS.NORM"),
    (r"backbone\.fpn_", "MODEL.FPN.OUT_CHANNELS"),
    (r"proposal_generator\.rpn_head\.conv", "MODEL.RPN.CONV_DIMS"),
    (r"proposal_generator\.rpn_head", "MODEL.ANCHOR_GENERATOR.SIZES or ASPECT_RATIOS"),
    (r"roi_heads\.box_head\..*\.norm", "MODEL.ROI_BOX_HEAD.NORM"),
    (r"roi_heads\.box_head\.conv", "MODEL.ROI_BOX_HEAD.NUM_CONV or CONV_DIM"),
    (r"roi_heads\.box_head\.fc", "MODEL.ROI_BOX_HEAD.NUM_FC, FC_DIM or POOLER_RESOLUTION"),
    (r"roi_heads\.mask_head\..*\.norm", "MODEL.ROI_MASK_HEAD.NORM"),
    (r"roi_heads\.mask_head", "MODEL.ROI_MASK_HEAD.NUM_CONV or CONV_DIM"),
)
"""Tensors that one side lacks, and what they depend on; where several fit, the first tells most."""

_WIDTHS = (
    # The biases: the weights' other side is the width of what comes before.
    (r"roi_heads\.box_predictor\.cls_score\.bias", "MODEL.ROI_HEADS.NUM_CLASSES"),
    (r"roi_heads\.mask_head\.predictor\.bias", "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK or MODEL.ROI_HEADS.NUM_CLASSES"),
    (r"roi_heads\.box_predictor\.bbox_pred\.bias", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
    (r"backbone\.bottom_up\.stem\.conv1\.weight", "MODEL.RESNETS.STEM_OUT_CHANNELS"),
    (r"backbone\.bottom_up\.res2\.0\.conv1\.weight", "MODEL.RESNETS.WIDTH_PER_GROUP or NUM_GROUPS"),
    (r"backbone\.bottom_up\.res2\.0\.conv2\.weight", "MODEL.RESNETS.NUM_GROUPS"),
    (r"backbone\.bottom_up\.res2\.0\.(conv3|shortcut)\.weight", "MODEL.RESNETS.RES2_OUT_CHANNELS"),
    (r"backbone\.bottom_up", "MODEL.RESNETS.DEPTH"),
    *_SETTINGS[3:],
    (r"roi_heads\.box_predictor", "MODEL.ROI_BOX_HEAD.FC_DIM, CONV_DIM or POOLER_RESOLUTION"),
)
"""The same for tensors of another shape."""


def fit_tensors(network: MaskRcnnNetwork, tensors: dict[str, Tensor], weights: str, config: str) -> None:
    """Put a checkpoint's tensors into the network of its configuration, all that it needs and nothing unknown.

    Args:
        network: new, of the configuration.
        tensors: by detectron2's names.
        weights, config: the files' names, for messages.

    Raises:
        InvalidRequestError: tensors are missing, of another shape, or unknown, which means that the weights are those
            of another network; names them and the setting that disagrees.
    """
    wanted = network.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name in wanted}
    _complete_fixed_norms(network, found)
    missing = sorted(name for name in wanted.keys() - found.keys() if not name.endswith("num_batches_tracked"))
    misfits = sorted(name for name, tensor in found.items() if tensor.shape != wanted[name].shape)
    unknown = sorted(name for name in tensors.keys() - wanted.keys() if not NOT_NEEDED.fullmatch(name))
    if misfits:
        name, setting = _most_telling(misfits, _WIDTHS)
        shapes = f"{name} is {tuple(found[name].shape)} there, {tuple(wanted[name].shape)} by the configuration"
        _fail(weights, config, f"{shapes}{_class_count(name, found)}", len(misfits), setting)
    for names, verb in ((missing, "lack"), (unknown, "have, beyond the configuration,")):
        if names:
            listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            _fail(weights, config, f"the weights {verb} {listed}", len(names), _most_telling(names, _SETTINGS)[1])
    network.load_state_dict(found, strict=False)


def _complete_fixed_norms(network: MaskRcnnNetwork, found: dict[str, Tensor]) -> None:
    """Fixed batch norms that came from Caffe2 have scale and shift only; detectron2 takes mean 0 and variance 1."""
    if getattr(network.architecture.backbone, "norm", "") != "FrozenBN":
        return
    for name, tensor in list(found.items()):
        if re.fullmatch(r"backbone\.bottom_up\..*\.norm\.weight", name):
            stem = name.removesuffix("weight")
            if f"{stem}running_mean" not in found and f"{stem}running_var" not in found:
                found[f"{stem}running_mean"] = torch.zeros_like(tensor)
                found[f"{stem}running_var"] = torch.ones_like(tensor)


def _most_telling(names: Sequence[str], settings: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The name that tells most, and the setting that it tells of."""
    for pattern, setting in settings:
        for name in names:
            if re.match(pattern, name):
                return name, setting
    return names[0], ""


def _class_count(name: str, found: dict[str, Tensor]) -> str:
    if name == "roi_heads.box_predictor.cls_score.bias":
        return f", so they have {len(found[name]) - 1} classes"
    return ""


def _fail(weights: str, config: str, problem: str, count: int, setting: str) -> None:
    hint = f" See {setting}." if setting else ""
    several = f" ({count} tensors in all)" if count > 1 else ""
    raise InvalidRequestError(f"{weights} does not fit {config}: {problem}{several}.{hint}")
