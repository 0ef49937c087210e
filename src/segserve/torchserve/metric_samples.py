"""The samples of a text in Prometheus' exposition format, under the names that Prometheus gives them.

prometheus_client's own parser adds ``_total`` to counters that lack it, as TorchServe's do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One line: a name, labels and a number."""

    name: str
    labels: dict[str, str]
    value: float


class Samples:
    """Those of a text; lines of another form are passed over."""

    def __init__(self, text: str) -> None:
        self.all = [sample for line in text.splitlines() if (sample := _sample(line)) is not None]

    def values(self, name: str, **labels: str) -> list[float]:
        """Of every sample with this name and these labels, NaN left out."""
        return [
            sample.value
            for sample in self.all
            if sample.name == name
            and not math.isnan(sample.value)
            and all(sample.labels.get(key) == value for key, value in labels.items())
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their sum; 0 without one."""
        return sum(self.values(name, **labels))

    def labels(self, name: str, label: str) -> list[str]:
        """The values of a label, sorted."""
        return sorted({sample.labels.get(label, "") for sample in self.all if sample.name == name})


def _sample(line: str) -> Sample | None:
    found = _SAMPLE.fullmatch(line.strip())
    if found is None:
        return None
    try:
        value = float(found[3])
    except ValueError:
        return None
    labels = {name: re.sub(r"\\.", _unescaped, text) for name, text in _LABEL.findall(found[2] or "")}
    return Sample(found[1], labels, value)


def _unescaped(escape: re.Match[str]) -> str:
    return _ESCAPES.get(escape[0], escape[0])
