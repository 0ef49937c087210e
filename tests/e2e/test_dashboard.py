"""Every metric and label that the Grafana dashboard and the alert rules name is one that a real service has."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import requests
import yaml
from servers import ROOT, Served

from segserve.torchserve.metric_samples import Samples

FOLDER = ROOT / "docs" / "grafana"
DASHBOARD = json.loads((FOLDER / "segserve.json").read_text("utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))

# What Grafana fills in before it asks.
FILLED = {"$__rate_interval": "1m", "$instance": ".*", "$model": ".*"}
# Scraping adds them.
OF_THE_SCRAPE = {"instance", "job"}
# Nothing here loses a worker or has a chat model: these counters are there, and count nothing yet.
EVENTS = {"segserve_worker_retries_total": {"model"}, "segserve_prompt_rewriting_total": {"outcome"}}


def queries() -> list[tuple[str, str]]:
    """(where, PromQL) of everything that is asked of Prometheus."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    found = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    found += [(rule["alert"], rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found.append((f"variable {variable['name']}", f"sum by ({label}) ({name})"))
    return found


def filled(query: str) -> str:
    for name, value in FILLED.items():
        query = query.replace(name, value)
    return query


def selectors(node: Any) -> list[tuple[str, set[str]]]:
    """(metric, labels that are matched or grouped by) of each selector below a node of PromQL's tree."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        return [(node.name, {matcher.name for matcher in node.matchers.matchers})]
    if kind == "MatrixSelector":
        return selectors(node.vector_selector)
    if kind == "AggregateExpr":
        by = set(node.modifier.labels) if node.modifier is not None else set()
        # The labels that label_replace makes are not of the metric.
        made = {"model_name"} if "label_replace" in node.expr.prettify() else set()
        return [(name, labels | (by - made)) for name, labels in selectors(node.expr)]
    if kind == "Call":
        return [found for argument in node.args for found in selectors(argument)]
    if kind == "BinaryExpr":
        return selectors(node.lhs) + selectors(node.rhs)
    if kind in ("ParenExpr", "UnaryExpr"):
        return selectors(node.expr)
    assert kind in ("NumberLiteral", "StringLiteral"), kind
    return []


@pytest.fixture(scope="module")
def scraped(served: Served, scene_png: bytes) -> str:
    """/metrics after a picture, an image that may not be fetched, a refused request and a route that is not there."""
    url = f"{served.url}/v1/segment"
    segment = {
        "params": {"text": "sofa. floor."},
        "data": scene_png,
        "headers": {"Content-Type": "image/png"},
        "timeout": 120,
    }
    for _ in range(2):
        assert requests.post(url, **segment).status_code == 200
    away = {"images": [{"url": "http://10.255.255.1/x.png"}], "prompt": {"text": "sofa."}}
    assert requests.post(url, json=away, timeout=60).status_code == 424
    assert requests.post(url, json={"images": 3}, timeout=60).status_code == 400
    assert requests.get(f"{served.url}/v1/nothing", timeout=60).status_code == 404
    # TorchServe's workers log their metrics, Java reads them from there: they come a little later.
    until = time.monotonic() + 60
    while "ts_queue_latency_microseconds{" not in (text := requests.get(f"{served.url}/metrics", timeout=60).text):
        assert time.monotonic() < until, text
        time.sleep(0.2)
    return text


@pytest.mark.parametrize(("where", "query"), queries(), ids=lambda value: value[:40])
def test_every_metric_and_label_is_there(where: str, query: str, scraped: str):
    samples = Samples(scraped)
    labels_of: dict[str, set[str]] = {"up": set()}
    for sample in samples.all:
        labels_of.setdefault(sample.name, set()).update(sample.labels)
    declared = set(re.findall(r"^# TYPE (\w+) ", scraped, re.MULTILINE))
    labels_of |= {name: labels for name, labels in EVENTS.items() if name in declared}
    found = selectors(promql_parser.parse(filled(query)))
    assert found, query
    for metric, labels in found:
        assert metric in labels_of, f"{where}: no metric {metric}"
        assert labels - OF_THE_SCRAPE <= labels_of[metric], f"{where}: {metric} has only {labels_of[metric]}"


def test_the_gauges_tell_of_the_models_and_the_machine(scraped: str, served: Served):
    samples = Samples(scraped)
    for name in ("ready", "workers", "ready_workers"):
        assert samples.values(f"segserve_model_{name}", model="grounded_sam") == [1], name
    assert samples.values("segserve_model_batch_size", model="grounded_sam") == [4]
    (worker,) = served.workers
    (size,) = samples.values("segserve_worker_memory_bytes", model="grounded_sam")
    assert size == pytest.approx(worker.memory_info().rss, rel=0.3)
    (limit,), (left,) = samples.values("segserve_memory_limit_bytes"), samples.values("segserve_memory_available_bytes")
    assert 0 < left < limit


def test_the_files_are_what_grafana_and_prometheus_read():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        cells |= taken
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval", "1"}
    assert used == variables
    assert all((FOLDER / name).is_file() for name in PROMETHEUS["rule_files"])
    (job,) = PROMETHEUS["scrape_configs"]
    alerts = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    assert f'job="{job["job_name"]}"' in json.dumps([rule["expr"] for rule in alerts]).replace("\\", "")
    operations = (Path(ROOT) / "docs" / "operations.md").read_text("utf-8")
    assert [rule["alert"] for rule in alerts if f"`{rule['alert']}`" not in operations] == []
