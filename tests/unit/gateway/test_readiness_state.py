"""Readiness: from what TorchServe describes to ready or not, and what it takes to lose it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from segserve.errors import NotFoundError, NotReadyError, SegserveError, TimedOutError
from segserve.gateway.readiness import ModelStatus, Readiness

Described = list[dict[str, Any]]


class StubWorkers:
    """Answers polls with what it is told, errors included."""

    def __init__(self) -> None:
        self.answer: Described | Exception = []

    async def models(self) -> Described:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def described(name: str, *states: str, **fields: Any) -> dict[str, Any]:
    workers = [{"status": state, "gpu": False} for state in states]
    return {"modelName": name, "modelVersion": "1.0", "batchSize": 4, "workers": workers, **fields}


@pytest.fixture
def workers() -> StubWorkers:
    return StubWorkers()


@pytest.fixture
def readiness(workers: StubWorkers) -> Readiness:
    return Readiness(workers, ("a",), interval_s=0.02)  # type: ignore[arg-type]


def poll(readiness: Readiness, workers: StubWorkers, answer: Described | Exception) -> bool:
    workers.answer = answer
    asyncio.run(readiness.poll())
    return readiness.ready


def test_not_ready_before_the_first_poll(readiness: Readiness) -> None:
    assert not readiness.ready
    assert "not been asked" in readiness.missing()[0]
    readiness.check("a")


def test_one_loaded_worker_is_enough(readiness: Readiness, workers: StubWorkers) -> None:
    assert not poll(readiness, workers, [described("a")])
    assert not poll(readiness, workers, [described("a", "UNLOADING", "UNLOADING")])
    assert poll(readiness, workers, [described("a", "UNLOADING", "READY")])
    assert readiness.missing() == []
    assert readiness.version("a") == "1.0"


def test_unreachable_is_not_ready_at_once_and_recovers(readiness: Readiness, workers: StubWorkers) -> None:
    assert poll(readiness, workers, [described("a", "READY")])
    assert not poll(readiness, workers, NotReadyError("TorchServe cannot be reached."))
    assert readiness.missing() == ["TorchServe cannot be reached."]
    assert readiness.names() == ["a"]
    assert poll(readiness, workers, [described("a", "READY")])


def test_two_slow_polls_are_forgiven_three_are_not(readiness: Readiness, workers: StubWorkers) -> None:
    late = TimedOutError("TorchServe did not answer in time.")
    assert poll(readiness, workers, [described("a", "READY")])
    assert poll(readiness, workers, late)
    assert poll(readiness, workers, late)
    assert poll(readiness, workers, [described("a", "READY")])
    assert [poll(readiness, workers, late) for _ in range(3)] == [True, True, False]


def test_requests_are_refused_while_loading_but_queue_while_restarting(
    readiness: Readiness, workers: StubWorkers
) -> None:
    poll(readiness, workers, [])
    with pytest.raises(NotReadyError, match="loading"):
        readiness.check("a")
    poll(readiness, workers, [described("a", "UNLOADING")])
    with pytest.raises(NotReadyError, match="loading"):
        readiness.check("a")
    poll(readiness, workers, [described("a", "READY")])
    readiness.check("a")
    poll(readiness, workers, [described("a", "UNLOADING")])
    readiness.check("a")


def test_a_model_that_is_neither_there_nor_expected(readiness: Readiness, workers: StubWorkers) -> None:
    poll(readiness, workers, [described("a", "READY"), described("b", "READY")])
    readiness.check("b")
    with pytest.raises(NotFoundError, match="Models: a, b"):
        readiness.check("c")


@pytest.mark.parametrize(("states", "known"), [([], False), (["UNLOADING"], True), (["READY"], True)])
def test_whether_a_model_has_workers(
    readiness: Readiness, workers: StubWorkers, states: list[str], known: bool
) -> None:
    assert readiness.has_workers("a")
    poll(readiness, workers, [described("a", *states)])
    assert readiness.has_workers("a") is known


def test_a_status_counts_devices_and_batches() -> None:
    status = ModelStatus.from_description(described("a", "READY", "UNLOADING", batchSize=8))
    assert (status.workers, status.ready_workers, status.batch_size, status.device) == (2, 1, 8, "cpu")
    on_gpu = described("a", "READY")
    on_gpu["workers"][0]["gpu"] = True
    assert ModelStatus.from_description(on_gpu).device == "cuda"


def run_until(readiness: Readiness, condition: Callable[[], bool]) -> None:
    async def scenario() -> None:
        polling = asyncio.create_task(readiness.run())
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)
        polling.cancel()

    asyncio.run(scenario())


def test_polling_goes_on_after_an_answer_that_makes_no_sense(readiness: Readiness, workers: StubWorkers) -> None:
    workers.answer = [{"no": "model"}]
    run_until(readiness, lambda: readiness.snapshot.taken_at > 0)
    assert readiness.missing() == ["TorchServe's description of its models cannot be read"]
    workers.answer = [described("a", "READY")]
    run_until(readiness, lambda: readiness.ready)


def test_expected_failures_do_not_end_the_polling(readiness: Readiness, workers: StubWorkers) -> None:
    workers.answer = SegserveError("something")
    run_until(readiness, lambda: readiness.missing() == ["something"])
    workers.answer = [described("a", "READY")]
    run_until(readiness, lambda: readiness.ready)


def test_a_service_of_many_models_needs_none_but_those_that_it_was_told(workers: StubWorkers) -> None:
    many = Readiness(workers, multi_model=True)  # type: ignore[arg-type]
    workers.answer = []
    assert not many.ready, "TorchServe has not been asked"
    asyncio.run(many.poll())
    assert many.ready and many.missing(health=True) == []
    one = Readiness(workers, ("a",), multi_model=True)  # type: ignore[arg-type]
    asyncio.run(one.poll())
    assert one.missing() == one.missing(health=True) == ["a: not registered"]


def test_models_that_come_and_go(workers: StubWorkers) -> None:
    state = Readiness(workers, multi_model=True)  # type: ignore[arg-type]
    workers.answer = [described("a", "UNLOADING")]
    state.admit("a")
    asyncio.run(state.poll())
    assert state.ready and state.names() == ["a"]
    with pytest.raises(NotReadyError):
        state.check("a")
    state.expect("a")
    assert state.missing() == ["a: none of its 1 workers has loaded it"] and state.missing(health=True) == []
    workers.answer = [described("a", "READY")]
    asyncio.run(state.poll())
    assert state.ready
    state.check("a")
    state.withdraw("a")
    for _ in range(2):
        assert state.names() == [] and state.ready
        with pytest.raises(NotFoundError, match=r"'a' is not loaded here. Models: none\."):
            state.check("a")
        asyncio.run(state.poll())
    state.expect("a")
    state.check("a")


def test_a_withdrawn_model_stays_so_while_torchserve_cannot_be_asked(workers: StubWorkers) -> None:
    state = Readiness(workers, ("a", "b"))  # type: ignore[arg-type]
    workers.answer = [described("a", "READY"), described("b", "READY")]
    asyncio.run(state.poll())
    state.withdraw("a")
    workers.answer = NotReadyError("down")
    asyncio.run(state.poll())
    assert state.names() == ["b"]
    with pytest.raises(NotFoundError):
        state.check("a")
    workers.answer = [described("b", "READY")]
    asyncio.run(state.poll())
    assert state.ready and state.names() == ["b"]
    state.withdraw("b")
    assert state.missing() == ["TorchServe has no model"]


class SlowWorkers(StubWorkers):
    """Its first answer is what was true when it was asked, and comes late."""

    def __init__(self) -> None:
        super().__init__()
        self.late = asyncio.Event()
        self._first = True

    async def models(self) -> Described:
        answer = await super().models()
        if self._first:
            self._first = False
            await self.late.wait()
        return answer


def test_an_answer_from_before_a_change_does_not_replace_one_from_after_it() -> None:
    async def scenario() -> Readiness:
        workers = SlowWorkers()
        readiness = Readiness(workers, ("a",))  # type: ignore[arg-type]
        workers.answer = [described("a", "READY")]
        background = asyncio.create_task(readiness.poll())
        await asyncio.sleep(0)
        workers.answer = [described("a", "READY", "READY")]
        scaled = asyncio.create_task(readiness.poll())
        await asyncio.sleep(0.01)
        workers.late.set()
        await asyncio.gather(background, scaled)
        return readiness

    assert asyncio.run(scenario()).snapshot.models["a"].workers == 2
