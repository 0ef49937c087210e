"""Reading detectron2's weights: which files are read, and what happens to those that would run code."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segserve.errors import InvalidRequestError, NotFoundError
from segserve.models.mask_rcnn.checkpoint import load_checkpoint
from segserve.models.mask_rcnn.detectron2_checkpoint import convert, network_from_detectron2, read_tensors

from .detectron2_files import SMALL_ARCHITECTURE, random_network, tensors_of, write_config, write_pkl, write_pth


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return tensors_of(random_network(SMALL_ARCHITECTURE))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


# ---- what is read


def test_the_three_forms_of_a_pth(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    for number, content in enumerate(({"model": tensors}, {"state_dict": tensors}, tensors)):
        file = tmp_path / f"{number}.pth"
        torch.save(content, file)
        assert_same(read_tensors(file), tensors)


def test_the_format_of_older_pytorch(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "old.pth"
    torch.save({"model": tensors}, file, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(file)
    assert_same(read_tensors(file), tensors)


def test_a_module_saved_while_in_data_parallel(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = write_pth(tmp_path / "a.pth", {f"module.{name}": tensor for name, tensor in tensors.items()})
    assert_same(read_tensors(file), tensors)


@pytest.mark.parametrize("new_format", [True, False])
def test_numpy_numbers_in_a_trainings_state(tmp_path: Path, tensors: dict[str, Tensor], new_format: bool) -> None:
    """What schedulers and hooks leave beside the weights is passed over, not refused."""
    beside = {
        "iteration": 1499,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.02)}]},
        "scheduler": {"base_lrs": np.array([0.1, 0.2]), "best": np.float32(3.0), "count": np.int64(5)},
        "milestones": collections.Counter({1000: 1}),
        "done": np.bool_(True),
    }
    file = tmp_path / "a.pth"
    torch.save({"model": tensors, **beside}, file, _use_new_zipfile_serialization=new_format)
    assert_same(read_tensors(file), tensors)


def test_numpys_old_names(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Before NumPy 2 the same constructors were in numpy.core."""
    pth = tmp_path / "a.pth"
    torch.save({"model": tensors, "lr": np.float64(0.1)}, pth, _use_new_zipfile_serialization=False)
    content = pth.read_bytes()
    assert content.count(b"numpy._core.multiarray") == 1
    pth.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_same(read_tensors(pth), tensors)
    pkl = write_pkl(tmp_path / "a.pkl", tensors)
    content = pkl.read_bytes()
    assert content.count(b"numpy._core.multiarray") == 1
    pkl.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_same(read_tensors(pkl), tensors)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_zoos_pickled_arrays(tmp_path: Path, tensors: dict[str, Tensor], protocol: int) -> None:
    beside = {"note": np.float32(1), "order": collections.OrderedDict(a=1), "empty": b"", "raw": b"\xff\x00"}
    assert_same(read_tensors(write_pkl(tmp_path / "a.pkl", tensors, protocol, **beside)), tensors)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        np.arange(12, dtype=np.float16)[::2],
        np.array(7),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_any_layout(tmp_path: Path, array: np.ndarray[Any, Any], protocol: int) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({"model": {"x": array}}, protocol=protocol))
    found = read_tensors(file)["x"].numpy()
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_safetensors(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    assert_same(read_tensors(tmp_path / "a.safetensors"), tensors)


@pytest.mark.parametrize("write", [write_pth, write_pkl])
def test_converting_keeps_every_tensor(
    tmp_path: Path, tensors: dict[str, Tensor], write: Callable[[Path, dict[str, Tensor]], Path]
) -> None:
    weights = write(tmp_path / "weights", tensors)
    folder = convert(weights, write_config(tmp_path), ["a", "b", "c"], tmp_path / "new" / "folder")
    network = load_checkpoint(folder)
    assert network.architecture.classes == ("a", "b", "c")
    assert_same(tensors_of(network), tensors)


# ---- what would run code


class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Evaluate:
    """Evaluates an expression when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w')",)


class LoadWithin:
    """Hands an unsafe pickle to PyTorch's own loader of storages."""

    def __init__(self, mark: Path) -> None:
        buffer = io.BytesIO()
        torch.save(Touch(mark), buffer)
        self.content = buffer.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (self.content,)


class ArrayOfObjects:
    """Hides the object in an array of NumPy."""

    def __init__(self, mark: Path) -> None:
        self.array = np.array([Touch(mark), None], dtype=object)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.array.__reduce__()


class Imported:
    """Has a module imported, which runs it."""

    def __init__(self, mark: Path) -> None:
        (mark.parent / "segserve_attack.py").write_text(f"open({str(mark)!r}, 'w')\nclass Thing: pass\n", "utf-8")


def write_torch(file: Path, content: Any) -> None:
    torch.save(content, file)


def write_old_torch(file: Path, content: Any) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def write_pickle(file: Path, content: Any) -> None:
    file.write_bytes(pickle.dumps(content, protocol=2))


def write_new_pickle(file: Path, content: Any) -> None:
    file.write_bytes(pickle.dumps(content, protocol=5))


@pytest.mark.parametrize("attack", [Touch, Evaluate, LoadWithin, ArrayOfObjects])
@pytest.mark.parametrize("write", [write_torch, write_old_torch, write_pickle, write_new_pickle])
@pytest.mark.parametrize("place", ["beside", "within", "alone"])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path,
    tensors: dict[str, Tensor],
    attack: Callable[[Path], Any],
    write: Callable[[Path, Any], None],
    place: str,
    suffix: str,
) -> None:
    mark = tmp_path / "mark"
    thing = attack(mark)
    some: dict[str, Any] = dict(list(tensors.items())[:3])
    if write in (write_pickle, write_new_pickle):
        some = {name: tensor.numpy() for name, tensor in some.items()}
    content = {
        "beside": {"model": some, "iteration": thing},
        "within": {"model": {**some, "roi_heads.x": thing}},
        "alone": thing,
    }[place]
    file = tmp_path / f"model{suffix}"
    write(file, content)
    with pytest.raises(InvalidRequestError) as refused:
        read_tensors(file)
    assert not mark.exists()
    message = refused.value.message
    assert message.startswith(f"model{suffix}: ")
    assert "othing was run" in message
    if attack is Touch:
        assert "posix.system" in message
    if attack is Evaluate:
        assert "would have called" in message
        assert "eval" in message
    # The test's attack is one: without the refusal it runs.
    if write in (write_pickle, write_new_pickle) and attack is Touch:
        pickle.loads(file.read_bytes())
        assert mark.exists()


def pickled_call(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls module.name, without that having to exist here."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("segserve_attack", "Thing"),
        ("builtins", "exec"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy", "load"),
        ("numpy.lib._npyio_impl", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("collections", "defaultdict"),
        ("segserve.models.mask_rcnn.detectron2_pickle", "load_arrays"),
    ],
)
def test_nothing_but_arrays_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    mark = tmp_path / "mark"
    Imported(mark)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "model.pkl"
    file.write_bytes(pickled_call(module, name, b"X\x01\x00\x00\x001"))
    with pytest.raises(InvalidRequestError, match=r"would have called .*nothing was run"):
        read_tensors(file)
    assert not mark.exists()


NUMBER_TYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR"


@pytest.mark.parametrize(
    "body",
    [
        # Attributes of a stand-in: a pickle could change it for the files that follow.
        b"cnumpy\ndtype\n(N}X\x08\x00\x00\x00__call__Nstb.",
        b"ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsNsb.",
        b"cnumpy\nndarray\n(tR.",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR.",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8tR.",
        # An array larger than its data, of a negative side, and of data that are none.
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x09t" + NUMBER_TYPE + b"\x89U\x04abcdtb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(J\xff\xff\xff\xfft" + NUMBER_TYPE + b"\x89U\x04abcdtb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x01t" + NUMBER_TYPE + b"\x89]tb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tRK\x01b.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR.",
        b"Pan-id\n.",
        b"\x82\x01.",
    ],
)
def test_pickles_that_misuse_what_is_admitted(tmp_path: Path, tensors: dict[str, Tensor], body: bytes) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x02" + body)
    with pytest.raises(InvalidRequestError):
        read_tensors(file)
    # The reader is as it was.
    assert_same(read_tensors(write_pkl(tmp_path / "b.pkl", tensors)), tensors)


@pytest.mark.parametrize("attack", [None, Touch, Evaluate])
def test_newer_pickles_within_pytorchs_files_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], attack: Callable[[Path], Any] | None
) -> None:
    mark = tmp_path / "mark"
    beside = attack(mark) if attack else 7
    torch.save({"model": tensors, "iteration": beside}, tmp_path / "model.pth", pickle_protocol=4)
    with pytest.raises(InvalidRequestError, match=r"pickle_protocol \(2\)\. Nothing was run") as refused:
        read_tensors(tmp_path / "model.pth")
    assert not mark.exists()
    assert "weights_only" not in refused.value.message, "no advice to read it with a pickle's powers"


def test_torchscript_is_code_too(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(InvalidRequestError, match="TorchScript"):
        read_tensors(file)


def test_whole_modules_are_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(InvalidRequestError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_tensors(file)


# ---- what is no checkpoint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "this is a web page"),
        (b"\n  <html>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        (b"hello", "the file is broken"),
        (b"PK\x03\x04 and no more", "the file is broken"),
        (b"\x80\x02\x8a\n\xfcF\xf9j\xa8P\x19.", "the file is broken"),
        (bytes(range(200, 256)) * 20, "the file is broken"),
        (pickle.dumps({"model": {}}), "there are none"),
        (pickle.dumps([1, 2]), "there are none"),
        (pickle.dumps({"model": {"a": "b", "c": 3}}), "there are none"),
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, content: bytes, message: str) -> None:
    for suffix in (".pth", ".pkl"):
        file = tmp_path / f"model{suffix}"
        file.write_bytes(content)
        with pytest.raises(InvalidRequestError, match=message) as refused:
            read_tensors(file)
        assert refused.value.message.startswith(file.name)
        assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "pkl", "safetensors"])
def test_truncated_files(tmp_path: Path, tensors: dict[str, Tensor], kind: str, share: float) -> None:
    file = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pth")
    if kind == "pkl":
        write_pkl(file, tensors)
    elif kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save({"model": tensors}, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidRequestError, match="the file is broken") as refused:
        read_tensors(file)
    assert str(tmp_path) not in refused.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no weights model\.pth"):
        read_tensors(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv1_w", "res2_0_branch2a_w", "res2_0_branch2a_bn_s"], "Caffe2's names"),
        (["stem.conv1.weight", "res2.0.conv1.weight"], "a backbone alone"),
        (["layer1.0.conv1.weight", "fc.weight"], "a backbone alone"),
        (["roi_heads.box_head.fc6.weight", "backbone.body.conv1.weight"], "torchvision's names"),
        (["rpn.head.conv.weight", "head.weight"], "expected the tensors of an R-CNN of detectron2"),
    ],
)
def test_weights_of_something_else(tmp_path: Path, names: list[str], message: str) -> None:
    file = write_pkl(tmp_path / "R-50.pkl", {name: torch.ones(2) for name in names}, matching_heuristics=True)
    with pytest.raises(InvalidRequestError, match=message):
        network_from_detectron2(file, write_config(tmp_path))


# ---- weights and configuration


def test_what_inference_does_not_need_is_passed_over(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    extra = {
        "pixel_mean": torch.ones(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(3, 4),
        "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
        "teacher.backbone.bottom_up.stem.conv1.weight": torch.ones(1),
        "backbone.fpn_lateral2.weight_momentum": torch.ones(1),
    }
    network = network_from_detectron2(write_pth(tmp_path / "a.pth", tensors | extra), write_config(tmp_path))
    assert_same(tensors_of(network), tensors)


def test_fixed_norms_of_caffe2_have_scale_and_shift_only(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    few = {name: tensor for name, tensor in tensors.items() if "running" not in name}
    assert len(few) < len(tensors)
    found = tensors_of(network_from_detectron2(write_pth(tmp_path / "a.pth", few), write_config(tmp_path)))
    for name, tensor in found.items():
        expected = torch.ones_like if name.endswith("var") else torch.zeros_like
        assert torch.equal(tensor, few.get(name, expected(tensor))), name
    # Other norms are never without them.
    with pytest.raises(InvalidRequestError, match=r"lack .*running_mean.*MODEL\.RESNETS\.NORM"):
        network_from_detectron2(tmp_path / "a.pth", write_config(tmp_path, {"MODEL.RESNETS.NORM": "BN"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 5}, r"cls_score.* so they have 3 classes.*NUM_CLASSES"),
        ({"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}, r"bbox_pred.*CLS_AGNOSTIC_BBOX_REG"),
        ({"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True}, r"mask_head\.predictor.*CLS_AGNOSTIC_MASK"),
        ({"MODEL.RESNETS.DEPTH": 101}, r"lack backbone\.bottom_up\.res4.*MODEL\.RESNETS\.DEPTH"),
        ({"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}, r"MODEL\.RESNETS\."),
        ({"MODEL.RESNETS.STEM_OUT_CHANNELS": 16}, r"stem\.conv1.*\(8, 3, 7, 7\) there, \(16, 3, 7, 7\).*STEM_OUT"),
        ({"MODEL.RESNETS.WIDTH_PER_GROUP": 4}, r"res2\.0\.conv1.*WIDTH_PER_GROUP"),
        ({"MODEL.RESNETS.NUM_GROUPS": 2, "MODEL.RESNETS.WIDTH_PER_GROUP": 4}, r"res2\.0\.conv2.*NUM_GROUPS"),
        ({"MODEL.RESNETS.RES2_OUT_CHANNELS": 32}, r"RES2_OUT_CHANNELS"),
        # No norm, and no bias in its place.
        ({"MODEL.RESNETS.NORM": ""}, r"beyond the configuration, backbone.*norm.*MODEL\.RESNETS\.NORM"),
        ({"MODEL.FPN.OUT_CHANNELS": 32}, r"MODEL\.FPN\.OUT_CHANNELS"),
        ({"MODEL.FPN.NORM": "BN"}, r"lack backbone\.fpn.*MODEL\.FPN\.NORM"),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32]]}, r"rpn_head.*MODEL\.ANCHOR_GENERATOR\.SIZES"),
        ({"MODEL.RPN.CONV_DIMS": [16, 16]}, r"lack proposal_generator\.rpn_head\.conv\.conv0.*MODEL\.RPN\.CONV_DIMS"),
        ({"MODEL.ROI_BOX_HEAD.NUM_FC": 1}, r"box_head\.fc2.*NUM_FC"),
        ({"MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14}, r"box_head\.fc1.*POOLER_RESOLUTION"),
        ({"MODEL.ROI_BOX_HEAD.FC_DIM": 64}, r"box_head\.fc1.*See MODEL\.ROI_BOX_HEAD\.NUM_FC, FC_DIM"),
        ({"MODEL.ROI_MASK_HEAD.CONV_DIM": 32}, r"mask_head.*See MODEL\.ROI_MASK_HEAD\.NUM_CONV or CONV_DIM"),
        ({"MODEL.ROI_MASK_HEAD.NUM_CONV": 2}, r"mask_fcn3.*MODEL\.ROI_MASK_HEAD\.NUM_CONV"),
    ],
)
def test_a_configuration_of_another_network_names_the_setting(
    tmp_path: Path, tensors: dict[str, Tensor], changes: dict[str, Any], message: str
) -> None:
    weights = write_pth(tmp_path / "weights.pth", tensors)
    with pytest.raises(InvalidRequestError, match=message) as refused:
        network_from_detectron2(weights, write_config(tmp_path, changes))
    assert refused.value.message.startswith("weights.pth does not fit config.yaml: ")


@pytest.mark.parametrize(
    ("lost", "setting"),
    [("roi_heads.box_predictor.", "MODEL.ROI_HEADS.NAME"), ("roi_heads.mask_head.", "MODEL.MASK_ON")],
)
def test_lacking_heads_name_the_setting(tmp_path: Path, tensors: dict[str, Tensor], lost: str, setting: str) -> None:
    """As the weights of a cascade do, or those of a detector of boxes only."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)}
    with pytest.raises(InvalidRequestError, match=rf"the weights lack {lost}.* See {setting}"):
        network_from_detectron2(write_pth(tmp_path / "weights.pth", kept), write_config(tmp_path))


@pytest.mark.parametrize(
    "name", ["roi_heads.keypoint_head.score_lowres.weight", "roi_heads.mask_coarse_head.fc1.weight", "sem_seg_head.x"]
)
def test_unknown_tensors_mean_another_network(tmp_path: Path, tensors: dict[str, Tensor], name: str) -> None:
    weights = write_pth(tmp_path / "weights.pth", tensors | {name: torch.ones(2)})
    with pytest.raises(InvalidRequestError, match=f"beyond the configuration, {name}"):
        network_from_detectron2(weights, write_config(tmp_path))


def test_widths_that_a_norm_cannot_have(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """32 groups of 8 channels."""
    weights = write_pth(tmp_path / "weights.pth", tensors)
    with pytest.raises(InvalidRequestError, match=r"config\.yaml: there is no such network: .*num_groups"):
        network_from_detectron2(weights, write_config(tmp_path, {"MODEL.RESNETS.NORM": "GN"}))
