"""The figures of a run, as the tables and plots ask for them. What was not measured is None, never an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """What each script left, by its name."""

    documents: Mapping[str, Document]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """All JSON files of a folder that have the common shape."""
        found = {}
        for path in sorted(folder.glob("*.json")):
            document = json.loads(path.read_text())
            if isinstance(document, dict) and "rows" in document and "bench" in document:
                found[document["bench"]] = document
        return cls(found)

    def rows(self, bench: str, **case: object) -> Iterator[Row]:
        """The rows of a script whose case has these values."""
        for row in self.documents.get(bench, {}).get("rows", ()):
            if all(row["case"].get(key) == value for key, value in case.items()):
                yield row

    def figure(self, bench: str, way: str, name: str, stat: str = "p50", **case: object) -> float | None:
        """One figure of one way: a number as it is, or the `stat` of many."""
        for row in self.rows(bench, **case):
            if row["way"] == way and "figures" in row:
                value = row["figures"].get(name)
                value = value.get(stat) if isinstance(value, dict) else value
                return None if value is None else float(value)
        return None

    def values(self, bench: str, key: str, **case: object) -> list[Any]:
        """The values that `key` has in the cases of a script, in the order in which they came first."""
        return list(dict.fromkeys(row["case"][key] for row in self.rows(bench, **case) if key in row["case"]))

    def ways(self, bench: str, **case: object) -> list[str]:
        """The ways of a script, in the order in which they came first; those of mapcell before the others."""
        found = dict.fromkeys(row["way"] for row in self.rows(bench, **case))
        return sorted(found, key=lambda way: not way.startswith("mapcell"))

    def failures(self, bench: str, **case: object) -> Iterator[tuple[Row, str]]:
        """The rows that have a reason instead of figures."""
        for row in self.rows(bench, **case):
            if "failed" in row:
                yield row, row["failed"]


def ratio(above: float | None, below: float | None) -> float | None:
    """`above / below`, if both were measured."""
    return above / below if above is not None and below else None
