"""From counters and metrics to observations."""

from __future__ import annotations

import pytest
from http_stand_in import Answer, StandIn

from segserve.errors import NotFoundError, NotReadyError, UnauthorizedError
from segserve.torchserve.metric_samples import Samples
from segserve.torchserve.queue_metrics import Counters, OwnFleet, RemoteFleet, in_work, queue_time

# As TorchServe 0.12 writes it, with its comma before the brace.
TORCHSERVE = """# HELP ts_queue_latency_microseconds Torchserve prometheus counter metric with unit: Microseconds
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{model_name="sofa",model_version="default",hostname="vm",} 4.2E7
ts_inference_latency_microseconds{model_name="sofa",model_version="default",hostname="vm",} 5.2E7
ts_inference_requests_total{model_name="sofa",model_version="default",hostname="vm",} 50.0
ts_inference_requests_total{model_name="lamp",model_version="default",hostname="vm",} 7.0
"""


def test_samples_keep_the_names_that_prometheus_gives_them():
    text = TORCHSERVE + 'odd{path="a\\\\b \\"c\\"\\n",other=""} NaN 1700000000000\nplain 3\nnot a sample\nbroken{ 1\n'
    samples = Samples(text)
    assert samples.total("ts_inference_requests_total") == 57
    assert samples.values("ts_inference_requests_total", model_name="lamp") == [7]
    assert samples.values("ts_queue_latency_microseconds", model_name="chair") == []
    assert samples.labels("ts_inference_requests_total", "model_name") == ["lamp", "sofa"]
    (odd,) = [sample for sample in samples.all if sample.name == "odd"]
    assert odd.labels == {"path": 'a\\b "c"\n', "other": ""}
    assert samples.values("odd") == []
    assert samples.values("plain") == [3]


@pytest.mark.parametrize(
    ("period", "queued", "seconds"),
    [
        (Counters(10, 20, 30, 50), 0, 1.5),
        # The queue has grown: twelve at two a second take six seconds.
        (Counters(10, 20, 30, 50), 12, 6.0),
        (Counters(10, 0, 0, 0), 3, 30.0),
        (Counters(10, 0, 0, 0), 0, 0.0),
        (Counters(0), 5, 0.0),
    ],
)
def test_queue_time(period: Counters, queued: int, seconds: float):
    assert queue_time(period, queued) == pytest.approx(seconds)


def test_in_work_is_what_is_not_queueing():
    assert in_work(Counters(10, 20, 30, 50)) == 2
    assert in_work(Counters(0)) == 0
    assert in_work(Counters(10, 1, 5, 4)) == 0


def test_counters_of_a_restarted_torchserve_start_anew():
    before = Counters(100, 50, 40, 60)
    assert Counters(110, 55, 41, 63).since(before) == Counters(10, 5, 1, 3)
    assert Counters(110, 2, 1, 3).since(before) == Counters(10, 2, 1, 3)


GATEWAY = """segserve_model_workers{model="sofa"} 2.0
segserve_model_ready_workers{model="sofa"} 1.0
segserve_model_queued{model="sofa"} 4.0
segserve_model_batch_size{model="sofa"} 8.0
segserve_worker_memory_bytes{model="sofa"} 1e9
segserve_memory_available_bytes 3e9
"""


def test_a_service_elsewhere_tells_everything_at_its_metrics(server: StandIn):
    texts = (GATEWAY + TORCHSERVE, GATEWAY + TORCHSERVE.replace("50.0", "60.0"))
    server.answers = [Answer(body=text.encode()) for text in texts]
    now = iter([100.0, 110.0])
    fleet = RemoteFleet(server.url, "admin", clock=lambda: next(now))
    first, second = fleet.observe("sofa"), fleet.observe("sofa")
    assert first.queue_time_s == first.in_work == 0
    # Ten answers in ten seconds, four waiting.
    assert (second.workers, second.ready_workers, second.batch_size, second.queue_time_s) == (2, 1, 8, 4.0)
    assert (second.worker_bytes, second.available_bytes) == (10**9, 3 * 10**9)
    assert [seen.path for seen in server.seen] == ["/metrics", "/metrics"]
    assert server.seen[0].headers["x-api-key"] == "admin"
    with pytest.raises(NotFoundError, match="chair"):
        fleet.observe("chair")


def test_failures_are_of_the_tree(server: StandIn):
    server.answers = [Answer(status=401, body={"error": {"code": "unauthorized", "message": "no"}})]
    with pytest.raises(UnauthorizedError):
        RemoteFleet(server.url, None).models()
    with pytest.raises(NotReadyError):
        RemoteFleet("http://127.0.0.1:9", None).models()
    # The port may be served again later: that is waited for.
    with pytest.raises(NotReadyError, match="port 9"):
        OwnFleet(9).models()
