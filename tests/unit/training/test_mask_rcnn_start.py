"""What training starts from: every kind of weights, and classes that are known by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from segserve.errors import InvalidRequestError
from segserve.models.mask_rcnn.checkpoint import save_checkpoint
from segserve.models.mask_rcnn.network import MaskRcnnNetwork
from segserve.training.mask_rcnn_start import Backbone, keep_statistics, network_for, new_architecture, with_classes

GOLDEN = Path(__file__).parents[2] / "data" / "detectron2"


def small(classes: tuple[str, ...], backbone: Backbone = "mobilenet_v3_large") -> MaskRcnnNetwork:
    return MaskRcnnNetwork(new_architecture(classes, backbone, channels=16, box_channels=32, min_size=64, max_size=96))


def test_classes_known_by_name_keep_their_weights_and_the_others_start_anew() -> None:
    source = small(("disc", "box", "ring"))
    changed = with_classes(source, ("ring", "star", "disc"))
    old, new = source.state_dict(), changed.state_dict()
    assert changed.architecture.classes == ("ring", "star", "disc")
    for name, rows in (("box_predictor.cls_score", 1), ("box_predictor.bbox_pred", 4), ("mask_head.predictor", 1)):
        for kind in ("weight", "bias"):
            before, after = old[f"roi_heads.{name}.{kind}"], new[f"roi_heads.{name}.{kind}"]
            torch.testing.assert_close(after[:rows], before[2 * rows : 3 * rows])
            torch.testing.assert_close(after[2 * rows : 3 * rows], before[:rows])
        star = new[f"roi_heads.{name}.weight"][rows : 2 * rows]
        assert all(not torch.equal(star, old[f"roi_heads.{name}.weight"][i * rows : (i + 1) * rows]) for i in range(3))
    torch.testing.assert_close(
        new["roi_heads.box_predictor.cls_score.weight"][-1], old["roi_heads.box_predictor.cls_score.weight"][-1]
    )
    torch.testing.assert_close(new["backbone.fpn_output2.weight"], old["backbone.fpn_output2.weight"])


def test_a_folder_of_weights_gives_its_own_shape(tmp_path: Path) -> None:
    source = small(("disc", "box"))
    save_checkpoint(tmp_path, source)
    wanted = new_architecture(("box",), "resnet50")
    network = network_for(wanted, tmp_path, None)
    assert network.architecture == source.architecture.with_classes(("box",))


def test_a_detectron2_checkpoint_can_be_fine_tuned() -> None:
    wanted = new_architecture(("triangle",), "resnet50")
    network = network_for(wanted, GOLDEN / "model_final.pth", GOLDEN / "config.yaml")
    assert network.architecture.classes == ("triangle",)
    assert network.architecture.pyramid_channels == 64
    assert network.roi_heads.box_predictor.cls_score.weight.shape[0] == 2


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3_large"])
def test_a_classification_model_gives_its_backbone(tmp_path: Path, backbone: Backbone) -> None:
    torch.manual_seed(3)
    reference = getattr(torchvision.models, backbone)(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "imagenet.pth")
    wanted = new_architecture(("disc",), backbone, channels=16, box_channels=32)
    network = network_for(wanted, tmp_path / "imagenet.pth", None).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        found = network.backbone.bottom_up(image)
        if backbone == "resnet50":
            hidden = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
            expected = [
                hidden := stage(hidden)
                for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4)
            ]
        else:
            expected = []
            hidden = image
            for index, layer in enumerate(reference.features[:16]):
                hidden = layer(hidden)
                if index in (3, 6, 12, 15):
                    expected.append(hidden)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(InvalidRequestError, match=r"resnet18\.pth: no weights of a ResNet-50 .*torchvision"):
        network_for(new_architecture(("disc",), "resnet50"), tmp_path / "resnet18.pth", None)


@pytest.mark.parametrize(("min_size", "smallest"), [(1200, 32), (800, 32), (600, 24), (400, 16), (256, 16)])
def test_anchors_follow_the_input_size(min_size: int, smallest: float) -> None:
    sizes = new_architecture(("disc",), min_size=min_size).proposals.anchor_sizes
    assert sizes == tuple((smallest * 2**level,) for level in range(5))


def test_kept_statistics_do_not_move() -> None:
    network = small(("disc",)).train()
    keep_statistics(network)
    name = "backbone.bottom_up.features.0.1.running_mean"
    before = network.state_dict()[name].clone()
    network.backbone(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(network.state_dict()[name], before)
