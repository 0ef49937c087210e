"""The client against a small HTTP server that answers what each test tells it to."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_stand_in import Answer, Seen, StandIn
from PIL import Image

from segserve import errors
from segserve.client import Client, Result, Retries, Tiled
from segserve.errors import UnreachableError
from segserve.imaging import decode, encode
from segserve.label_maps import encode_png
from segserve.label_render import overlay as overlay_of_classes
from segserve.mask_logits import to_text
from segserve.masks import encode_rle

QUICK = Retries(attempts=3, first_delay_s=0.001, max_delay_s=0.01)
MASK = np.zeros((6, 8), dtype=bool)
MASK[1:4, 2:7] = True
FOUND = {"label": "sofa", "score": 0.91, "box": [2, 1, 7, 4], "area": 15, "mask": encode_rle(MASK)}
GOOD = {"width": 8, "height": 6, "instances": [FOUND]}
PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def segment_answer(*results: dict[str, Any]) -> Answer:
    return Answer(
        body={"model": "grounded_sam", "version": "1.0", "results": list(results), "timings_ms": {"model": 5}}
    )


def error_answer(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"error": {"code": code, "message": f"about {code}", "request_id": "abc"}}
    return Answer(status, body, {"X-Request-Id": "abc", **(headers or {})})


def inputs(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "room.png"
    path.write_bytes(encode(PICTURE))
    return {
        "path": path,
        "text path": str(path),
        "bytes": encode(PICTURE),
        "array": PICTURE,
        "strided array": np.asfortranarray(PICTURE),
        "pillow": Image.fromarray(PICTURE),
    }


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "array", "strided array", "pillow"])
def test_local_images_go_out_as_files(server: StandIn, tmp_path: Path, kind: str) -> None:
    server.answers = [segment_answer(GOOD)]
    with Client(server.url, retries=QUICK) as client:
        result = client.segment(inputs(tmp_path)[kind], text="sofa.", box_threshold=0.4, text_threshold=None)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/segment")
    (first, request), (second, data) = seen.parts()
    assert (first, second) == ("request", "image")
    assert json.loads(request) == {
        "prompt": {"text": "sofa."},
        "parameters": {"box_threshold": 0.4},
        "render": [],
    }
    assert np.array_equal(decode(data), PICTURE)
    assert np.array_equal(result.image, PICTURE)


def test_result_is_typed(server: StandIn, tmp_path: Path) -> None:
    server.answers = [segment_answer(GOOD)]
    with Client(server.url) as client:
        result = client.segment(PICTURE, text="sofa.")
    assert (result.width, result.height, result.timings_ms) == (8, 6, {"model": 5})
    (found,) = result.instances
    assert (found.label, found.score, found.box, found.area) == ("sofa", 0.91, (2, 1, 7, 4), 15)
    assert found.mask.dtype == bool and np.array_equal(found.mask, MASK)
    assert result.masks.shape == (1, 6, 8)
    for name, start in (("o.png", b"\x89PNG"), ("o.jpg", b"\xff\xd8")):
        result.save_overlay(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    drawn = decode((tmp_path / "o.png").read_bytes())
    assert drawn.shape == PICTURE.shape and not np.array_equal(drawn, PICTURE)


def test_address_is_left_to_the_server(server: StandIn, tmp_path: Path) -> None:
    rendered = base64.b64encode(encode(PICTURE)).decode()
    server.answers = [segment_answer({**GOOD, "renders": {"overlay": rendered, "crops": [rendered]}})]
    with Client(server.url) as client:
        result = client.segment("https://example.org/a.jpg", text="sofa.", render=["overlay", "crops"])
    assert server.seen[0].json["images"] == [{"url": "https://example.org/a.jpg"}]
    assert server.seen[0].json["render"] == ["overlay", "crops"]
    assert result.renders["crops"] == [encode(PICTURE)]
    result.save_overlay(tmp_path / "o.png")
    assert np.array_equal(decode((tmp_path / "o.png").read_bytes()), PICTURE)


def test_address_without_a_render_has_no_picture(server: StandIn, tmp_path: Path) -> None:
    server.answers = [segment_answer(GOOD)]
    with Client(server.url) as client:
        result = client.segment("s3://bucket/a.jpg", text="sofa.")
    assert server.seen[0].json["images"] == [{"s3": "s3://bucket/a.jpg"}]
    with pytest.raises(ValueError, match="overlay"):
        result.save_overlay(tmp_path / "o.png")


def test_points_and_boxes(server: StandIn) -> None:
    server.answers = [segment_answer(GOOD)]
    with Client(server.url) as client:
        client.segment(PICTURE, model="sam2", points=[(1, 2, 1)], boxes=np.asarray([[0, 0, 3, 3]]).tolist())
    request = json.loads(server.seen[0].parts()[0][1])
    assert request["prompt"] == {"points": [[1, 2, 1]], "boxes": [[0, 0, 3, 3]]}
    assert request["model"] == "sam2"


def test_objects_with_masks_of_earlier_answers(server: StandIn) -> None:
    low_res = np.linspace(-3, 3, 20, dtype=np.float32).reshape(4, 5)
    earlier = {**FOUND, "object": 0, "low_res": to_text(low_res)}
    server.answers = [segment_answer({**GOOD, "instances": [earlier]}), segment_answer(GOOD)]
    with Client(server.url) as client:
        (first,) = client.segment(PICTURE, model="sam2", points=np.array([[4, 3, 1]]), low_res=True).instances
        objects = [
            {"points": [(np.int64(1), 2.5, 0)], "mask": first.low_res},
            {"box": np.array([0, 0, 3, 3]), "mask": first.logits, "points": None},
        ]
        (second,) = client.segment(PICTURE, model="sam2", objects=objects).instances
    requests = [json.loads(seen.parts()[0][1]) for seen in server.seen]
    assert requests[0]["prompt"] == {"points": [[4, 3, 1]]}
    assert requests[0]["parameters"] == {"low_res": True}
    assert requests[1]["prompt"] == {
        "objects": [
            {"points": [[1, 2.5, 0]], "mask": earlier["low_res"]},
            {"box": [0, 0, 3, 3], "mask": earlier["low_res"]},
        ]
    }
    assert first.object == 0
    assert first.logits is not None and np.allclose(first.logits, low_res, atol=0.01)
    assert (second.object, second.low_res, second.logits) == (None, None, None)


def test_many_images_keep_their_order_and_a_bad_one_fails_alone(server: StandIn) -> None:
    bad = {"error": {"code": "not_an_image", "message": "begins with b'text'", "request_id": "r1"}}
    server.answers = [segment_answer(GOOD, bad, GOOD)]
    with Client(server.url) as client:
        outcomes = client.segment_many([PICTURE, b"text", "http://h/a.png"], ["sofa.", "bed.", "lamp."])
    request = server.seen[0].json
    assert request["prompt"] == [{"text": "sofa."}, {"text": "bed."}, {"text": "lamp."}]
    assert [sorted(image) for image in request["images"]] == [["base64"], ["base64"], ["url"]]
    assert isinstance(outcomes[0], Result) and isinstance(outcomes[2], Result)
    assert isinstance(outcomes[1], errors.NotAnImageError)
    assert outcomes[1].request_id == "r1"


def test_many_images_are_split_into_requests_within_the_limits(server: StandIn) -> None:
    def answer(seen: Seen) -> Answer:
        names = [name for name, _ in seen.parts()]
        return segment_answer(*[GOOD] * names.count("image"))

    server.answers = [answer]
    data = encode(PICTURE)
    with Client(server.url) as client:
        assert len(client.segment_many([data] * 70, "sofa.")) == 70
        assert [len(seen.parts()) - 1 for seen in server.seen] == [32, 32, 6]
        assert "prompt" in json.loads(server.seen[2].parts()[0][1])
        server.seen.clear()
        large = b"x" * (9 * 2**20)
        assert len(client.segment_many([large, large, large], "sofa.")) == 3
        assert [len(seen.parts()) - 1 for seen in server.seen] == [2, 1]
        assert client.segment_many([]) == []
        with pytest.raises(ValueError, match="2 images"):
            client.segment_many([data, data], ["one text"])


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and "code" in vars(kind)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.SegserveError])
def test_errors_cross_the_wire(server: StandIn, kind: type[errors.SegserveError]) -> None:
    server.answers = [error_answer(kind.status, kind.code)]
    with Client(server.url, retries=QUICK) as client, pytest.raises(kind) as caught:
        client.segment(PICTURE, text="sofa.")
    assert caught.value.status == kind.status
    assert caught.value.message == f"about {kind.code}"
    assert caught.value.request_id == "abc"


def test_one_bad_image_of_a_batch_of_one_is_an_outcome_but_a_wrong_key_is_raised(server: StandIn) -> None:
    server.answers = [error_answer(415, "not_an_image"), error_answer(401, "unauthorized")]
    with Client(server.url, retries=QUICK) as client:
        (outcome,) = client.segment_many([b"text"], "sofa.")
        assert isinstance(outcome, errors.NotAnImageError)
        with pytest.raises(errors.UnauthorizedError):
            client.segment_many([b"text"], "sofa.")


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b'{"detail": "nothing"}', b'["error"]'])
def test_answers_of_others_are_errors_too(server: StandIn, body: bytes) -> None:
    server.answers = [Answer(502, body)]
    with Client(server.url) as client, pytest.raises(errors.InternalError, match="502"):
        client.segment(PICTURE, text="sofa.")
    server.answers = [Answer(200, b"<html>Welcome</html>")]
    with Client(server.url) as client, pytest.raises(errors.InternalError, match="is it segserve"):
        client.models()


@pytest.mark.parametrize("status", [429, 503])
def test_busy_servers_are_asked_again(server: StandIn, status: int) -> None:
    server.answers = [error_answer(status, "queue_full", {"Retry-After": "0"})] * 2 + [segment_answer(GOOD)]
    with Client(server.url, retries=QUICK) as client:
        client.segment(PICTURE, text="sofa.")
    assert len(server.seen) == 3
    assert len({seen.headers["x-request-id"] for seen in server.seen}) == 1, "one call, one id"
    assert server.seen[0].body.count(b"sofa.") == server.seen[2].body.count(b"sofa.") == 1


def test_attempts_are_bounded(server: StandIn) -> None:
    server.answers = [error_answer(429, "queue_full", {"Retry-After": "7"})]
    with Client(server.url, retries=QUICK) as client, pytest.raises(errors.QueueFullError):
        client.segment(PICTURE, text="sofa.")
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 424, 500, 504, 507])
def test_what_would_fail_again_is_not_asked_again(server: StandIn, status: int) -> None:
    server.answers = [error_answer(status, "x"), segment_answer(GOOD)]
    with Client(server.url, retries=QUICK) as client, pytest.raises(errors.SegserveError) as caught:
        client.segment(PICTURE, text="sofa.")
    assert caught.value.error_code == "x"
    assert len(server.seen) == 1


def test_a_connection_dropped_before_the_answer_is_tried_again(server: StandIn) -> None:
    server.answers = [Answer(drop=True), segment_answer(GOOD)]
    with Client(server.url, retries=QUICK) as client:
        assert client.segment(PICTURE, text="sofa.").instances
    assert len(server.seen) == 2


def test_an_answer_that_breaks_off_is_reported_not_repeated(server: StandIn) -> None:
    server.answers = [Answer(200, b'{"results": [', cut=True)]
    with Client(server.url, retries=QUICK) as client, pytest.raises(errors.ServiceError, match="broke off"):
        client.segment(PICTURE, text="sofa.")
    assert len(server.seen) == 1


def test_no_answer_in_time_is_not_repeated(server: StandIn) -> None:
    server.answers = [Answer(200, {}, delay_s=0.6)]
    with Client(server.url, timeout=0.1, retries=QUICK) as client, pytest.raises(errors.TimedOutError, match=r"0\.1 s"):
        client.segment(PICTURE, text="sofa.")
    assert len(server.seen) == 1


def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url, retries=QUICK) as client:
            with pytest.raises(UnreachableError, match="segserve serve") as caught:
                client.segment(PICTURE, text="sofa.")
            assert isinstance(caught.value, errors.ServiceError)
            assert client.ready() is False
            with pytest.raises(errors.NotReadyError, match=r"within 0\.05 s.*segserve serve"):
                client.wait_until_ready(0.05, pause=0.01)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://127.0.0.1", "http://[::1"])
def test_wrong_addresses_are_named(url: str) -> None:
    with Client(url) as client, pytest.raises(errors.RequestError, match="cannot be asked"):
        client.models()


def test_delays_grow_follow_the_server_and_are_bounded() -> None:
    retries = Retries(first_delay_s=0.2, max_delay_s=5)
    assert 0.2 <= retries.delay(0, None) <= 0.3
    assert 0.8 <= retries.delay(2, None) <= 1.2
    assert retries.delay(0, 3) == 3
    assert retries.delay(0, 60) == 5
    assert len({retries.delay(1, None) for _ in range(5)}) > 1, "clients must not come back in step"


def test_key_and_kept_alive_connection(server: StandIn) -> None:
    server.answers = [Answer(body={"models": [{"name": "grounded_sam", "ready": True}]})]
    with Client(server.url + "/", api_key="secret") as client:
        assert client.models() == [{"name": "grounded_sam", "ready": True}]
        client.models()
        assert "secret" not in repr(client)
    assert [seen.headers["x-api-key"] for seen in server.seen] == ["secret", "secret"]
    assert server.seen[0].path == "/v1/models"
    assert server.connections == 1


def test_readiness(server: StandIn) -> None:
    server.answers = [error_answer(503, "not_ready")] * 3 + [Answer(body={"status": "ready"})]
    with Client(server.url, retries=Retries(attempts=9)) as client:
        assert client.ready() is False
        assert len(server.seen) == 1, "a question about now is asked once"
        client.wait_until_ready(timeout=20, pause=0.01)
        assert client.ready() is True
    assert {seen.path for seen in server.seen} == {"/readyz"}


def test_redirects_are_not_followed(server: StandIn) -> None:
    server.answers = [Answer(307, b"", {"Location": "http://127.0.0.1:1/elsewhere"})]
    with Client(server.url, api_key="secret") as client, pytest.raises(errors.SegserveError):
        client.models()
    assert len(server.seen) == 1


def test_tiling(server: StandIn, tmp_path: Path) -> None:
    picture = base64.b64encode(encode(PICTURE)).decode()
    failed = [{"_id": "1", "code": "image_too_large", "message": "60 megapixels"}]
    server.answers = [Answer(body={"processed_images": [picture, None], "errors": failed})]
    with Client(server.url) as client:
        first, second = client.tile(
            "Flooring", ["http://h/a.png", PICTURE], room="Kitchen", product="https://shop/oak.jpg"
        )
    sent = server.seen[0].json
    assert server.seen[0].path == "/invocations"
    assert sent["categoryname"] == "Flooring" and sent["roomName"] == "Kitchen"
    assert sent["product_image"] == {"url": "https://shop/oak.jpg"}
    assert sent["images"][0] == {"url": "http://h/a.png", "_id": "0"}
    assert np.array_equal(decode(base64.b64decode(sent["images"][1]["base64"])), PICTURE)
    assert isinstance(first, Tiled) and np.array_equal(first.image, PICTURE)
    first.save(tmp_path / "tiled.png")
    assert np.array_equal(decode((tmp_path / "tiled.png").read_bytes()), PICTURE)
    assert isinstance(second, errors.TooLargeError) and second.message == "60 megapixels"


def test_a_missing_file_is_an_os_error_before_anything_is_sent(server: StandIn, tmp_path: Path) -> None:
    with Client(server.url) as client, pytest.raises(FileNotFoundError):
        client.segment(tmp_path / "no.png", text="sofa.")
    assert not server.seen


LABELS = np.arange(48, dtype=np.uint16).reshape(6, 8) % 3
CLASSIFIED = {
    "width": 8,
    "height": 6,
    "classes": ["floor", "door", "wall"],
    "label_map": base64.b64encode(encode_png(LABELS)).decode("ascii"),
    "pixel_fraction": {"floor": 1 / 3, "door": 1 / 3, "wall": 1 / 3},
}


def test_a_label_map_is_decoded(server: StandIn) -> None:
    server.answers = [segment_answer(CLASSIFIED)]
    with Client(server.url, retries=QUICK) as client:
        result = client.segment(PICTURE, model="semantic", engine="onnx", size=None)
    request = json.loads(server.seen[0].parts()[0][1])
    assert (request["model"], request["parameters"]) == ("semantic", {"engine": "onnx"})
    assert result.label_map is not None and result.label_map.dtype == np.uint16
    assert np.array_equal(result.label_map, LABELS)
    assert (result.classes, result.pixel_fraction) == (("floor", "door", "wall"), CLASSIFIED["pixel_fraction"])
    assert result.instances == [] and result.masks.shape == (0, 6, 8)


def test_results_of_instances_have_no_label_map(server: StandIn) -> None:
    server.answers = [segment_answer(GOOD)]
    with Client(server.url, retries=QUICK) as client:
        result = client.segment(PICTURE, text="sofa.")
    assert (result.label_map, result.classes, result.pixel_fraction) == (None, (), {})


def test_an_overlay_of_classes_is_drawn_here_or_by_the_server(server: StandIn, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    drawn_there = base64.b64encode(encode(picture[::-1].copy())).decode("ascii")
    large = {**CLASSIFIED, "width": 80, "height": 60}
    server.answers = [segment_answer(large), segment_answer({**large, "renders": {"overlay": drawn_there}})]
    with Client(server.url, retries=QUICK) as client:
        client.segment(picture).save_overlay(tmp_path / "here.png")
        client.segment("https://example.com/room.jpg", render=["overlay"]).save_overlay(tmp_path / "there.png")
    here = decode((tmp_path / "here.png").read_bytes())
    assert np.array_equal(here, overlay_of_classes(picture, LABELS, ("floor", "door", "wall")))
    assert here.shape[0] > 60
    assert np.array_equal(decode((tmp_path / "there.png").read_bytes()), picture[::-1])


def test_a_broken_label_map_is_the_servers_fault(server: StandIn) -> None:
    server.answers = [segment_answer({**CLASSIFIED, "label_map": "AAAA"})]
    with Client(server.url, retries=QUICK) as client, pytest.raises(errors.InternalError, match="label map"):
        client.segment(PICTURE)
