"""The image: how it starts, what it declares, where it listens. Only with --image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable
from segserve.conformance.container import HARDENED, Container
from segserve.conformance.subject import NO_PAYLOAD, Subject, wait_until_ready
from segserve.conformance.wire import Answer

_NO_IMAGE = "only with --image"
_LABEL = "com.amazonaws.sagemaker.capabilities"
_OTHER_PORT = 8090


def _starts(subject: Subject) -> Outcome:
    if not subject.started_here:
        return not_applicable("it ran already; only with --image")
    if subject.ready_after_s is None:
        return failed(f"not ready: {subject.never_ready}")
    seen = f"/ping 200 after {subject.ready_after_s:.0f} s of at most {subject.limits.startup_s:.0f} s"
    return judged(subject.ready_after_s <= subject.limits.startup_s, seen)


def _ready_means_ready(subject: Subject) -> Outcome:
    if not subject.started_here:
        return not_applicable("it ran already; only with --image")
    if subject.first is None or subject.ready_after_s is None:
        return not_applicable(NO_PAYLOAD)
    if not isinstance(subject.first, Answer):
        return failed(f"the first invocation: {subject.first}")
    return judged(subject.first.status == 200, f"the first invocation: {subject.first.said()}")


def _exec_form(subject: Subject) -> Outcome:
    config = _config(subject)
    if config is None:
        return not_applicable(_NO_IMAGE)
    entry = config.get("Entrypoint") or []
    words = [entry] if isinstance(entry, str) else list(entry)
    shell = bool(words) and words[0].rpartition("/")[2] in ("sh", "bash") and "-c" in words
    initializer = bool(words) and words[0].rpartition("/")[2] in ("tini", "dumb-init")
    good = bool(words) and not shell and not initializer
    return judged(good, f"ENTRYPOINT {words}" if words else "no ENTRYPOINT: `serve` itself would be run")


def _listens(subject: Subject) -> Outcome:
    holder = subject.holder
    if not isinstance(holder, Container):
        return not_applicable(_NO_IMAGE)
    if holder.launch.on_host_network:
        return not_applicable("with --network host the port is not mapped")
    return judged(subject.ready_after_s is not None, f"reached from outside on port {holder.launch.port}")


def _other_port(subject: Subject) -> Outcome:
    holder, config = subject.holder, _config(subject)
    if not isinstance(holder, Container) or config is None:
        return not_applicable(_NO_IMAGE)
    if _labels(config).get(f"{_LABEL}.accept-bind-to-port") != "true":
        if subject.is_segserve:
            return failed(f"no label {_LABEL}.accept-bind-to-port=true")
        return not_applicable(f"no label {_LABEL}.accept-bind-to-port=true (optional)")
    with holder.sibling(_OTHER_PORT, {"SAGEMAKER_BIND_TO_PORT": str(_OTHER_PORT)}) as other:
        wire = replace(subject.wire, url=other.url)
        ready_s, said = wait_until_ready(wire, subject.limits.startup_s)
    return judged(ready_s is not None, f"/ping on port {_OTHER_PORT}: {said}")


def _multi_model_label(subject: Subject) -> Outcome:
    config = _config(subject)
    if config is None:
        return not_applicable(_NO_IMAGE)
    value = _labels(config).get(f"{_LABEL}.multi-models")
    if value is None and not (subject.multi_model or subject.is_segserve):
        return not_applicable("no such label (optional)")
    return judged(value == "true", f"{_LABEL}.multi-models={value}")


def _read_only(subject: Subject) -> Outcome:
    holder = subject.holder
    if not isinstance(holder, Container):
        return not_applicable(_NO_IMAGE)
    if not holder.launch.mounts:
        return not_applicable("no model folder was mounted")
    return judged(subject.ready_after_s is not None, f"ready with {', '.join(holder.launch.mounts)} mounted read-only")


def _hardened(subject: Subject) -> Outcome:
    holder, config = subject.holder, _config(subject)
    if not isinstance(holder, Container) or config is None:
        return not_applicable(_NO_IMAGE)
    if not set(HARDENED) <= set(holder.launch.options):
        return not_applicable("only with --hardened")
    user = config.get("User") or "root"
    return judged(subject.ready_after_s is not None, f"ready as {user}, {' '.join(HARDENED)}")


def _config(subject: Subject) -> Mapping[str, Any] | None:
    return subject.holder.config if isinstance(subject.holder, Container) else None


def _labels(config: Mapping[str, Any]) -> Mapping[str, str]:
    return config.get("Labels") or {}


CHECKS = (
    Check("IMG-1", "IMAGE serve becomes healthy", "/ping 200 within 8 minutes", Source.HOSTING, _starts),
    Check(
        "IMG-2",
        "Healthy means ready",
        "the first invocation after the first 200: 200",
        Source.HOSTING,
        _ready_means_ready,
    ),
    Check(
        "IMG-3",
        "ENTRYPOINT in exec form, so that SIGTERM arrives",
        "no shell, no initializer in front",
        Source.HOSTING,
        _exec_form,
    ),
    Check(
        "IMG-4", "It listens on every interface, port 8080", "reached through a mapped port", Source.HOSTING, _listens
    ),
    Check(
        "IMG-5",
        "SAGEMAKER_BIND_TO_PORT is honored where the label says so",
        "/ping 200 on that port",
        Source.MULTI_CONTAINER,
        _other_port,
    ),
    Check(
        "IMG-6",
        "The label of multi-model containers",
        f"{_LABEL}.multi-models=true",
        Source.MULTI_MODEL_IMAGE,
        _multi_model_label,
    ),
    Check("IMG-7", "/opt/ml/model is only read", "ready with it mounted read-only", Source.HOSTING, _read_only),
    Check(
        "IMG-8",
        "It needs no privilege (beyond the contract)",
        "ready with a read-only disk, no capability",
        Source.SEGSERVE,
        _hardened,
    ),
)
"""In the order in which they run."""
