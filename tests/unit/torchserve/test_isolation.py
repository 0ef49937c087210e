"""One item's failure stays its own."""

import pytest
import torch

from segserve.errors import InternalError, InvalidPromptError, OutOfMemoryError
from segserve.torchserve.isolation import DeviceLostError, is_out_of_memory, run_isolated


class Model:
    """Doubles numbers; fails as told, and remembers the batches it was given."""

    def __init__(self, *, fails_on=None, error=None, room=100):
        self.fails_on, self.error, self.room = fails_on, error, room
        self.batches = []

    def __call__(self, items):
        self.batches.append(list(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.fails_on in items:
            raise self.error
        return [2 * item for item in items]


def test_a_good_batch_runs_once_together():
    model = Model()
    assert run_isolated(model, [1, 2, 3]) == [2, 4, 6]
    assert model.batches == [[1, 2, 3]]


def test_nothing_to_run_runs_nothing():
    model = Model()
    assert run_isolated(model, []) == []
    assert model.batches == []


def test_a_bug_with_one_item_spares_its_neighbours():
    model = Model(fails_on=3, error=ZeroDivisionError("secret detail"))
    results = run_isolated(model, [1, 2, 3, 4])
    assert [results[0], results[1], results[3]] == [2, 4, 8]
    assert isinstance(results[2], InternalError)
    assert "secret" not in results[2].message
    assert model.batches == [[1, 2, 3, 4], [1], [2], [3], [4]]


def test_the_failure_is_logged_with_its_traceback(caplog):
    run_isolated(Model(fails_on=1, error=ZeroDivisionError("the detail")), [1])
    assert "ZeroDivisionError: the detail" in caplog.text
    assert "Traceback" in caplog.text


def test_an_expected_error_is_passed_on_as_it_is():
    error = InvalidPromptError("too many words")
    results = run_isolated(Model(fails_on=2, error=error), [1, 2])
    assert results == [2, error]


@pytest.mark.parametrize(
    ("room", "batches"),
    [
        (4, [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4], [5, 6, 7]]),
        (2, [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4], [1, 2], [3, 4], [5, 6, 7], [5, 6], [7]]),
    ],
)
def test_without_memory_a_batch_is_halved(room, batches):
    model = Model(room=room)
    assert run_isolated(model, [1, 2, 3, 4, 5, 6, 7]) == [2, 4, 6, 8, 10, 12, 14]
    assert model.batches == batches


def test_only_what_does_not_fit_alone_is_reported():
    def run(items):
        if sum(items) > 10:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return items

    results = run_isolated(run, [1, 2, 50, 3])
    assert results[:2] == [1, 2]
    assert isinstance(results[2], OutOfMemoryError)
    assert results[2].status == 507
    assert results[3] == 3


def test_a_wrong_number_of_results_is_no_answer():
    results = run_isolated(lambda items: items[:1] if len(items) > 1 else list(items), [1, 2])
    assert results == [1, 2]
    assert isinstance(run_isolated(lambda items: [], [1])[0], InternalError)


def test_a_lost_gpu_ends_the_process():
    def run(items):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceLostError) as caught:
        run_isolated(run, [1, 2])
    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA out of memory."), True),
        (ValueError("out of memory"), False),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected
