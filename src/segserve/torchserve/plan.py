"""Which archives are served, and how: the archives' profiles, the machine, and what the operator asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from segserve.errors import InvalidRequestError
from segserve.torchserve.archive import ArchiveInfo
from segserve.torchserve.configuration import ServedModel
from segserve.torchserve.profiles import Profile, ProfileName, choose_profile, profile_of, worker_count


@dataclass(frozen=True)
class Overrides:
    """What the operator asks for instead of the archives' profiles; None keeps theirs."""

    workers: int | None = None
    batch_size: int | None = None
    batch_delay_ms: int | None = None

    def applied(self, profile: Profile) -> Profile:
        """The profile with these values.

        Raises:
            InvalidRequestError: a value below 1.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in given.items():
            if value < 1:
                raise InvalidRequestError(f"{name}: expected a whole number from 1, came {value}.")
        return replace(profile, **given)


@dataclass(frozen=True)
class ServingPlan:
    """What to start. profile: cpu or gpu; models: in the order of the archives."""

    profile: ProfileName
    models: tuple[ServedModel, ...]

    @property
    def threads(self) -> int | None:
        """Threads of numeric libraries in each worker: one on CPU, where workers share the cores; None: no limit."""
        return 1 if self.profile == "cpu" else None

    @property
    def gpus(self) -> int | None:
        """GPUs for TorchServe to use; 0 where the CPU is to be used although there may be some, None: all."""
        return 0 if self.profile == "cpu" else None


def link_name(model: str) -> str:
    """The file that a model's archive is in TorchServe's model store: a link to wherever it lies, see ArchiveShelf."""
    return f"{model}.mar"


def plan_serving(
    archives: Sequence[ArchiveInfo],
    wanted: Literal["auto", "cpu", "gpu"] = "auto",
    overrides: Overrides | None = None,
) -> ServingPlan:
    """How to serve the archives on this machine.

    Raises:
        InvalidRequestError: an archive's yaml, or an override, is not valid.
    """
    name = choose_profile(wanted)
    models = []
    for archive in archives:
        profile = (overrides or Overrides()).applied(profile_of(archive.config, name))
        workers = worker_count(profile, name, len(archives))
        models.append(
            ServedModel(
                name=archive.name,
                version=archive.version,
                archive=link_name(archive.name),
                workers=workers,
                max_workers=workers,
                batch_size=profile.batch_size,
                batch_delay_ms=profile.batch_delay_ms,
            )
        )
    return ServingPlan(name, tuple(models))
