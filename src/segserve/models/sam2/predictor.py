"""The predictor of SAM 2: pictures are encoded once, and decoded for each object that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segserve import masks
from segserve.errors import InvalidPromptError, InvalidRequestError
from segserve.imaging import Rgb
from segserve.models.checkpoints import CLICK_SEGMENTERS, load_model, load_processor
from segserve.models.device import Placement, choose_placement
from segserve.models.embedding_cache import Embedding, EmbeddingCache, encode_all, fingerprint, without_cache
from segserve.models.pictures import check_pictures
from segserve.models.sam2.decoding import Decoder, LowResMasks, Task
from segserve.models.sam2.parameters import Sam2Parameters
from segserve.models.sam2.prompts import ClickPrompt, Target
from segserve.models.segmentation import Instance, Segmentation

ENCODED_AT_ONCE = {"cpu": 1, "cuda": 8}
"""Pictures in one encoder call. On CPUs more of them take more memory and no less time."""


class Sam2:
    """The predictor of the model ``sam2``.

    On a CPU an answer does not depend on what else is in the batch; on a GPU it does within float rounding.

    Args:
        model: a ``Sam2Model`` of transformers.
        processor: its processor.
        placement: where to compute.
        defaults: the parameters where none are given, and those that a handler lays a request's over.
        cache: keeps the pictures' embeddings; None: every picture is encoded for each request.

    Raises:
        InvalidRequestError: the processor makes pictures of another size than the model takes.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        placement: Placement,
        defaults: Sam2Parameters | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.input_size = _input_size(model, processor)
        self.placement = placement
        self.defaults = defaults or Sam2Parameters()
        self.cache = cache
        self._image_processor = processor.image_processor
        # Convolutions are faster with channels last, on CPUs and GPUs alike.
        self._model = model.eval().to(placement.device, memory_format=torch.channels_last)
        self._decoder = Decoder(self._model, placement)
        self._fingerprint = b"" if cache is None else fingerprint(model, self._image_processor, placement.dtype)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        defaults: Sam2Parameters | None = None,
        cache: EmbeddingCache | None = None,
    ) -> Sam2:
        """The predictor of a checkpoint folder of transformers: SAM 2 or 2.1, also as saved for videos.

        Args:
            device, dtype: see ``device.choose_placement``.
            defaults, cache: see the class.

        Raises:
            NotFoundError: the folder or a file of it is missing.
            InvalidRequestError: a checkpoint of another model or a broken one; an unknown device or dtype.
        """
        root = Path(folder)
        placement = choose_placement(device, dtype)
        model = load_model(root, CLICK_SEGMENTERS)
        return cls(model, load_processor(root, "Sam2Processor"), placement, defaults, cache)

    @torch.inference_mode()
    def predict(self, images: Sequence[Rgb], prompts: Sequence[ClickPrompt]) -> list[Segmentation]:
        """The masks of each picture's objects, by falling score.

        An instance's score is the IoU that SAM 2 expects of its mask, its ``object`` the index of its target. A mask
        without a pixel is left out, so that an object may have no instance.

        Args:
            images: H x W x 3 uint8 RGB, of any sizes.
            prompts: one for each picture.

        Raises:
            InvalidPromptError: a point or box outside its picture, a mask of another size than the model's.
            InvalidRequestError: not as many prompts as pictures, or no pictures of H x W x 3 uint8.
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
        """
        if len(images) != len(prompts):
            raise InvalidRequestError(f"prompts: expected {len(images)}, one a picture, came {len(prompts)}.")
        for image, prompt in zip(images, prompts, strict=True):
            check_pictures([image])
            self.check(prompt, image)
        encoded = encode_all(images, self._encode, self.cache, self._fingerprint)
        tasks = [
            Task(picture, index, *self._inputs(target, images[picture].shape[:2]), prompt.multimask(target))
            for picture, prompt in enumerate(prompts)
            for index, target in enumerate(prompt.targets)
        ]
        found: list[list[Instance]] = [[] for _ in images]
        for task, low_res in self._decoder.run([each.embedding for each in encoded], tasks):
            found[task.picture] += _instances(low_res, task, images[task.picture].shape[:2], prompts[task.picture])
        return [
            Segmentation(image.shape[1], image.shape[0], sorted(instances, key=_rank), cached=each.cached)
            for image, instances, each in zip(images, found, encoded, strict=True)
        ]

    def embed(self, image: Rgb) -> Embedding:
        """The picture's embedding, from the cache or for it: the first prompt on it is then as fast as the next.

        Raises:
            InvalidRequestError: no picture of H x W x 3 uint8.
        """
        check_pictures([image])
        with torch.inference_mode():
            return encode_all([image], self._encode, self.cache, self._fingerprint)[0].embedding

    def check(self, prompt: ClickPrompt, image: Rgb | None = None) -> None:
        """Whether the model can read a prompt, on a picture where one is given.

        Raises:
            InvalidPromptError: a mask of another size than the model's, a point or box outside the picture.
        """
        wanted = self._decoder.mask_size
        for target in prompt.targets:
            if target.mask is not None and target.mask.shape != wanted:
                raise InvalidPromptError(
                    f"{target.name}.mask: expected {wanted[0]} x {wanted[1]} logits, the low_res of an earlier answer "
                    f"of this model, came {' x '.join(str(side) for side in target.mask.shape)}."
                )
            if image is not None:
                target.check_within(image.shape[1], image.shape[0])

    def warm_up(self) -> None:
        """Run the model once on a small picture, so that the first request does not pay for its preparations."""
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        targets = (Target(((32.0, 32.0, 1),)), Target(box=(8.0, 8.0, 56.0, 56.0)))
        with without_cache(self):
            self.predict([image], [ClickPrompt(targets)])

    def _encode(self, images: Sequence[Rgb]) -> list[Embedding]:
        embeddings: list[Embedding] = []
        at_once = ENCODED_AT_ONCE[self.placement.device.type]
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            # Without the format said, a picture of one or three rows would be taken for one whose channels come first.
            pixels = self._image_processor(
                [np.ascontiguousarray(image) for image in part],
                return_tensors="pt",
                device=self.placement.device,
                input_data_format="channels_last",
            )["pixel_values"]
            with self.placement.precision():
                made = self._model.get_image_embeddings(pixels)
            embeddings += [Embedding.owned(made, row, self.input_size) for row in range(len(part))]
        return embeddings

    def _inputs(self, target: Target, size: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Points (P, 3), box (4) in pixels of the model's input, and mask (h, w) of a target; None where there is none.

        The picture is stretched to the input's size: each axis has its own scale.
        """
        scale = torch.tensor([self.input_size[1] / size[1], self.input_size[0] / size[0]])
        points = box = mask = None
        if target.points:
            points = torch.tensor(target.points, dtype=torch.float32)
            points[:, :2] *= scale
        if target.box is not None:
            box = torch.tensor(target.box, dtype=torch.float32) * scale.repeat(2)
        if target.mask is not None:
            mask = torch.from_numpy(target.mask)
        return points, box, mask


def _input_size(model: Any, processor: Any) -> tuple[int, int]:
    size = processor.image_processor.size
    made = (int(size["height"]), int(size["width"]))
    taken = int(model.prompt_encoder.input_image_size)
    if made != (taken, taken) or processor.target_size != taken:
        raise InvalidRequestError(
            f"preprocessor_config.json: expected pictures of {taken} x {taken}, as the model takes them, came "
            f"{made[0]} x {made[1]} and a target_size of {processor.target_size}."
        )
    return made


def _instances(low_res: LowResMasks, task: Task, size: tuple[int, ...], prompt: ClickPrompt) -> Iterator[Instance]:
    """A task's masks at the picture's size. One at a time: each is gone before the next is enlarged."""
    label = "object" if len(prompt.targets) == 1 else f"object {task.index + 1}"
    for logits, score in zip(low_res.logits, low_res.scores, strict=True):
        mask = _enlarged(logits, size)
        refine = prompt.parameters.refine
        if refine:
            mask = masks.refine(mask > 0, polygon=refine == "polygon").astype(np.uint8)
        rle = masks.encode_rle(mask)
        box = masks.rle_bounding_box(rle)
        if box is None:
            continue
        kept = logits.cpu().numpy() if prompt.parameters.low_res else None
        yield Instance(label, min(max(float(score), 0.0), 1.0), box, rle, task.index, kept)


def _rank(instance: Instance) -> tuple[float, int]:
    """By falling score, equal ones in the order of their objects."""
    return -instance.score, instance.object or 0


def _enlarged(logits: Tensor, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mask, H x W uint8 0/1, of h x w logits: enlarged, thresholded at 0."""
    wide = functional.interpolate(logits[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0]
    # Columns first in memory: the order in which the run-length encoder reads, so that it need not copy.
    columns = (wide > 0).T.to(torch.uint8).contiguous().cpu().numpy()
    return np.asarray(columns.T)
