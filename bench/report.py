"""Makes plots and tables of what the benchmarks left, and puts them into README.md and docs/benchmarks.md.

    python bench/report.py [--results bench/results] [--root .]

A document says where a table goes: between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; what stood there is
replaced. A table whose script left no results keeps what it has, so that a part can be measured anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from report_goals import goals, summary
from report_plots import draw
from report_tables import TABLES
from results import Results

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/benchmarks.md")
_MARKED = re.compile(r"(<!-- bench:(?P<name>[\w-]+) -->\n).*?(<!-- /bench:(?P=name) -->)", re.DOTALL)
_NOT_MEASURED = "Not measured."


def tables(results: Results) -> dict[str, str]:
    """Every table by its name, without those that nothing was measured for."""
    made = {name: make(results) for name, make in TABLES.items()}
    made |= {"goals": goals(results), "summary": summary(results)} if results.documents else {}
    return {name: text for name, text in made.items() if not text.startswith(_NOT_MEASURED)}


def filled(document: str, found: Mapping[str, str]) -> str:
    """The document with these tables between its marks. KeyError for a mark that no table has the name of."""

    def put(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in (*TABLES, "goals", "summary"):
            raise KeyError(f"no table is called {name!r}")
        return f"{match[1]}\n{found[name]}\n\n{match[3]}" if name in found else match[0]

    return _MARKED.sub(put, document)


def main() -> int:
    """Reads, draws, writes."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    arguments.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    arguments.add_argument("--root", type=Path, default=ROOT, help="the folder of README.md and docs")
    options = arguments.parse_args()
    results = Results.read(options.results)
    if not results.documents:
        print(f"{options.results} holds no results; run `make bench` first", file=sys.stderr)
        return 1
    found = tables(results)
    for name in DOCUMENTS:
        path = options.root / name
        path.write_text(filled(path.read_text(), found))
    made = draw(results, options.root / "docs" / "plots")
    print(f"{len(found)} tables, {len(made)} plots from {', '.join(results.documents)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
