"""What all TorchServe handlers share: everything but the model.

A handler module subclasses BaseHandler with the model's catalog entry, how to load it and how to read its prompts.
"""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from segserve import imaging
from segserve.catalog import ModelEntry
from segserve.config import settings_from_environment
from segserve.errors import InternalError, OutOfMemoryError, SegserveError
from segserve.imaging import Rgb
from segserve.models.embedding_cache import EmbeddingCache
from segserve.models.segmentation import LabelMap, Segmentation
from segserve.schema import WorkerPrompt, check_parameters, check_prompt
from segserve.torchserve.answer_bodies import encode
from segserve.torchserve.handler_options import HandlerOptions, read_options
from segserve.torchserve.isolation import is_out_of_memory, run_isolated
from segserve.torchserve.items import read_item
from segserve.torchserve.large_answers import send_large
from segserve.torchserve.profiles import cpu_count

logger = logging.getLogger(__name__)

TIMING_HEADER = "X-Segserve-Model-Ms"
CACHE_HEADER = "X-Segserve-Cache"
CACHE_BYTES_HEADER = "X-Segserve-Cache-Bytes"
CHECKPOINT_FOLDER = "checkpoint"


class Predictor(Protocol):
    """What a handler runs; see segserve.models."""

    def predict(self, images: Sequence[Rgb], prompts: Sequence[Any]) -> Sequence[Segmentation | LabelMap]:
        """One result a picture, in order."""

    def warm_up(self) -> None:
        """Run once on something small."""


class BaseHandler(ABC):
    """One model in one TorchServe worker.

    TorchServe calls initialize once and handle for each batch. A worker counts as ready when initialize has returned,
    so the model has answered once by then.
    """

    entry: ClassVar[ModelEntry]

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self.options = HandlerOptions("cpu")
        self.image_limits = imaging.ImageLimits()
        self.embedding_cache: EmbeddingCache | None = None

    @abstractmethod
    def load(self, folder: Path, options: HandlerOptions) -> Predictor:
        """The model of a checkpoint folder. One that embeds pictures keeps its embeddings in self.embedding_cache.

        Raises:
            SegserveError: the folder or an option will not do.
        """

    @abstractmethod
    def prompt(self, wanted: WorkerPrompt) -> Any:
        """The prompt as the predictor takes it, defaults filled in. wanted has passed the catalog's checks.

        Raises:
            InvalidPromptError: the model cannot read it.
        """

    def check(self, prompt: Any, image: Rgb) -> None:  # noqa: B027 - most prompts fit every picture
        """Whether a prompt fits its picture; for models that are told where to look.

        Raises:
            InvalidPromptError: it does not.
        """

    def initialize(self, context: Any) -> None:
        """Load the model, warm it up, and quieten the logs."""
        properties = context.system_properties
        started = time.perf_counter()
        try:
            gpu = properties.get("gpu_id") if torch.cuda.is_available() else None
            self.options = read_options(context.model_yaml_config or {}, gpu, self.entry)
            self.image_limits = settings_from_environment().image_limits
            if self.options.device == "cpu" or self.options.threads:
                # On a CPU, `segserve serve` lets its workers' libraries start with one thread each.
                torch.set_num_threads(self.options.threads or cpu_count())
            if self.options.embedding_cache_bytes:
                self.embedding_cache = EmbeddingCache(self.options.embedding_cache_bytes)
            self.predictor = self.load(Path(properties["model_dir"]) / CHECKPOINT_FOLDER, self.options)
            self.predictor.warm_up()
        except Exception as error:
            # Without this line the log would have a traceback only, and TorchServe tries again in silence.
            reason = error.message if isinstance(error, SegserveError) else f"{type(error).__name__}: {error}"
            logger.error("%s cannot be loaded: %s", context.model_name, reason)
            raise
        # TorchServe's worker logs a line for each request and measurement; from here on only what went wrong.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("segserve").setLevel(logging.INFO)
        seconds = time.perf_counter() - started
        logger.info("%s is ready on %s after %.1f s", context.model_name, self.options.device, seconds)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One answer for each item of the batch, each with its own status."""
        if _is_description(context):
            return [self._describe()] * len(data)
        outcomes: dict[int, SegserveError | Segmentation | LabelMap] = {}
        good: list[tuple[int, Rgb, Any]] = []
        for index, fields in enumerate(data):
            item = self._read(fields, context.get_all_request_header(index))
            if isinstance(item, SegserveError):
                outcomes[index] = item
            else:
                good.append((index, *item))
        started = time.perf_counter()
        results = run_isolated(self._run, [(image, prompt) for _, image, prompt in good])
        milliseconds = 1000 * (time.perf_counter() - started)
        outcomes.update(zip((index for index, _, _ in good), results, strict=True))
        answers = [self._answer(outcomes[index], index, context, milliseconds) for index in range(len(data))]
        return send_large(answers, context)

    def _run(self, items: Sequence[tuple[Rgb, Any]]) -> Sequence[Segmentation | LabelMap]:
        if self.predictor is None:
            raise RuntimeError("handle was called before initialize")
        return self.predictor.predict([image for image, _ in items], [prompt for _, prompt in items])

    def _read(self, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[Rgb, Any] | SegserveError:
        """One item, decoded and checked, or what is wrong with it."""
        try:
            item = read_item(fields, headers)
            check_prompt(item.prompt, self.entry)
            check_parameters(item.prompt.parameters, self.entry)
            prompt = self.prompt(item.prompt)
            image = imaging.decode(item.image, self.image_limits)
            self.check(prompt, image)
            return image, prompt
        except SegserveError as error:
            return error
        except Exception as error:
            # A failure to read one item must not reach its neighbours.
            if is_out_of_memory(error):
                return OutOfMemoryError("The image does not fit into the worker's memory. Scale it down.")
            logger.error("an item could not be read", exc_info=error)
            return InternalError("The request could not be read. The service's log has the reason.")

    def _answer(
        self, outcome: SegserveError | Segmentation | LabelMap, index: int, context: Any, milliseconds: float
    ) -> bytes:
        if not isinstance(outcome, SegserveError):
            try:
                body, content_type = encode(outcome)
                context.set_response_content_type(index, content_type)
                context.set_response_header(index, TIMING_HEADER, f"{milliseconds:.1f}")
                self._tell_cache(outcome, index, context)
                return body
            except SegserveError as error:
                outcome = error
            except Exception as error:
                if is_out_of_memory(error):
                    outcome = OutOfMemoryError("The answer does not fit into the worker's memory. Ask for less of it.")
                else:
                    logger.error("an answer could not be encoded", exc_info=error)
                    outcome = InternalError("The answer could not be encoded. The service's log has the reason.")
        context.set_response_status(outcome.status, HTTPStatus(outcome.status).phrase, index)
        context.set_response_content_type(index, "application/json")
        return json.dumps({"error": outcome.to_dict()}).encode()

    def _tell_cache(self, outcome: Segmentation | LabelMap, index: int, context: Any) -> None:
        """Say whether the picture's embedding was kept from an earlier request, and how many bytes are kept now."""
        if self.embedding_cache is not None and isinstance(outcome, Segmentation) and outcome.cached is not None:
            context.set_response_header(index, CACHE_HEADER, "hit" if outcome.cached else "miss")
            context.set_response_header(index, CACHE_BYTES_HEADER, str(self.embedding_cache.counts.nbytes))

    def _describe(self) -> bytes:
        classes = getattr(self.predictor, "classes", None)
        # Of a model that has a choice at each request: those that this archive can run.
        engines = getattr(self.predictor, "engines", None)
        description = {
            "kind": self.entry.name,
            "engine": self.options.engine,
            "engines": None if engines is None else list(engines),
            "classes": None if classes is None else list(classes),
            "device": self.options.device,
            "dtype": self.options.dtype,
            "threads": torch.get_num_threads(),
            "embedding_cache_mb": self.options.embedding_cache_mb if self.entry.embeds else None,
            "prompts": list(self.entry.prompts),
            "parameters": list(self.entry.parameters),
        }
        return json.dumps(description).encode()


def _is_description(context: Any) -> bool:
    return bool(context.get_all_request_header(0).get("describe") == "True")
