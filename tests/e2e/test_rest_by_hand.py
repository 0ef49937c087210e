"""TorchServe's own REST API, as a person with curl would use it: the handler without the gateway."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
from servers import Served, multipart, serving

from segserve import masks
from segserve.errors import SegserveError
from segserve.schema import WorkerResult
from segserve.torchserve.running import find_running
from segserve.training.scenes import Scene

PROMPT = '{"text": "floor. wall."}'


def predict(served: Served, **request) -> requests.Response:
    """POST to the model, with the token."""
    headers = {**served.token(), **request.pop("headers", {})}
    url = f"{served.address.inference_url}/predictions/grounded_sam"
    return requests.post(url, headers=headers, timeout=120, **request)


def code_of(answer: requests.Response) -> str:
    """The error code of a bad item's answer."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()["error"]) == {"code", "message"}
    return answer.json()["error"]["code"]


def test_multipart_finds_what_the_text_names(served: Served, scene: Scene, scene_png: bytes):
    answer = predict(served, files=multipart(scene_png, "floor."))
    assert answer.status_code == 200
    assert float(answer.headers["X-Segserve-Model-Ms"]) > 0
    result = WorkerResult.model_validate(answer.json())
    assert (result.height, result.width) == scene.image.shape[:2]
    best = result.instances[0]
    assert best.label == "floor"
    (truth,) = [obj for obj in scene.objects if obj.phrase == "floor"]
    assert masks.iou(masks.decode_rle(best.mask.model_dump()), scene.mask(truth)) > 0.5


def test_all_forms_of_a_request_get_the_same_answer(served: Served, scene_png: bytes):
    in_json = {"image": base64.b64encode(scene_png).decode(), "prompt": json.loads(PROMPT)}
    answers = [
        predict(served, files=multipart(scene_png, "floor. wall.")),
        predict(served, data=scene_png, headers={"X-Segserve-Prompt": PROMPT, "Content-Type": "image/png"}),
        predict(served, data=scene_png, headers={"x-segserve-prompt": PROMPT}),
        predict(served, json=in_json),
        predict(served, data=json.dumps(in_json), headers={"Content-Type": "text/plain"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[0].json()["instances"]
    for answer in answers[1:]:
        assert answer.json() == answers[0].json()


def test_thresholds_of_the_request_count(served: Served, scene_png: bytes):
    strict = predict(served, files=multipart(scene_png, "floor.", parameters={"box_threshold": 1.0}))
    assert strict.status_code == 200
    assert strict.json()["instances"] == []


def test_each_kind_of_bad_item_has_its_status(served: Served, scene_png: bytes):
    cases = [
        ({"files": multipart(b"just text", "a")}, 415, "not_an_image"),
        ({"files": multipart(b"", "a")}, 400, "invalid_request"),
        ({"files": multipart(scene_png[: len(scene_png) // 2], "a")}, 422, "undecodable_image"),
        ({"files": multipart(scene_png, " . ")}, 422, "invalid_prompt"),
        ({"files": multipart(scene_png, ". ".join(f"thing{i}" for i in range(33)))}, 422, "invalid_prompt"),
        ({"files": multipart(scene_png, "a", parameters={"box_threshold": 2})}, 400, "invalid_request"),
        ({"files": multipart(scene_png, "a", points=[[1, 1, 1]])}, 422, "invalid_prompt"),
        ({"files": {"image": scene_png}}, 422, "invalid_prompt"),
        ({"files": {"prompt": (None, PROMPT)}}, 400, "invalid_request"),
        ({"data": scene_png, "headers": {"X-Segserve-Prompt": "sofa"}}, 400, "invalid_request"),
        ({"data": "{broken", "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
        ({"json": {"image": "%%%", "prompt": {"text": "a"}}}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
    ]
    for request, status, code in cases:
        answer = predict(served, **request)
        assert (answer.status_code, code_of(answer)) == (status, code), request.keys()


def test_bad_items_spare_the_others_of_their_batch(served: Served, scene_png: bytes):
    """Twelve at once, one worker, batches of four: every third is broken."""
    wanted = [415 if index % 3 == 0 else 200 for index in range(12)]
    images = [b"broken" if status == 415 else scene_png for status in wanted]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda image: predict(served, files=multipart(image, "floor. wall.")), images))
    assert [answer.status_code for answer in answers] == wanted
    good = [answer.json() for answer in answers if answer.status_code == 200]
    labels = [[instance["label"] for instance in result["instances"]] for result in good]
    assert labels[0]
    assert all(each == labels[0] for each in labels)
    # The items of a batch share its time: fewer times than answers means that batches had more than one item.
    assert len({answer.headers["X-Segserve-Model-Ms"] for answer in answers if answer.status_code == 200}) < len(good)


def test_a_worker_describes_itself(served: Served):
    url = f"{served.address.management_url}/models/grounded_sam"
    answer = requests.get(url, params={"customized": "true"}, headers=served.token("management"), timeout=60)
    told = answer.json()[0]["customizedMetadata"]
    description = json.loads(told) if isinstance(told, str) else told
    assert (description["device"], description["threads"], description["prompts"]) == ("cpu", 1, ["text"])


def test_a_token_is_needed_and_a_wrong_one_is_refused(served: Served, scene_png: bytes):
    url = f"{served.address.inference_url}/predictions/grounded_sam"
    for headers in ({}, {"Authorization": "Bearer wrong"}, served.token("management")):
        answer = requests.post(url, headers=headers, files=multipart(scene_png, "floor."), timeout=30)
        assert answer.status_code == 400
        assert answer.json()["type"] == "InvalidKeyException"
    models = f"{served.address.management_url}/models"
    assert requests.get(models, headers=served.token("inference"), timeout=30).status_code == 400
    assert requests.get(models, headers=served.token("management"), timeout=30).status_code == 200


def test_models_come_from_this_machine_and_with_the_token_only(served: Served, store: Path):
    """TorchServe also loads archives that lie elsewhere on the machine, whatever its model store: hence the token."""
    models = f"{served.address.management_url}/models"
    token = served.token("management")
    before = requests.get(models, headers=token, timeout=30).json()
    archive = store / "grounded_sam.mar"
    assert archive.is_file()
    handler = partial(SimpleHTTPRequestHandler, directory=str(store))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        web = f"http://127.0.0.1:{elsewhere.server_address[1]}/{archive.name}"
        asked = [(web, token), (archive.as_uri(), token), (str(archive), {}), (str(archive), served.token("inference"))]
        for url, headers in asked:
            query = {"url": url, "model_name": "other"}
            answer = requests.post(models, params=query, headers=headers, timeout=30)
            assert answer.status_code in (400, 404), url
        elsewhere.shutdown()
    assert requests.get(models, headers=token, timeout=30).json() == before


def test_without_tokens_nothing_is_registered(store: Path, tmp_path: Path):
    query = {"url": str(store / "grounded_sam.mar"), "model_name": "other"}
    with serving(tmp_path, store, models=("grounded_sam",), options=("--no-tokens",), wait=False) as open_to_all:
        deadline = time.monotonic() + 120
        answer = None
        while answer is None and time.monotonic() < deadline:
            time.sleep(0.2)
            with contextlib.suppress(SegserveError, requests.ConnectionError):
                management = find_running(open_to_all.port).address.management_url
                answer = requests.post(f"{management}/models", params=query, timeout=30)
        assert answer is not None and answer.status_code == 405
