"""Multi-model endpoints: load, list, describe, invoke, unload, and the status codes that SageMaker acts upon."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from segserve.conformance.check import Check, Outcome, Source, failed, judged, not_applicable, passed
from segserve.conformance.payload import JSON, OwnModel, Payload, own_targeted_request
from segserve.conformance.subject import NO_PAYLOAD, Subject
from segserve.conformance.wire import Answer

MODEL_NAME = "conformance-model-1"
_UNKNOWN = "/models/no-such-model"
_NOT_OFFERED = "no multi-model routes (optional)"
_CLOSED = "models cannot be loaded without a key; start it with SAGEMAKER_MULTI_MODEL=true"
_NO_ARTIFACT = "no model to load is known; give one with --artifact"
_MOST_PAGES = 100


def _listed(subject: Subject) -> Outcome:
    missing = _missing(subject)
    if missing is not None:
        return missing
    answer = subject.wire.ask("GET", "/models")
    models = _models_of(answer)
    if models is None:
        return failed(answer.said())
    return passed(f"models: {len(models)}")


def _unknown(method: str, path: str) -> Any:
    def run(subject: Subject) -> Outcome:
        missing = _missing(subject)
        if missing is not None:
            return missing
        headers, body = _invocation(subject) if method == "POST" else ({}, None)
        answer = subject.wire.ask(method, path, headers, body)
        if method == "DELETE" and answer.status in (401, 403) and not subject.multi_model:
            return not_applicable(_CLOSED)
        return judged(answer.status == 404, answer.said())

    return run


def _malformed(subject: Subject) -> Outcome:
    missing = _missing_loading(subject)
    if missing is not None:
        return missing
    bodies: tuple[bytes, ...] = (b"", b"{", b"[]", b'{"model_name": "a-model"}', b'{"url": "/opt/ml/models/a"}')
    statuses = [_post_models(subject, body).status for body in bodies]
    return judged(all(400 <= status < 500 for status in statuses), ", ".join(map(str, statuses)))


def _no_such_place(subject: Subject) -> Outcome:
    missing = _missing_loading(subject)
    if missing is not None:
        return missing
    answer = _load(subject, "no-such-model", "/opt/ml/models/no-such-model/model")
    after = subject.wire.ask("GET", _UNKNOWN)
    return judged(400 <= answer.status < 500 and after.status == 404, f"{answer.said()}; then GET: {after.status}")


def _loads(subject: Subject) -> Outcome:
    missing = _missing_artifact(subject)
    if missing is not None:
        return missing
    _unload(subject)
    answer = _load(subject, MODEL_NAME, subject.artifact or "")
    return judged(answer.status == 200, answer.said())


def _loads_once(subject: Subject) -> Outcome:
    missing = _missing_loaded(subject)
    if missing is not None:
        return missing
    answer = _load(subject, MODEL_NAME, subject.artifact or "")
    return judged(answer.status == 409, answer.said())


def _described(subject: Subject) -> Outcome:
    missing = _missing_loaded(subject)
    if missing is not None:
        return missing
    answer = subject.wire.ask("GET", f"/models/{MODEL_NAME}")
    value = _object(answer)
    entry = {"modelName": value.get("modelName"), "modelUrl": value.get("modelUrl")} if value else None
    in_list = [model for model in _models_of(subject.wire.ask("GET", "/models")) or [] if model == entry]
    good = answer.status == 200 and entry == {"modelName": MODEL_NAME, "modelUrl": subject.artifact}
    return judged(good and len(in_list) == 1, f"{answer.said()}; in the list: {len(in_list)} times")


def _pages(subject: Subject) -> Outcome:
    missing = _missing_loaded(subject)
    if missing is not None:
        return missing
    names: list[str] = []
    token: str | None = None
    for page in range(1, _MOST_PAGES + 1):
        query = f"?{urlencode({'next_page_token': token})}" if token is not None else ""
        answer = subject.wire.ask("GET", f"/models{query}")
        models = _models_of(answer)
        if models is None:
            return failed(f"page {page}: {answer.said()}")
        names += [model["modelName"] for model in models]
        token = (_object(answer) or {}).get("nextPageToken")
        if not token:
            good = len(set(names)) == len(names) and MODEL_NAME in names
            return judged(good, f"models: {len(names)}, pages: {page}")
    return failed(f"the list does not end after {_MOST_PAGES} pages")


def _invoked(subject: Subject) -> Outcome:
    missing = _missing_loaded(subject)
    if missing is not None:
        return missing
    headers, body = _invocation(subject)
    if body is None:
        return not_applicable(NO_PAYLOAD)
    target = {"X-Amzn-SageMaker-Target-Model": "models/conformance.tar.gz"}
    answer = subject.wire.ask("POST", f"/models/{MODEL_NAME}/invoke", {**headers, **target}, body)
    return judged(answer.status == 200, answer.said())


def _unloads(subject: Subject) -> Outcome:
    missing = _missing_loaded(subject)
    if missing is not None:
        return missing
    answer = _unload(subject)
    return judged(answer.status == 200, answer.said())


def _is_gone(subject: Subject) -> Outcome:
    missing = _missing_artifact(subject)
    if missing is not None:
        return missing
    headers, body = _invocation(subject)
    path = f"/models/{MODEL_NAME}"
    asked = {
        "GET": subject.wire.ask("GET", path),
        "invoke": subject.wire.ask("POST", f"{path}/invoke", headers, body if body is not None else b"{}"),
        "DELETE": subject.wire.ask("DELETE", path),
    }
    seen = ", ".join(f"{name}: {answer.status}" for name, answer in asked.items())
    return judged(all(answer.status == 404 for answer in asked.values()), seen)


def _comes_back(subject: Subject) -> Outcome:
    missing = _missing_artifact(subject)
    if missing is not None:
        return missing
    loaded = _load(subject, MODEL_NAME, subject.artifact or "")
    headers, body = _invocation(subject)
    asked = subject.wire.ask("POST", f"/models/{MODEL_NAME}/invoke", headers, body) if body is not None else loaded
    unloaded = _unload(subject)
    statuses = [loaded.status, asked.status, unloaded.status]
    return judged(statuses == [200, 200, 200], "load {}, invoke {}, unload {}".format(*statuses))


def _healthy_without(subject: Subject) -> Outcome:
    if not subject.multi_model:
        return not_applicable("not started as a multi-model container")
    models = _models_of(subject.wire.ask("GET", "/models"))
    if models:
        return not_applicable(f"models are loaded: {len(models)}")
    answer = subject.ping()
    return judged(answer.status == 200, answer.said())


def _missing(subject: Subject) -> Outcome | None:
    """Why the routes need not be there; a failure when they were promised."""
    answer = subject.wire.ask("GET", "/models")
    if answer.status == 200 and _object(answer) is not None and "models" in (_object(answer) or {}):
        return None
    if subject.multi_model or subject.is_segserve:
        return failed(f"GET /models: {answer.said()}")
    return not_applicable(_NOT_OFFERED)


def _missing_loading(subject: Subject) -> Outcome | None:
    missing = _missing(subject)
    if missing is not None:
        return missing
    answer = _post_models(subject, b"{}")
    if answer.status in (401, 403, 404, 405, 501) and not subject.multi_model:
        return not_applicable(_CLOSED)
    return None


def _missing_artifact(subject: Subject) -> Outcome | None:
    return _missing_loading(subject) or (not_applicable(_NO_ARTIFACT) if subject.artifact is None else None)


def _missing_loaded(subject: Subject) -> Outcome | None:
    missing = _missing_artifact(subject)
    if missing is not None:
        return missing
    answer = subject.wire.ask("GET", f"/models/{MODEL_NAME}")
    return None if answer.status == 200 else not_applicable(f"the model is not loaded: {answer.said()}")


def _post_models(subject: Subject, body: bytes) -> Answer:
    return subject.wire.ask("POST", "/models", {"Content-Type": JSON, "Accept": JSON}, body)


def _load(subject: Subject, name: str, url: str) -> Answer:
    return _post_models(subject, json.dumps({"model_name": name, "url": url}).encode())


def _unload(subject: Subject) -> Answer:
    return subject.wire.ask("DELETE", f"/models/{MODEL_NAME}")


def _invocation(subject: Subject) -> tuple[dict[str, str], bytes | None]:
    """Headers and body for the loaded model: a segserve's are made to fit it, others take the payload."""
    payload: Payload | None = subject.payload
    if subject.is_segserve:
        about = _object(subject.wire.ask("GET", f"/v1/models/{MODEL_NAME}")) or {}
        payload = own_targeted_request(OwnModel(MODEL_NAME, about.get("kind")))
    return ({}, None) if payload is None else (payload.all_headers(), payload.body)


def _object(answer: Answer) -> dict[str, Any] | None:
    try:
        value = answer.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _models_of(answer: Answer) -> list[dict[str, Any]] | None:
    models = (_object(answer) or {}).get("models")
    if answer.status != 200 or not isinstance(models, list):
        return None
    named = [isinstance(model, dict) and {"modelName", "modelUrl"} <= set(model) for model in models]
    return models if all(named) else None


CHECKS = (
    Check(
        "MME-1",
        "GET /models lists what is loaded",
        "200 with models: modelName and modelUrl of each",
        Source.MULTI_MODEL,
        _listed,
    ),
    Check(
        "MME-2", "Without a model the container is healthy", "/ping: 200", Source.MULTI_MODEL_IMAGE, _healthy_without
    ),
    Check("MME-3", "GET of a model that is not loaded", "404", Source.MULTI_MODEL, _unknown("GET", _UNKNOWN)),
    Check(
        "MME-4",
        "Invoking a model that is not loaded",
        "404",
        Source.MULTI_MODEL,
        _unknown("POST", f"{_UNKNOWN}/invoke"),
    ),
    Check("MME-5", "Unloading a model that is not loaded", "404", Source.MULTI_MODEL, _unknown("DELETE", _UNKNOWN)),
    Check("MME-6", "POST /models with a malformed body", "4xx", Source.MULTI_MODEL, _malformed),
    Check(
        "MME-7",
        "Loading from where nothing is",
        "4xx, and no model of that name afterwards",
        Source.MULTI_MODEL,
        _no_such_place,
    ),
    Check("MME-8", "POST /models loads a model", "200", Source.MULTI_MODEL, _loads),
    Check("MME-9", "Loading it again", "409", Source.MULTI_MODEL, _loads_once),
    Check(
        "MME-10",
        "The loaded model is listed and described",
        "modelName and modelUrl as they were given",
        Source.MULTI_MODEL,
        _described,
    ),
    Check(
        "MME-11",
        "The list's pages end, with every model once",
        "nextPageToken leads to the end",
        Source.MULTI_MODEL,
        _pages,
    ),
    Check("MME-12", "POST /models/NAME/invoke asks the model", "200", Source.MULTI_MODEL, _invoked),
    Check("MME-13", "DELETE /models/NAME unloads it", "200", Source.MULTI_MODEL, _unloads),
    Check("MME-14", "Afterwards it is gone", "GET, invoke and DELETE: 404", Source.MULTI_MODEL, _is_gone),
    Check("MME-15", "It can be loaded again", "load, invoke and unload: 200", Source.MULTI_MODEL, _comes_back),
)
"""In the order in which they run: later ones use what earlier ones loaded."""
