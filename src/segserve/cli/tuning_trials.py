"""One trial of ``segserve tune``: a service of its own with one setting, a load on it, and what that showed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segserve.cli.demo_server import running_service
from segserve.client import Client
from segserve.closed_loop import post_request, run_load
from segserve.errors import ServiceError, error_from_status
from segserve.machine_memory import process_memory, proportional_memory
from segserve.torchserve.management import Management
from segserve.torchserve.metric_samples import Samples
from segserve.torchserve.running import find_running
from segserve.torchserve.tuning import Memory, Setting, Trial, trial_of

if TYPE_CHECKING:
    import requests

SCENE_SEED = 710_000_001
"""Pictures of rooms that nothing was trained on."""

_START_S = 600.0
_ANSWER_S = 120.0
_TEXT = "sofa. chair. table. lamp. window. floor."

Report = Callable[[str, float], None]
"""Told what is being done and how many seconds of the load have passed."""


@dataclass(frozen=True)
class TrialPlan:
    """What all trials share.

    Attributes:
        archive: file; model: its served name; profile: auto, cpu or gpu.
        pictures: encoded images, asked about in turns. prompt: the wire's prompt for each.
        clients: that ask at once. warm_up_s, seconds: before counting, and while counting.
        logs: folder for the services' logs.
    """

    archive: Path
    model: str
    profile: str
    pictures: Sequence[bytes]
    prompt: Mapping[str, Any]
    clients: int
    warm_up_s: float
    seconds: float
    logs: Path


def default_prompt(kind: str | None, width: int, height: int) -> dict[str, Any]:
    """A prompt that every picture of this size can be asked with."""
    if kind == "grounded_sam":
        return {"text": _TEXT}
    if kind == "sam2":
        return {"points": [[width // 2, height // 2, 1]]}
    return {}


def generated_pictures(count: int) -> list[bytes]:
    """So many rooms as PNG files of 640 x 480 pixels."""
    from segserve.imaging import encode
    from segserve.training.scenes import make_scene

    return [encode(make_scene(SCENE_SEED + index, (480, 640)).image) for index in range(count)]


def run_trial(plan: TrialPlan, setting: Setting, report: Report) -> Trial:
    """Start the service, load it, measure, and stop it. A service that does not come up is a trial with a problem."""
    options = ["--profile", plan.profile, "--workers", str(setting.workers)]
    options += ["--batch-size", str(setting.batch_size), "--batch-delay", str(setting.batch_delay_ms)]
    report("starting", 0)
    # A store with nothing else in it: neighbors of the archive may be broken, or have its name.
    with tempfile.TemporaryDirectory(prefix="segserve-tune-") as store:
        (Path(store) / plan.archive.name).symlink_to(plan.archive)
        try:
            with running_service(Path(store), [plan.model], plan.logs, _START_S, options) as client:
                return _measured(plan, setting, client, report)
        except ServiceError as error:
            return Trial(setting, problem=error.message)


def _measured(plan: TrialPlan, setting: Setting, client: Client, report: Report) -> Trial:
    management = Management(find_running(int(client.url.rpartition(":")[2])).address)
    # All workers, not only the first, before anything is counted.
    management.scale(plan.model, setting.workers, setting.workers, wait_s=_START_S)
    posts = [_post(client.url, plan, picture) for picture in plan.pictures]
    memory = _memory(management, plan.model)
    _check(posts[0])
    found = _cache(client.url)
    load = run_load(
        client.url,
        [post_request(str(post.url), _body(post), _headers(post)) for post in posts],
        clients=plan.clients,
        seconds=plan.seconds,
        ramp=plan.warm_up_s,
        progress=lambda elapsed: report("warming up" if elapsed < plan.warm_up_s else "measuring", elapsed),
    )
    after = _memory(management, plan.model)
    return trial_of(setting, load, memory, after, _cached_part(found, _cache(client.url)))


def _memory(management: Management, model: str) -> list[Memory]:
    pids = [worker.pid for worker in management.describe(model).workers]
    sizes = [(process_memory(pid), proportional_memory(pid)) for pid in pids]
    return [Memory(rss, pss) for rss, pss in sizes if rss is not None and pss is not None]


def _post(url: str, plan: TrialPlan, picture: bytes) -> requests.PreparedRequest:
    import requests

    body = json.dumps({"model": plan.model, "prompt": dict(plan.prompt), "mask_format": "rle"})
    files = [("request", ("request.json", body, "application/json")), ("image", ("image", picture))]
    return requests.Request("POST", f"{url}/v1/segment", files=files).prepare()


def _body(post: requests.PreparedRequest) -> bytes:
    return post.body if isinstance(post.body, bytes) else b""


def _headers(post: requests.PreparedRequest) -> dict[str, str]:
    return {"Content-Type": post.headers["Content-Type"]}


def _check(post: requests.PreparedRequest) -> None:
    """Whether the picture and the prompt suit the model, before anything is measured with them.

    What is the service's own failure, such as no answer in time, is for the load to count.

    Raises:
        RequestError: what the service answers.
        ServiceError: nothing.
    """
    answer = _sent(post, _ANSWER_S)
    if 400 <= answer.status_code < 500:
        told = answer.json().get("error", {}) if "json" in answer.headers.get("Content-Type", "") else {}
        raise error_from_status(answer.status_code, str(told.get("message", "the service failed")), told.get("code"))


def _cache(url: str) -> tuple[float, float]:
    """(hits, all) of the embedding caches so far."""
    import requests

    samples = Samples(_sent(requests.Request("GET", f"{url}/metrics").prepare(), 30).text)
    name = "segserve_embedding_cache_total"
    return samples.total(name, outcome="hit"), samples.total(name)


def _cached_part(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    asked = after[1] - before[1]
    return (after[0] - before[0]) / asked if asked else None


def _sent(request: requests.PreparedRequest, timeout_s: float) -> requests.Response:
    import requests

    with requests.Session() as session:
        # A proxy that the environment names cannot reach a service on this machine.
        session.trust_env = False
        try:
            return session.send(request, timeout=timeout_s)
        except requests.RequestException as error:
            raise ServiceError(f"The service did not answer: {error}.") from error
