"""Profiles: what the archives say, what the machine has, and what the operator overrides."""

from pathlib import Path

import pytest
import yaml

from segserve.catalog import CATALOG
from segserve.errors import InvalidRequestError
from segserve.torchserve import profiles
from segserve.torchserve.archive import ArchiveInfo
from segserve.torchserve.handler_options import read_options
from segserve.torchserve.plan import Overrides, plan_serving
from segserve.torchserve.profiles import Profile, cpu_count, gpu_count, profile_of

HANDLERS = Path(__file__).parents[3] / "handlers"


def archive(name="grounded_sam", **config):
    return ArchiveInfo(Path("/store") / f"{name}.mar", name, "1.0", config)


@pytest.fixture
def machine(monkeypatch):
    """Give the machine cores and GPUs."""

    def equip(cores, gpus):
        monkeypatch.setattr(profiles, "cpu_count", lambda: cores)
        monkeypatch.setattr(profiles, "gpu_count", lambda: gpus)

    return equip


@pytest.mark.parametrize(
    ("cores", "gpus", "wanted", "archives", "expected"),
    [
        (8, 0, "auto", 1, ("cpu", 8, 1, 1, 1, 0)),
        (8, 0, "auto", 4, ("cpu", 2, 1, 1, 1, 0)),
        (1, 0, "auto", 4, ("cpu", 1, 1, 1, 1, 0)),
        (8, 2, "auto", 1, ("gpu", 2, 8, 15, None, None)),
        (8, 2, "auto", 3, ("gpu", 2, 8, 15, None, None)),
        (8, 2, "cpu", 1, ("cpu", 8, 1, 1, 1, 0)),
        (8, 0, "gpu", 1, ("gpu", 1, 8, 15, None, None)),
    ],
)
def test_defaults_follow_the_machine(machine, cores, gpus, wanted, archives, expected):
    machine(cores, gpus)
    plan = plan_serving([archive(f"m{i}") for i in range(archives)], wanted)
    assert len(plan.models) == archives
    for model in plan.models:
        found = (plan.profile, model.workers, model.batch_size, model.batch_delay_ms, plan.threads, plan.gpus)
        assert found == expected
        assert model.max_workers == model.workers
        assert model.archive == f"{model.name}.mar"


def test_the_archive_decides_and_the_operator_overrides(machine):
    machine(8, 0)
    config = {"profiles": {"cpu": {"workers": 3, "batch_size": 2}}}
    (model,) = plan_serving([archive(**config)]).models
    assert (model.workers, model.batch_size, model.batch_delay_ms) == (3, 2, 1)
    (model,) = plan_serving([archive(**config)], overrides=Overrides(workers=5, batch_delay_ms=20)).models
    assert (model.workers, model.batch_size, model.batch_delay_ms) == (5, 2, 20)


@pytest.mark.parametrize("override", [{"workers": 0}, {"batch_size": 0}, {"batch_delay_ms": -1}])
def test_senseless_overrides_are_refused(override):
    with pytest.raises(InvalidRequestError, match=next(iter(override))):
        plan_serving([archive()], "cpu", Overrides(**override))


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"wokers": 1}, "wokers"),
        ({"workers": "many"}, "workers"),
        ({"workers": -1}, "workers"),
        ({"batch_size": "auto"}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_delay_ms": True}, "batch_delay_ms"),
    ],
)
def test_wrong_profiles_are_refused_by_name(section, named):
    with pytest.raises(InvalidRequestError, match=rf"profiles\.gpu\.{named}"):
        profile_of({"profiles": {"gpu": section}}, "gpu")


def test_auto_and_missing_sections_are_the_defaults():
    assert profile_of({}, "cpu") == profile_of({"profiles": {"cpu": {"workers": "auto"}}}, "cpu") == Profile()


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 6), ("150000 100000", 2), ("10000 100000", 1), ("x", 6)]
)
def test_cores_respect_the_containers_quota(monkeypatch, tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(profiles, "_QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr(profiles.os, "sched_getaffinity", lambda pid: set(range(6)))
    assert cpu_count() == expected


@pytest.mark.parametrize(("visible", "expected"), [("", 0), ("-1", 0), ("0,2", 2), ("GPU-1a2b", 1)])
def test_gpus_respect_what_is_made_visible(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == expected


def test_gpus_are_counted_by_the_drivers_tool(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_count() == 0
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    tool.chmod(0o755)
    assert gpu_count() == 3


@pytest.mark.parametrize("model", sorted(CATALOG))
def test_the_shipped_yaml_of_each_model_is_valid(model):
    config = yaml.safe_load((HANDLERS / f"{model}.yaml").read_text("utf-8"))
    for name in ("cpu", "gpu"):
        profile_of(config, name)
    options = read_options(config, None, CATALOG[model])
    # sam2 has one worker with all cores on a CPU, so that a picture's further prompts find its embedding.
    alone = profile_of(config, "cpu").workers == 1
    assert alone == (model == "sam2")
    assert options.threads == (0 if alone else 1)
    # Keys of TorchServe's own would win over what segserve serve decides.
    assert not {"batchSize", "maxBatchDelay", "minWorkers", "maxWorkers"} & config.keys()
