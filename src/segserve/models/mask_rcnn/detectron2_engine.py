"""The engine detectron2 (Wu et al., 2019): the package itself, for the models that the engine torchvision refuses.

detectron2 is handed a configuration and tensors that were read safely here; it opens no file of a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from segserve import masks
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.imaging import Rgb
from segserve.models.device import Placement, choose_placement
from segserve.models.labels import check_labels
from segserve.models.mask_rcnn.architecture import DETECTRON2_FORMAT, InputShape
from segserve.models.mask_rcnn.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from segserve.models.mask_rcnn.detectron2_checkpoint import DETECTRON2_CONFIG_FILE
from segserve.models.mask_rcnn.detectron2_fit import NOT_NEEDED
from segserve.models.mask_rcnn.detectron2_settings import Settings
from segserve.models.mask_rcnn.heads import Limits
from segserve.models.mask_rcnn.parameters import MaskRcnnParameters
from segserve.models.mask_rcnn.pictures import Size, input_size, resize
from segserve.models.pictures import check_pictures
from segserve.models.segmentation import Instance, Segmentation

INSTALL = "python -m pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"


class Detectron2MaskRcnn:
    """As MaskRcnn, for any instance segmentation model of detectron2.

    Args:
        model: a network of ``detectron2.modeling.build_model``, with its weights.
        config: the configuration it was built of.
        classes: the labels.
        placement: where it runs, and in which precision.
        defaults: the parameters that a handler lays a request's over.

    Raises:
        InvalidRequestError: the model finds boxes but no masks.
    """

    def __init__(
        self,
        model: Any,
        config: Any,
        classes: tuple[str, ...],
        placement: Placement,
        defaults: MaskRcnnParameters | None = None,
    ) -> None:
        self.placement = placement
        self.classes = classes
        self.defaults = defaults or MaskRcnnParameters()
        self._model = model.eval().to(placement.device)
        self._config = config
        self._shape = InputShape(config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST, config.INPUT.FORMAT)
        predictors = model.roi_heads.box_predictor
        # A cascade has one for each of its stages.
        self._predictors = list(predictors) if isinstance(predictors, torch.nn.ModuleList) else [predictors]
        self.warm_up()

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        defaults: MaskRcnnParameters | None = None,
    ) -> Detectron2MaskRcnn:
        """The predictor of a folder that ``convert_for_detectron2`` wrote.

        Args:
            device: see ``choose_placement``.
            dtype: as there, but auto is float32: not every operation of detectron2 takes another.

        Raises:
            NotFoundError: the folder or a file of it is missing.
            InvalidRequestError: detectron2 is not installed, or it cannot build this model; weights and configuration
                do not fit each other; the model has no masks; an unknown device or dtype.
        """
        folder = Path(folder)
        _require_package()
        placement = choose_placement(device, "float32" if dtype == "auto" else dtype)
        for name in (CONFIG_FILE, DETECTRON2_CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise NotFoundError(
                    f"{folder.name} has no {name}: it is no checkpoint folder for the engine detectron2."
                )
        config = _read_config(folder, placement.device)
        classes = _read_classes(folder, int(config.MODEL.ROI_HEADS.NUM_CLASSES))
        return cls(_build(folder, config), config, classes, placement, defaults)

    def predict(self, images: Sequence[Rgb], prompts: Sequence[MaskRcnnParameters]) -> list[Segmentation]:
        """The instances of each picture, by falling score; as MaskRcnn.predict.

        Pictures run together only when their inputs have the same padded size, so that answers do not depend on the
        batch, and when their parameters can be applied together.

        Args:
            images: H x W x 3 uint8 RGB, of any sizes.
            prompts: one for each picture.

        Raises:
            InvalidRequestError: not as many prompts as pictures, or no pictures of H x W x 3 uint8.
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
        """
        if len(images) != len(prompts):
            raise InvalidRequestError(f"prompts: expected {len(images)}, one a picture, came {len(prompts)}.")
        check_pictures(images)
        limits = [self._limits(each) for each in prompts]
        sizes = [input_size(image.shape[0], image.shape[1], self._shape) for image in images]
        together: dict[tuple[Size, float, int], list[int]] = {}
        for index, (size, limit) in enumerate(zip(sizes, limits, strict=True)):
            together.setdefault((self._padded(size), limit.nms_iou, limit.max_instances), []).append(index)
        results: dict[int, Segmentation] = {}
        for (_, nms_iou, most), group in together.items():
            # Boxes of lower scores suppress none of higher ones, so the lowest threshold serves all.
            self._set_limits(Limits(min(limits[index].score_threshold for index in group), nms_iou, most))
            found = self._run([images[index] for index in group], [sizes[index] for index in group])
            for index, each in zip(group, found, strict=True):
                instances = self._instances(each, limits[index].score_threshold, prompts[index].refine)
                results[index] = Segmentation(images[index].shape[1], images[index].shape[0], list(instances))
        return [results[index] for index in range(len(images))]

    def warm_up(self) -> None:
        """Run once on a small picture.

        Raises:
            InvalidRequestError: the model finds no masks.
        """
        image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        self._set_limits(Limits(0.0, 0.5, 1))
        found = self._run([image], [input_size(96, 128, self._shape)])[0]
        if not found.has("pred_masks"):
            raise InvalidRequestError("This model of detectron2 finds boxes but no masks; it cannot be served here.")

    def _limits(self, given: MaskRcnnParameters) -> Limits:
        """With the configuration's own values for what is not given."""
        heads, most = self._config.MODEL.ROI_HEADS, self._config.TEST.DETECTIONS_PER_IMAGE
        return Limits(
            heads.SCORE_THRESH_TEST if given.score_threshold is None else given.score_threshold,
            heads.NMS_THRESH_TEST if given.nms_iou is None else given.nms_iou,
            most if given.max_instances is None else given.max_instances,
        )

    def _padded(self, size: Size) -> Size:
        step = max(1, int(self._model.backbone.size_divisibility))
        return -(-size[0] // step) * step, -(-size[1] // step) * step

    def _set_limits(self, limits: Limits) -> None:
        for predictor in self._predictors:
            predictor.test_score_thresh = limits.score_threshold
            predictor.test_nms_thresh = limits.nms_iou
            predictor.test_topk_per_image = limits.max_instances

    @torch.inference_mode()
    def _run(self, images: Sequence[Rgb], sizes: Sequence[Size]) -> list[Any]:
        """detectron2's Instances of each picture, in the picture's pixels, on the CPU."""
        inputs = []
        for image, size in zip(images, sizes, strict=True):
            pixels = resize(image, size)
            ordered = pixels[..., ::-1] if self._shape.channel_order == "BGR" else pixels
            tensor = torch.from_numpy(ordered.astype(np.float32).transpose(2, 0, 1).copy())
            inputs.append({"image": tensor, "height": image.shape[0], "width": image.shape[1]})
        with self.placement.precision():
            return [each["instances"].to("cpu") for each in self._model(inputs)]

    def _instances(self, found: Any, score_threshold: float, refine: bool | Literal["polygon"]) -> Iterator[Instance]:
        fields = (found.pred_boxes.tensor.tolist(), found.scores.tolist(), found.pred_classes.tolist())
        for (x0, y0, x1, y1), score, label, mask in zip(*fields, found.pred_masks.numpy(), strict=True):
            if score > score_threshold:
                outline = masks.refine(mask, polygon=refine == "polygon") if refine else mask
                yield Instance.from_mask(self.classes[label], score, (x0, y0, x1, y1), outline)


def _require_package() -> None:
    try:
        import detectron2.config
        import detectron2.modeling  # noqa: F401
    except ImportError as error:
        raise InvalidRequestError(
            f"The engine detectron2 needs the package detectron2, which cannot be imported ({_first_line(error)}). "
            f"Install it: {INSTALL}. Most Mask R-CNNs with a feature pyramid do without: archive them with the engine "
            "torchvision."
        ) from error


def _read_config(folder: Path, device: torch.device) -> Any:
    """detectron2's own configuration object."""
    from detectron2.config import CfgNode, get_cfg

    settings = Settings.from_file(folder / DETECTRON2_CONFIG_FILE)
    config = get_cfg()
    try:
        if "POINT_HEAD" in settings.values.get("MODEL", {}):
            from detectron2.projects.point_rend import add_pointrend_config

            add_pointrend_config(config)
        config.merge_from_other_cfg(CfgNode(_known(settings.values, config)))
    except InvalidRequestError:
        raise
    except Exception as error:
        raise InvalidRequestError(f"{DETECTRON2_CONFIG_FILE}: detectron2 refuses it: {_first_line(error)}") from error
    config.MODEL.DEVICE = str(device)
    config.MODEL.WEIGHTS = ""
    if "USE_FED_LOSS" in config.MODEL.ROI_BOX_HEAD:
        # A loss of trainings, for which detectron2 would look a data set up.
        config.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    return config


def _known(values: dict[str, Any], config: Any, where: str = "") -> dict[str, Any]:
    """The settings that the installed detectron2 has. An unknown one of the model matters, any other does not.

    Raises:
        InvalidRequestError: a setting of the model belongs to an extension, or to another version of detectron2.
    """
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key not in config:
            if where.startswith("MODEL."):
                raise InvalidRequestError(
                    f"{where}{key}: the installed detectron2 has no such setting; it belongs to an extension of "
                    "detectron2 or to another version of it."
                )
        elif isinstance(value, dict) and isinstance(config[key], dict):
            kept[key] = _known(value, config[key], f"{where}{key}.")
        else:
            kept[key] = value
    return kept


def _read_classes(folder: Path, count: int) -> tuple[str, ...]:
    try:
        values = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        if values["format"] != DETECTRON2_FORMAT:
            raise ValueError
        labels = [str(label) for label in values["classes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError(
            f"{folder.name}/{CONFIG_FILE}: expected that of a checkpoint for the engine detectron2. Archive the "
            "weights with --weights FILE --config FILE --engine detectron2."
        ) from error
    return check_labels(labels, CONFIG_FILE, count)


def _build(folder: Path, config: Any) -> Any:
    """The model with its weights."""
    from detectron2.modeling import build_model

    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise InvalidRequestError(f"{folder.name}/{WEIGHTS_FILE} cannot be read: {_first_line(error)}") from error
    try:
        model = build_model(config)
        report = model.load_state_dict(tensors, strict=False)
    except Exception as error:
        raise InvalidRequestError(f"{folder.name}: detectron2 cannot build this model: {_first_line(error)}") from error
    for verb, names in (("lacks", report.missing_keys), ("has unknown", report.unexpected_keys)):
        wrong = sorted(name for name in names if not NOT_NEEDED.fullmatch(name))
        if wrong:
            raise InvalidRequestError(
                f"{folder.name}/{WEIGHTS_FILE} {verb} tensors ({len(wrong)}: {', '.join(wrong[:3])}): it does not fit "
                f"{DETECTRON2_CONFIG_FILE}."
            )
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
