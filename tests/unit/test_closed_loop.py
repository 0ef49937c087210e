"""Closed-loop load on real sockets."""

from __future__ import annotations

import threading

import pytest
from http_stand_in import Answer, Seen, StandIn

from segserve.closed_loop import LOST, Load, post_request, run_load
from segserve.errors import InvalidRequestError


def test_every_client_asks_again_when_it_is_answered(server: StandIn):
    lock, at_once, most = threading.Lock(), 0, 0

    def answer(seen: Seen) -> Answer:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.02)
        with lock:
            at_once -= 1
        return Answer(body={"asked": seen.body.decode()})

    server.answers = [answer]
    requests = [post_request(f"{server.url}/v1/segment?a=b", body, {"X-A": "1"}) for body in (b"one", b"two")]
    load = run_load(server.url, requests, clients=3, seconds=1.0, ramp=0.2)
    assert most == 3
    assert load.statuses == {200: len(server.seen)}
    assert 0 < len(load.latencies) < load.answered
    assert load.throughput == len(load.latencies)
    assert {seen.body for seen in server.seen} == {b"one", b"two"}
    assert {(seen.method, seen.path, seen.headers["x-a"]) for seen in server.seen} == {("POST", "/v1/segment?a=b", "1")}


def test_failures_are_counted_and_their_latency_is_not(server: StandIn):
    server.answers = [Answer(body={}), Answer(status=429, body={}), Answer(drop=True), Answer(status=503, body={})]
    load = run_load(server.url, [post_request(server.url, b"", {})], clients=1, seconds=1.0, ramp=0)
    assert load.statuses[200] == len(load.latencies) == 1
    assert load.statuses[429] == load.statuses[LOST] == 1
    assert load.failed == sum(load.statuses.values()) - 1
    assert load.answered == load.failed


def test_no_server_is_a_lost_request_and_no_storm_of_them():
    load = run_load("http://127.0.0.1:9", [b"x"], clients=2, seconds=0.5, ramp=0)
    assert 2 <= load.statuses[LOST] <= 10
    assert (load.throughput, load.percentile(50)) == (0, None)


def test_percentiles_are_of_the_nearest_rank():
    load = Load(10, tuple(number / 100 for number in range(100, 0, -1)), {200: 100})
    assert [load.percentile(percent) for percent in (0, 50, 95, 99, 100)] == [0.01, 0.51, 0.96, 1.0, 1.0]


@pytest.mark.parametrize("wrong", [{"url": "https://host"}, {"requests": []}, {"clients": 0}, {"seconds": 0.0}])
def test_a_load_that_cannot_be_meant(wrong: dict[str, object]):
    with pytest.raises(InvalidRequestError):
        run_load(**{"url": "http://127.0.0.1:9", "requests": [b"x"], "clients": 1, "seconds": 1.0, **wrong})
