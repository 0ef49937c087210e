"""A semantic model of both engines through a real TorchServe: the same answers, chosen per request."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import requests
import torch
from numpy.typing import NDArray
from PIL import Image
from servers import ROOT, SCENE_SEED, Served, serving

from onnx_files import brightest_class, damaged
from segserve import imaging, label_maps
from segserve.cli.serving import load_failures
from segserve.export.exporter import write_onnx
from segserve.models.semantic import Semantic
from segserve.models.semantic.architecture import DEFAULT_ARCHITECTURE, SemanticConfig, build_network
from segserve.models.semantic.checkpoint import pascal_voc_labels, save_checkpoint
from segserve.models.semantic.pictures import FixedSize
from segserve.training.scenes import make_scene

ENGINES = ("torch", "onnx")
SIGNS = ("nothing", "stop", "yield")
SIGNS_SIZE = (32, 48)
MOST_RSS = 1.5 * 2**30
MOST_APART = 1e-3
LEAST_ALIKE = 0.999

CHECKPOINT = SemanticConfig(pascal_voc_labels(), DEFAULT_ARCHITECTURE)
SIGNS_CHECKPOINT = SemanticConfig(SIGNS, "lraspp_mobilenet_v3_large", SIGNS_SIZE)


@pytest.fixture(scope="module")
def pictures() -> list[imaging.Rgb]:
    """Scenes of three sizes."""
    sizes = ((640, 480), (500, 700), (333, 222))
    return [
        np.asarray(Image.fromarray(make_scene(SCENE_SEED + index).image).resize(size))
        for index, size in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def network(pictures: list[imaging.Rgb]) -> torch.nn.Module:
    """The default network, 21 classes at 512 x 512. Its weights are random, but its normalization is of real pictures:
    without that its answer is the same everywhere, and engines that agree on it prove nothing."""
    torch.manual_seed(5)
    network = build_network(CHECKPOINT).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        network(inputs(pictures))
    return network.eval()


def inputs(images: list[imaging.Rgb]) -> torch.Tensor:
    return torch.stack([FixedSize(CHECKPOINT)(image) for image in images])


@pytest.fixture(scope="module")
def store(network: torch.nn.Module, pictures: list[imaging.Rgb], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two archives, made by the command: ``voc`` of torchvision's weights and their export; and ``signs``, whose ONNX
    file is another model than its weights, so that the engines are told apart."""
    work = tmp_path_factory.mktemp("semantic_weights")
    torch.save(network.state_dict(), work / "voc.pth")
    write_onnx(network, inputs(pictures)[0], work / "voc.onnx")
    archive(work, "--weights", work / "voc.pth", "--onnx", work / "voc.onnx", "--name", "voc")
    signs = build_network(SIGNS_CHECKPOINT)
    bias = signs.get_parameter("classifier.low_classifier.bias")
    bias.data = torch.tensor([9.0, 0.0, -100.0])
    save_checkpoint(work / "signs", SIGNS_CHECKPOINT, signs)
    onnx.save(brightest_class(3, SIGNS_SIZE, favorite=2), work / "signs" / "model.onnx")
    archive(work, "--weights", work / "signs", "--engine", "onnx", "--name", "signs")
    return work / "store"


def archive(work: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "segserve.cli", "archive", "semantic", *arguments, "--out", work / "store"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def semantic(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both models, each with one worker that takes up to four images at once."""
    folder = tmp_path_factory.mktemp("semantic_served")
    with serving(folder, store, models=("voc", "signs"), workers=1, batch_size=4, batch_delay_ms=200) as service:
        yield service


def by_hand(served: Served, model: str, image: bytes, **parameters: str) -> requests.Response:
    """POST to TorchServe itself, with its token."""
    form = {"image": image, "prompt": (None, json.dumps({"parameters": parameters}))}
    url = f"{served.address.inference_url}/predictions/{model}"
    return requests.post(url, headers=served.token(), files=form, timeout=180)


def labels_of(answer: requests.Response) -> NDArray[Any]:
    """The label map of a worker's JSON answer, after a look at the rest of it."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    labels = label_maps.decode_png(base64.b64decode(body["label_map"]))
    shares = np.bincount(labels.ravel(), minlength=len(body["classes"])) / labels.size
    assert body["pixel_fraction"] == {
        name: pytest.approx(share, abs=1e-6) for name, share in zip(body["classes"], shares, strict=True) if share
    }
    return labels


def scores_of(answer: requests.Response) -> NDArray[np.float32]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-npy"), answer.text[:500]
    scores = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert scores.dtype == np.float32
    return scores


def test_both_engines_give_the_checkpoints_answer(
    semantic: Served, network: torch.nn.Module, pictures: list[imaging.Rgb]
) -> None:
    with torch.inference_mode():
        expected = network(inputs(pictures)).numpy()
    for image, wanted in zip(pictures, expected, strict=True):
        data = imaging.encode(image)
        logits = [scores_of(by_hand(semantic, "voc", data, engine=e, output="logits", size="model")) for e in ENGINES]
        maps = [labels_of(by_hand(semantic, "voc", data, engine=engine)) for engine in ENGINES]
        assert len(np.unique(maps[0])) >= 3 and wanted.std() > 0.05, "an answer that is the same everywhere"
        for each in logits:
            assert each.shape == (21, 512, 512)
            assert np.abs(each - wanted).max() <= MOST_APART
        assert np.abs(logits[0] - logits[1]).max() <= MOST_APART
        assert maps[0].shape == image.shape[:2]
        assert (maps[0] == maps[1]).mean() >= LEAST_ALIKE
        small = [labels_of(by_hand(semantic, "voc", data, engine=engine, size="model")) for engine in ENGINES]
        assert (small[0] == logits[0].argmax(axis=0)).mean() >= LEAST_ALIKE
        assert (small[0] == small[1]).mean() >= LEAST_ALIKE


def test_probabilities_are_the_softmax_of_the_logits(semantic: Served, pictures: list[imaging.Rgb]) -> None:
    data = imaging.encode(pictures[2])
    for engine in ENGINES:
        logits, shares = (
            scores_of(by_hand(semantic, "voc", data, engine=engine, output=output))
            for output in ("logits", "probabilities")
        )
        assert logits.shape == shares.shape == (21, 222, 333)
        powers = np.exp(logits - logits.max(axis=0))
        np.testing.assert_allclose(shares, powers / powers.sum(axis=0), atol=1e-5)


def test_each_request_chooses_its_engine(semantic: Served, pictures: list[imaging.Rgb]) -> None:
    data = imaging.encode(pictures[0])
    by_torch, by_onnx = (labels_of(by_hand(semantic, "signs", data, engine=engine)) for engine in ENGINES)
    assert (by_onnx == 2).all()
    assert not (by_torch == 2).any()
    # The archive's own engine: signs has onnx, voc has torch, as the yaml says.
    np.testing.assert_array_equal(labels_of(by_hand(semantic, "signs", data)), by_onnx)
    bare, torch_ = (by_hand(semantic, "voc", data, **given) for given in ({}, {"engine": "torch"}))
    assert bare.json() == torch_.json()


def test_the_gateway_passes_on_the_same(semantic: Served, pictures: list[imaging.Rgb]) -> None:
    data = imaging.encode(pictures[1])
    for engine in ENGINES:
        request = {"model": "voc", "parameters": {"engine": engine}}
        native = requests.post(f"{semantic.url}/v1/segment", files=form(data, request), timeout=180)
        assert native.status_code == 200, native.text
        (result,) = native.json()["results"]
        worker = by_hand(semantic, "voc", data, engine=engine)
        for field in ("width", "height", "classes", "label_map", "pixel_fraction"):
            assert result[field] == worker.json()[field], field
        as_file = {"Accept": "application/x-npy"}
        labels = requests.post(f"{semantic.url}/v1/segment", files=form(data, request), headers=as_file, timeout=180)
        np.testing.assert_array_equal(np.load(io.BytesIO(labels.content)), labels_of(worker))
        request["parameters"] |= {"output": "logits", "size": "model"}
        tensor = requests.post(f"{semantic.url}/v1/segment", files=form(data, request), headers=as_file, timeout=180)
        wanted = scores_of(by_hand(semantic, "voc", data, engine=engine, output="logits", size="model"))
        np.testing.assert_array_equal(scores_of(tensor), wanted)


def form(image: bytes, request: dict[str, Any]) -> dict[str, Any]:
    return {"image": image, "request": (None, json.dumps(request))}


def test_bad_items_spare_the_good_ones_of_their_batch(semantic: Served, pictures: list[imaging.Rgb]) -> None:
    """Twelve at once, one worker, batches of up to four: every third is broken, the engines alternate."""
    data = imaging.encode(pictures[2])
    wanted = {engine: labels_of(by_hand(semantic, "voc", data, engine=engine)) for engine in ENGINES}

    def ask(index: int) -> requests.Response:
        image = (b"broken", data, data)[index % 3]
        return by_hand(semantic, "voc", image, engine=ENGINES[index % 2])

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert [answer.status_code for answer in answers] == [415, 200, 200] * 4
    good = [(index, answer) for index, answer in enumerate(answers) if answer.status_code == 200]
    for index, answer in good:
        assert (labels_of(answer) == wanted[ENGINES[index % 2]]).mean() >= LEAST_ALIKE
    # The items of a batch share its time: fewer times than answers means that batches had more than one item.
    assert len({answer.headers["X-Segserve-Model-Ms"] for _, answer in good}) < len(good)


def test_a_batch_of_large_answers_comes_back_whole(semantic: Served, pictures: list[imaging.Rgb]) -> None:
    """Twelve at once, 21 MiB each but for the broken ones and label maps between them: TorchServe takes minutes to
    decode, and then ends the worker, where they come in one message."""
    data = imaging.encode(pictures[2])
    asked = {"engine": "onnx", "size": "model"}
    wanted = scores_of(by_hand(semantic, "voc", data, **asked, output="logits"))

    def ask(index: int) -> requests.Response:
        if index % 6 == 4:
            files = form(data, {"model": "voc", "parameters": {**asked, "output": "logits"}})
            accept = {"Accept": "application/x-npy"}
            return requests.post(f"{semantic.url}/v1/segment", files=files, headers=accept, timeout=180)
        image = b"broken" if index % 6 == 2 else data
        return by_hand(semantic, "voc", image, **asked, output="label_map" if index % 6 == 5 else "logits")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert [answer.status_code for answer in answers] == [200, 200, 415, 200, 200, 200] * 2
    for index, answer in enumerate(answers):
        if index % 6 == 5:
            assert (labels_of(answer) == wanted.argmax(axis=0)).mean() >= LEAST_ALIKE
        elif index % 6 != 2:
            assert np.abs(scores_of(answer) - wanted).max() <= MOST_APART
    times = [answer.headers["X-Segserve-Model-Ms"] for index, answer in enumerate(answers) if index % 6 not in (2, 4)]
    assert len(set(times)) < len(times)


@pytest.mark.parametrize(
    ("parameters", "status", "said"),
    [
        ({"engine": "tensorrt"}, 400, "parameters.engine"),
        ({"output": "edges"}, 400, "parameters.output"),
        ({"size": "512x512"}, 400, "parameters.size"),
        ({"box_threshold": 0.3}, 400, "engine, output, size"),
        ({"output": "logits"}, 413, "model"),
    ],
)
def test_a_worker_refuses_what_it_cannot_answer(
    semantic: Served, parameters: dict[str, Any], status: int, said: str
) -> None:
    image = imaging.encode(np.zeros((800, 1200, 3), np.uint8))
    answer = by_hand(semantic, "voc", image, **parameters)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_worker_describes_its_engines_and_classes(semantic: Served) -> None:
    for name, engine, classes in (("voc", "torch", pascal_voc_labels()), ("signs", "onnx", SIGNS)):
        url = f"{semantic.address.management_url}/models/{name}"
        answer = requests.get(url, params={"customized": "true"}, headers=semantic.token("management"), timeout=60)
        told = answer.json()[0]["customizedMetadata"]
        description = json.loads(told) if isinstance(told, str) else told
        assert (description["kind"], description["engine"]) == ("semantic", engine)
        assert (description["engines"], description["classes"]) == (list(ENGINES), list(classes))
    models = {model["name"]: model for model in requests.get(f"{semantic.url}/v1/models", timeout=60).json()["models"]}
    assert (models["signs"]["kind"], models["signs"]["engine"]) == ("semantic", "onnx")
    assert (models["signs"]["engines"], models["signs"]["classes"]) == (list(ENGINES), list(SIGNS))


def test_a_12_megapixel_photograph_needs_less_than_one_and_a_half_gigabytes(
    semantic: Served, pictures: list[imaging.Rgb]
) -> None:
    large = np.asarray(Image.fromarray(pictures[0]).resize((4000, 3000), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).integers(-6, 7, large.shape, dtype=np.int16)
    photograph = imaging.encode(np.clip(large + noise, 0, 255).astype(np.uint8), "JPEG")
    pid = fresh_worker(semantic, "voc")
    maps = [labels_of(by_hand(semantic, "voc", photograph, engine=engine)) for engine in ENGINES]
    assert maps[0].shape == (3000, 4000)
    assert len(np.unique(maps[0])) >= 3
    assert (maps[0] == maps[1]).mean() >= LEAST_ALIKE
    # The most that the worker has ever had, loading included.
    assert peak_rss(pid) < MOST_RSS


def fresh_worker(served: Served, model: str, seconds: float = 240) -> int:
    """The process of a model's only worker, started anew, so that its peak is not of what was asked of it before."""
    old = worker_of(served, model)["pid"]
    psutil.Process(old).kill()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        worker = worker_of(served, model)
        if worker["pid"] not in (old, 0) and worker["status"] == "READY":
            return int(worker["pid"])
        time.sleep(0.5)
    raise AssertionError(f"{model} has no new worker:\n{served.printed()}")


def worker_of(served: Served, model: str) -> dict[str, Any]:
    url = f"{served.address.management_url}/models/{model}"
    (worker,) = requests.get(url, headers=served.token("management"), timeout=60).json()[0]["workers"]
    return dict(worker)


def peak_rss(pid: int) -> int:
    """In bytes, as the kernel has it."""
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    return 1024 * int(kibibytes)


def test_archives_that_were_tampered_with_do_not_become_ready(store: Path, tmp_path: Path) -> None:
    """The ONNX file of an archive replaced after it was built: its workers refuse it, and the log says why."""
    whole = tmp_path / "whole.onnx"
    onnx.save(brightest_class(3, SIGNS_SIZE), whole)
    bad = {way: damaged(whole, tmp_path)[way] for way in ("truncated", "climbing", "misshapen")}
    tampered = tmp_path / "store"
    tampered.mkdir()
    for way, (content, _) in bad.items():
        replace_onnx(store / "signs.mar", tampered / f"{way}.mar", content)
    log = tmp_path / "served" / "torchserve.log"
    with serving(tmp_path / "served", tampered, models=tuple(bad), workers=1, wait=False) as service:
        reasons = {way: refusal(log, way) for way in bad}
        for way, (_, word) in bad.items():
            assert word in reasons[way]
        not_ready = told_by(service, "misshapen: none of its")
        assert all(f"{way}: none of its" in not_ready for way in bad)
        image = imaging.encode(np.zeros((20, 20, 3), np.uint8))
        refused = requests.post(f"{service.url}/v1/segment", files=form(image, {"model": "truncated"}), timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")


def replace_onnx(archive: Path, to: Path, content: bytes) -> None:
    """A copy of an archive under the name of its file, with another model.onnx in it."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(to, "w") as target:
        for entry in source.infolist():
            data = content if entry.filename.endswith("model.onnx") else source.read(entry)
            if entry.filename == "MAR-INF/MANIFEST.json":
                data = data.replace(b'"modelName": "signs"', f'"modelName": "{to.stem}"'.encode())
            target.writestr(entry, data)


def told_by(served: Served, words: str, seconds: float = 60) -> str:
    """What the readiness check says, once the words are in it: its state is some seconds old."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = requests.get(f"{served.url}/readyz", timeout=30)
        assert answer.status_code == 503, answer.text
        if words in answer.text:
            return answer.text
        time.sleep(0.5)
    raise AssertionError(f"the readiness check never says {words!r}, but {answer.text}")


def refusal(log: Path, model: str, seconds: float = 240) -> str:
    """The line of the log that tells why a model cannot be loaded, once it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in load_failures(log, [model]):
            return line
        time.sleep(0.5)
    raise AssertionError(f"{model}: no reason in the log")


def test_the_packed_checkpoint_is_a_library_model_too(store: Path, tmp_path: Path, pictures: list[imaging.Rgb]) -> None:
    with zipfile.ZipFile(store / "voc.mar") as archive:
        archive.extractall(tmp_path)
    model = Semantic.from_folder(tmp_path / "checkpoint", device="cpu")
    assert (model.classes, model.engines) == (pascal_voc_labels(), ENGINES)
