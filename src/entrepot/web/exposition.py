"""The text format of Prometheus, version 0.0.4. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number, and what it is of."""

    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers of one name."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[Sample, ...]


def one(value: float, **labels: str) -> Sample:
    """A sample."""
    return Sample(value, labels)


def lines(families: Iterable[Family]) -> Iterator[str]:
    """Those with a sample, in order."""
    for family in families:
        if not family.samples:
            continue
        yield f"# HELP {family.name} {_plain(family.help)}"
        yield f"# TYPE {family.name} {family.kind}"
        for sample in family.samples:
            labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in sorted(sample.labels.items()))
            yield (
                f"{family.name}{{{labels}}} {_number(sample.value)}"
                if labels
                else (f"{family.name} {_number(sample.value)}")
            )


def text(families: Iterable[Family]) -> str:
    """The whole answer."""
    return "".join(f"{line}\n" for line in lines(families))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _plain(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _plain(value).replace('"', '\\"')
