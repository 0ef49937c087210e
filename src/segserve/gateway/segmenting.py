"""The one path of every request: fetch the images, ask a worker, render. One bad image never spoils the others.

Images are worked on side by side, a bounded number at a time, each from its source to its finished result, so that
only so many are held in memory at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from segserve.errors import InvalidPromptError, InvalidRequestError, SegserveError, TooLargeError
from segserve.gateway.images import ImageFetcher
from segserve.gateway.readiness import Readiness
from segserve.gateway.served_models import ServedModels
from segserve.gateway.workers import Workers, encode_prompt
from segserve.imaging import ImageLimits, read_info
from segserve.schema import ImageSource, SegmentRequest, WorkerPrompt, check_output, check_parameters, check_prompt

_AT_ONCE = 8
_DRAIN_POLL_S = 0.05

Made = TypeVar("Made")
Load = Callable[[], Awaitable[bytes]]
"""Gets the bytes of an image when its turn has come."""


@dataclass(frozen=True)
class Job:
    """A checked request: each image with its prompt, as bytes for the worker.

    Attributes:
        model: the name under which it is served.
        images: where each comes from, its bytes when they came with the request, or what gets them.
        prompts: the worker's ``prompt`` field for each image.
        classes: the model's labels; empty where they are not fixed, or not known.
    """

    model: str
    images: Sequence[ImageSource | bytes | Load]
    prompts: Sequence[bytes]
    classes: Sequence[str] = ()

    @classmethod
    def from_request(
        cls, request: SegmentRequest, served: ServedModels, images: Sequence[ImageSource | bytes | Load] | None = None
    ) -> Job:
        """The request, checked against its model. images: replaces the request's own, one for each.

        Raises:
            NotFoundError: no such model is served.
            InvalidPromptError: a prompt does not fit the model.
            InvalidRequestError: a parameter that the model does not know, a form of answer that does not fit what it
                returns, or a wrong number of prompts.
        """
        model = served.default() if request.model is None else request.model
        entry = served.entry(model)
        check_parameters(request.parameters, entry)
        check_output(request, entry)
        several = isinstance(request.prompt, list)
        prompts = request.prompt if isinstance(request.prompt, list) else [request.prompt]
        if several and len(prompts) != len(request.images):
            raise InvalidRequestError(
                f"prompt: a list of prompts needs one for each image; came {len(prompts)} for {len(request.images)}."
            )
        encoded = []
        for index, prompt in enumerate(prompts):
            try:
                check_prompt(prompt, entry)
            except InvalidPromptError as error:
                where = f"prompt[{index}]: " if several else ""
                raise InvalidPromptError(where + error.message) from None
            asked = WorkerPrompt.model_construct(
                text=prompt.text,
                points=prompt.points,
                boxes=prompt.boxes,
                objects=prompt.objects,
                parameters=request.parameters,
            )
            encoded.append(encode_prompt(asked))
        sources = images if images is not None else request.images
        prompts_of_all = encoded if several else encoded * len(sources)
        return cls(model, sources, prompts_of_all, served.about(model).classes or ())


@dataclass(frozen=True)
class Found:
    """What a worker found in one image.

    Attributes:
        data: the encoded image.
        result: schema.WorkerResult or WorkerLabelMap as decoded JSON; empty where the worker answered a NumPy file.
        index: the image's place in the job.
        classes: the model's labels, as in the job.
        npy: that NumPy file, see numpy_files.from_npy: what the job's prompt asks for with output logits or
            probabilities.
    """

    data: bytes
    result: dict[str, Any]
    index: int = 0
    classes: Sequence[str] = ()
    npy: bytes | None = None


@dataclass
class Spent:
    """Milliseconds of the stages. Images are worked on side by side: each stage counts its slowest image."""

    fetch: float = 0.0
    model: float = 0.0
    render: float = 0.0

    def note(self, stage: str, since: float) -> None:
        """Count the time since a moment of time.perf_counter() for a stage."""
        setattr(self, stage, max(getattr(self, stage), (time.perf_counter() - since) * 1e3))


class Segmenter:
    """Runs jobs. Collaborators are passed in.

    Args:
        fetcher: gets the images' bytes.
        workers: the client of TorchServe.
        readiness: which models can be asked.
        limits: of one image.
        on_fetch_failure: called with the error of each image that could not be had from where the request said.
    """

    def __init__(
        self,
        fetcher: ImageFetcher,
        workers: Workers,
        readiness: Readiness,
        limits: ImageLimits,
        on_fetch_failure: Callable[[SegserveError], None] = lambda error: None,
    ) -> None:
        self._fetcher = fetcher
        self._workers = workers
        self._readiness = readiness
        self._limits = limits
        self._on_fetch_failure = on_fetch_failure
        self._running: Counter[str] = Counter()

    def running(self, model: str) -> int:
        """How many jobs for a model are at work."""
        return self._running[model]

    async def drain(self, model: str, within_s: float) -> None:
        """Wait until no job for a model is at work, at most so many seconds."""
        end = time.monotonic() + within_s
        while self._running[model] and time.monotonic() < end:
            await asyncio.sleep(_DRAIN_POLL_S)

    async def run(
        self, job: Job, finish: Callable[[Found], Awaitable[Made]], spent: Spent | None = None
    ) -> list[Made | SegserveError]:
        """Each image's result as finish makes it, or its error, in the order of the images.

        Bugs (any other exception) end the job.

        Args:
            job: what to do.
            finish: turns what a worker found into the result; a SegserveError of it is the image's error.
            spent: where the time of the stages is noted.

        Raises:
            NotReadyError, NotFoundError: the model cannot be asked at all.
        """
        self._readiness.check(job.model)
        self._running[job.model] += 1
        try:
            return await self._run(job, finish, spent or Spent())
        finally:
            self._running[job.model] -= 1
            if not self._running[job.model]:
                del self._running[job.model]

    async def _run(
        self, job: Job, finish: Callable[[Found], Awaitable[Made]], noted: Spent
    ) -> list[Made | SegserveError]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def guarded(index: int) -> Made | SegserveError:
            async with gate:
                try:
                    return await self._one(job, index, finish, noted)
                except SegserveError as error:
                    return error

        if len(job.images) == 1:
            return [await guarded(0)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(guarded(index)) for index in range(len(job.images))]
        return [task.result() for task in tasks]

    async def _one(self, job: Job, index: int, finish: Callable[[Found], Awaitable[Made]], spent: Spent) -> Made:
        started = time.perf_counter()
        data = await self._bytes(job.images[index])
        read_info(data, self._limits)
        spent.note("fetch", started)
        started = time.perf_counter()
        answer = await self._workers.predict(job.model, data, job.prompts[index])
        spent.note("model", started)
        started = time.perf_counter()
        result, npy = ({}, answer) if isinstance(answer, bytes) else (answer, None)
        made = await finish(Found(data, result, index, job.classes, npy))
        spent.note("render", started)
        return made

    async def _bytes(self, image: ImageSource | bytes | Load) -> bytes:
        if isinstance(image, bytes):
            return image
        if not isinstance(image, ImageSource):
            return await image()
        try:
            return await self._fetcher.get(image)
        except SegserveError as error:
            self._on_fetch_failure(error)
            raise


def check_answer(size: int, limit: int, way_out: str) -> None:
    """Whether an answer of size bytes may be sent.

    Raises:
        TooLargeError: over limit; way_out says what to ask for instead.
    """
    if size > limit:
        raise TooLargeError(
            f"The answer would have {size:,} bytes; at most {limit:,} can be sent. {way_out}", code="answer_too_large"
        )
