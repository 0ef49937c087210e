"""Answers that only the OpenAPI document needs as types: their routes write them as plain values."""

from __future__ import annotations

from pydantic import BaseModel, Field

from segserve.schema import WorkerInstance


class ModelDescription(BaseModel):
    """One model that is served or should be; null stands for what is not known of it, or does not apply."""

    name: str = Field(description="under which it is asked for")
    kind: str | None = Field(description="the catalog's name of the model, e.g. mask_rcnn")
    title: str
    version: str | None
    ready: bool
    workers: int
    ready_workers: int
    queued: int | None = Field(description="requests that wait for a worker, when last looked at")
    batch_size: int | None
    device: str | None = Field(description="cpu or cuda")
    prompts: list[str]
    parameters: list[str]
    returns: str | None = Field(description="instances or label_map")
    classes: list[str] | None = Field(description="its labels; null when text says what to find")
    engine: str | None = Field(description="what runs it, where there is a choice; of requests that name none")
    engines: list[str] | None = Field(description="what a request may name as its parameter engine")


class ModelList(BaseModel):
    """All models."""

    models: list[ModelDescription]


class LoadedModel(BaseModel):
    """A model that is loaded."""

    name: str = Field(alias="modelName")
    url: str = Field(alias="modelUrl", description="where it came from")


class LoadedModelList(BaseModel):
    """One page of the loaded models."""

    models: list[LoadedModel]
    next_page: str | None = Field(
        default=None, alias="nextPageToken", description="where there are more: the next page's next_page_token"
    )


class Category(BaseModel):
    """What product tiling can cover. rooms: those that have a product of their own."""

    name: str
    rooms: list[str]


class CategoryList(BaseModel):
    """The categories of the catalog of product tiling."""

    categories: list[Category]


class Status(BaseModel):
    """A healthy state."""

    status: str


class Up(BaseModel):
    """Seed 001's state. ready: whether the models are; folder: whether there is one for pictures and results."""

    status: str
    ready: bool
    folder: bool


class ExecutionParameters(BaseModel):
    """What SageMaker's batch transform asks for."""

    MaxConcurrentTransforms: int
    BatchStrategy: str
    MaxPayloadInMB: int


class PredictAnswer(BaseModel):
    """A drawn picture as JSON. The percentages are of its pixels, of two decimals, and add up to 100."""

    masked_percentage: float = Field(ge=0, le=100, description="of the union of the masks")
    unmasked_percentage: float = Field(ge=0, le=100)
    instances: list[WorkerInstance]
    image: str = Field(description="PNG, base64")
