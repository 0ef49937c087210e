"""Which catalog model each served name stands for: an archive may be served under a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from segserve.catalog import CATALOG, GROUNDED_SAM, ModelEntry
from segserve.config import ArchivedModel
from segserve.errors import NotFoundError

_UNKNOWN = ArchivedModel()


class ServedModels:
    """Served names and what is known of the models behind them.

    Args:
        archives: what their archives say of the models, by served name. A model without an archive here (of a
            TorchServe that somebody else started) is known when its name is one of the catalog.
        names: gives the served names, in the order in which they count as the first.
    """

    def __init__(self, archives: Mapping[str, ArchivedModel], names: Callable[[], Sequence[str]]) -> None:
        self._archives = dict(archives)
        self._names = names

    def put(self, name: str, archive: ArchivedModel) -> None:
        """What is known of a model that is being loaded."""
        self._archives[name] = archive

    def remove(self, name: str) -> None:
        """A model is gone, or could not be loaded."""
        self._archives.pop(name, None)

    def about(self, name: str) -> ArchivedModel:
        """What is known of a served model; its fields are None where nothing is."""
        archive = self._archives.get(name, _UNKNOWN)
        if archive.kind is None and name in CATALOG:
            return replace(archive, kind=name)
        return archive

    def known_entry(self, name: str) -> ModelEntry | None:
        """The catalog entry of a served name, or None where it is not known."""
        kind = self.about(name).kind
        return None if kind is None else CATALOG.get(kind)

    def entry(self, name: str) -> ModelEntry:
        """The catalog entry of a served name.

        Raises:
            NotFoundError: nothing is served under the name, or a model that the catalog does not know.
        """
        entry = self.known_entry(name)
        if entry is not None:
            return entry
        names = self._names()
        shown = repr(name[:80])
        if name in names:
            raise NotFoundError(
                f"model: {shown} is served, but which model of the catalog ({', '.join(CATALOG)}) it is, is not known "
                "here, nor what it takes and answers. Build its archive with: segserve archive",
                code="model_not_found",
            )
        known = ", ".join(names or CATALOG)
        raise NotFoundError(f"model: {shown} is unknown. Models: {known}.", code="model_not_found")

    def named(self, kind: str) -> str:
        """The name under which a catalog model is served: its own if that is served, else the first of its kind.

        Before anything is known of what is served, the catalog's own name.

        Raises:
            NotFoundError: none of that kind is served; says which archive to add.
        """
        names = self._names()
        of_kind = [name for name in names if self.about(name).kind == kind]
        if kind in of_kind or not names:
            return kind
        if of_kind:
            return of_kind[0]
        raise NotFoundError(
            f"No {kind} model is served here; served are {', '.join(names)}. Add its archive to the model store "
            f"(segserve archive {kind}) and start the service again.",
            code="model_not_found",
        )

    def default(self) -> str:
        """The model when a request names none: the only one, else a grounded_sam, else the first."""
        names = self._names()
        if len(names) == 1:
            return names[0]
        if names and all(self.about(name).kind != GROUNDED_SAM.name for name in names):
            return names[0]
        return self.named(GROUNDED_SAM.name)
