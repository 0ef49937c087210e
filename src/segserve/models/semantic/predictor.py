"""A class for every pixel, computed by torch or by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segserve.errors import InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.device import Placement, choose_placement
from segserve.models.pictures import check_pictures
from segserve.models.segmentation import LabelMap
from segserve.models.semantic import label_maps
from segserve.models.semantic.any_image import as_rgb
from segserve.models.semantic.checkpoint import ONNX_FILE, Checkpoint, load_checkpoint
from segserve.models.semantic.parameters import Engine, Output, OutputSize, SemanticParameters
from segserve.models.semantic.pictures import Size, grouped

if TYPE_CHECKING:
    from segserve.models.semantic.onnx_engine import OnnxEngine

MAX_BATCH = {"cpu": 4, "cuda": 16}
"""Pictures that run at once, however many are asked for: more take memory and no less time."""


class Semantic:
    """The predictor of the model ``semantic``.

    An answer does not depend on what else is in the batch, within float rounding: pictures run together only when
    their inputs have the same size.

    Args:
        checkpoint: the network, float32, on the CPU, with its labels and preprocessing.
        placement: where torch runs, and in which precision.
        onnx: the same network for ONNX Runtime; None: there is only torch.
        defaults: the parameters where none are given, and those that a handler lays a request's over.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        onnx: OnnxEngine | None = None,
        defaults: SemanticParameters | None = None,
    ) -> None:
        self.placement = placement
        self.classes = checkpoint.classes
        self.preprocessing = checkpoint.preprocessing
        # Convolutions are faster with channels last, on CPUs and GPUs alike.
        self.network: nn.Module = checkpoint.network.eval().to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.onnx = onnx
        self.defaults = defaults or SemanticParameters()
        self._check_engine(self.defaults.engine)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        engine: str | None = None,
        defaults: SemanticParameters | None = None,
        threads: int = 0,
    ) -> Semantic:
        """The predictor of a checkpoint folder (see ``checkpoint``), with ONNX Runtime where it has a ``model.onnx``.

        Args:
            device: see ``choose_placement``; for both engines.
            dtype: as there, of the engine torch, but ``auto`` is float32 on GPUs too, so that both engines answer
                the same.
            engine: the default's; None: that of ``defaults``.
            defaults: see the class.
            threads: of ONNX Runtime on a CPU; 0: as many as there are cores. torch's are the process's own.

        Raises:
            NotFoundError: the folder or a file of it is missing.
            InvalidRequestError: a checkpoint of another model or a broken one, an ONNX file that is not of this
                checkpoint; an engine, device or dtype that is not there.
        """
        placement = choose_placement(device, "float32" if dtype == "auto" else dtype)
        checkpoint = load_checkpoint(Path(folder))
        onnx = None
        file = Path(folder) / ONNX_FILE
        # A dangling link is not there for exists(), and still no folder without the engine.
        if file.exists() or file.is_symlink():
            from segserve.models.semantic.onnx_engine import OnnxEngine

            size = checkpoint.preprocessing.input_size
            onnx = OnnxEngine(
                file, classes=len(checkpoint.classes), input_size=size, threads=threads, device=placement.device
            )
        given = defaults or SemanticParameters()
        return cls(checkpoint, placement, onnx, given if engine is None else replace(given, engine=_engine(engine)))

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What can be asked for."""
        return ("torch",) if self.onnx is None else ("torch", "onnx")

    def predict(self, images: Sequence[Rgb], prompts: Sequence[SemanticParameters]) -> list[LabelMap]:
        """The label map of each picture, with the scores where they are asked for.

        Args:
            images: H x W x 3 uint8 RGB, of any sizes.
            prompts: one for each picture; they may differ in everything.

        Raises:
            InvalidRequestError: not as many prompts as pictures, no pictures of H x W x 3 uint8, or an engine that is
                not there.
            TooLargeError: scores at the size of a picture that are over MAX_SCORES_BYTES, or an input that is over
                MAX_INPUT_PIXELS.
            torch.OutOfMemoryError, MemoryError: the batch does not fit into the device's memory.
        """
        if len(images) != len(prompts):
            raise InvalidRequestError(f"prompts: expected {len(images)}, one a picture, came {len(prompts)}.")
        check_pictures(images)
        for image, prompt in zip(images, prompts, strict=True):
            self._check_engine(prompt.engine)
            if prompt.output != "label_map" and prompt.size == "original":
                label_maps.check_scores(len(self.classes), image.shape[:2], prompt.output)
        inputs = self.inputs(images)
        found: dict[int, LabelMap] = {}
        at_once = MAX_BATCH[self.placement.device.type]
        for engine in self.engines:
            chosen = [index for index, prompt in enumerate(prompts) if prompt.engine == engine]
            for group in grouped([inputs[index] for index in chosen]):
                members = [chosen[position] for position in group]
                for start in range(0, len(members), at_once):
                    part = members[start : start + at_once]
                    logits = self._run(torch.stack([inputs[index] for index in part]), engine)
                    for index, each in zip(part, logits, strict=True):
                        size = (int(inputs[index].shape[1]), int(inputs[index].shape[2]))
                        found[index] = self._label_map(images[index], size, each, prompts[index])
        return [found[index] for index in range(len(images))]

    def segment(
        self,
        source: object,
        *,
        engine: Engine | None = None,
        output: Output | None = None,
        size: OutputSize | None = None,
    ) -> LabelMap:
        """The label map of one image in whichever form it comes.

        Args:
            source: see ``as_rgb``: a path, URL, bytes, PIL image, torch tensor or array.
            engine, output, size: see SemanticParameters; None: the defaults.

        Raises:
            TypeError: source is of none of these types.
            ValueError: an engine, output or size of another name; an array of another shape or range.
            RequestError: the image cannot be read or fetched; or as ``predict``.
        """
        given = {"engine": (engine, Engine), "output": (output, Output), "size": (size, OutputSize)}
        for name, (value, known) in given.items():
            if value is not None and value not in get_args(known):
                raise ValueError(f"{name}: expected {', '.join(get_args(known))}, came {value!r}.")
        chosen = {name: value for name, (value, _) in given.items() if value is not None}
        return self.predict([as_rgb(source)], [replace(self.defaults, **chosen)])[0]  # type: ignore[arg-type]

    def inputs(self, images: Sequence[Rgb]) -> list[Tensor]:
        """What the network is given of each picture, 3 x H x W float32, on the CPU: resized and normalized."""
        check_pictures(images)
        return [self.preprocessing(image) for image in images]

    def logits(self, images: Sequence[Rgb], engine: Engine | None = None) -> list[NDArray[np.float32]]:
        """The logits of each picture, C x H x W at the size of its input.

        Raises:
            InvalidRequestError, TooLargeError: as ``predict``.
        """
        asked = SemanticParameters(engine=engine or self.defaults.engine, output="logits", size="model")
        found = self.predict(images, [asked] * len(images))
        return [each.scores for each in found if each.scores is not None]

    def warm_up(self) -> None:
        """Run every engine once, so that the first request does not pay for the preparations."""
        image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        for engine in self.engines:
            self.predict([image], [SemanticParameters(engine=engine)])

    @torch.inference_mode()
    def _run(self, pixels: Tensor, engine: Engine) -> Tensor:
        """Logits as the network makes them, N x C x h x w float32, on its device."""
        if engine == "onnx" and self.onnx is not None:
            return self.onnx.run(pixels)
        batch = pixels.to(self.placement.device).contiguous(memory_format=torch.channels_last)
        with self.placement.precision():
            logits: Tensor = self.network(batch)
        return logits.float()

    @torch.inference_mode()
    def _label_map(self, image: Rgb, input_size: Size, logits: Tensor, prompt: SemanticParameters) -> LabelMap:
        height, width = image.shape[:2]
        size = (height, width) if prompt.size == "original" else input_size
        labels = label_maps.label_map(logits, size)
        scores = None if prompt.output == "label_map" else label_maps.scores(logits, size, prompt.output)
        return LabelMap(width, height, labels, self.classes, scores)

    def _check_engine(self, engine: str) -> None:
        if engine not in self.engines:
            raise InvalidRequestError(
                f"parameters.engine: {engine!r} is not there; this checkpoint has {', '.join(self.engines)}."
                + (f" Make a {ONNX_FILE} with segserve export-onnx." if engine == "onnx" else "")
            )


def _engine(name: str) -> Engine:
    for known in get_args(Engine):
        if name == known:
            engine: Engine = known
            return engine
    raise InvalidRequestError(f"engine: expected {', '.join(get_args(Engine))}, came {name!r}.")
