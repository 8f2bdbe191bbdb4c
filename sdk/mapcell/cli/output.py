"""What the commands print: tables that fit the terminal, JSON, sizes and times that people read, and errors.

Whatever comes from a client or a file (names, paths, messages) goes through `escape`: a terminal obeys control
characters, and a tensor's name may hold them. The tables are laid out here: rich needs 5 s for one of 10,000
rows.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

import click

PIPED_WIDTH = 100
_GAP = "  "
# Narrower than this, a folded column says nothing any more.
_MIN_FLEXIBLE = 12
# Of a table that long the middle is left out, unless all of it is asked for.
_LONG = 50
_SHOWN_AT_EACH_END = 20
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, whether it holds numbers, and whether it is folded when the table is too wide."""

    title: str
    right: bool = False
    flexible: bool = False


def escape(text: str) -> str:
    """`text` on one line, with everything that is not printable spelled as Python would."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def size(nbytes: int) -> str:
    """`nbytes` as people say it: "512 B", "86.7 MiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    power = min((nbytes.bit_length() - 1) // 10, len(_UNITS))
    return f"{nbytes / 1024**power:.1f} {_UNITS[power - 1]}"


def duration(seconds: float) -> str:
    """`seconds` as people say it: "0.3 s", "12 s", "5 min", "3 h 20 min", "2 d 4 h"."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{days} d {hours % 24} h"


def count(number: int, noun: str) -> str:
    """ "1 tensor", "10,000 tensors"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(version: str) -> str:
    """A version's id as far as people look at it, still good for `name@version`."""
    for prefix in ("blake3:", "file-"):
        if version.startswith(prefix):
            return version[: len(prefix) + 8]
    return version


def verified(whether: bool) -> str:
    """What is said of bytes that were hashed, or were not."""
    return "verified" if whether else "not yet"


_SOURCES = {
    "changed": "was changed since; `mapcell load PATH --name NAME` takes the new one, follow = true does it by itself",
    "writing": "is being written",
    "missing": "is missing",
    "failing": "was changed, and cannot be staged",
    "unwatched": "is not watched: a change shows late or not at all",
}


def source(state: str, detail: str, follow: bool = False) -> str:
    """What became of a version's source (ModelRow.source_state); "" when it is as it was and nobody follows it."""
    if state in ("", "same"):
        return "followed" if state and follow else ""
    told = "was changed since, and is being staged" if follow and state == "changed" else _SOURCES.get(state, state)
    return f"{told} ({detail})" if detail else told


def shape(dims: Iterable[int]) -> str:
    """ "[384, 384]", as Python writes it."""
    return f"[{', '.join(map(str, dims))}]"


def say(message: str) -> None:
    """A message to the person, on stderr."""
    click.echo(escape(message), err=True)


def fail(message: str) -> None:
    """The one line that says what went wrong and what to do."""
    say(f"error: {message}")


def emit(document: Any) -> None:
    """The one JSON document on stdout."""
    click.echo(json.dumps(document))


def put(line: str) -> None:
    """A line on stdout."""
    click.echo(escape(line))


def put_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Lines of "title  value"."""
    rows = [(title, value) for title, value in fields if value]
    left = max((len(title) for title, _ in rows), default=0)
    room = max(_MIN_FLEXIBLE, available() - left - len(_GAP))
    for title, value in rows:
        first, *more = _wrapped(escape(value), room)
        click.echo(f"{click.style(title.ljust(left), bold=True)}{_GAP}{first}")
        for line in more:
            click.echo(f"{' ' * left}{_GAP}{line}")


def put_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, everything: bool = True) -> None:
    """A table on stdout. Its middle is left out when it is long, unless `everything` is wanted."""
    head, tail, hidden = rows, rows[:0], 0
    if not everything and len(rows) > _LONG:
        head, tail = rows[:_SHOWN_AT_EACH_END], rows[-_SHOWN_AT_EACH_END:]
        hidden = len(rows) - len(head) - len(tail)
    cells = [[escape(cell) for cell in row] for row in (*head, *tail)]
    widths = fit([c.title for c in columns], cells, [c.flexible for c in columns], available())
    click.echo(click.style(_line(columns, [c.title for c in columns], widths), bold=True))
    for number, row in enumerate(cells):
        if hidden and number == len(head):
            click.echo(f"... {hidden:,} more; --all shows them ...")
        for line in _folded(columns, row, widths):
            click.echo(line)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], available: int) -> list[str]:
    """The table's head and one line for each row; flexible cells are cut where it is too wide."""
    cells = [[escape(cell) for cell in row] for row in rows]
    titles = [c.title for c in columns]
    widths = fit(titles, cells, [c.flexible for c in columns], available)
    return [_line(columns, [cut(c, w) for c, w in zip(row, widths, strict=True)], widths) for row in (titles, *cells)]


def cut(text: str, limit: int) -> str:
    """`text`, or as much of its beginning as `limit` columns of a terminal show."""
    return _pieces(text, limit)[0]


def fit(titles: Sequence[str], rows: Iterable[Sequence[str]], flexible: Sequence[bool], available: int) -> list[int]:
    """The columns' widths: what their cells need, the flexible ones cut, widest first, until all fit `available`."""
    widths = [len(t) for t in titles]
    for row in rows:
        widths = [max(w, width(cell)) for w, cell in zip(widths, row, strict=True)]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - available
    while excess > 0:
        candidates = [i for i, f in enumerate(flexible) if f and widths[i] > max(_MIN_FLEXIBLE, len(titles[i]))]
        if not candidates:
            break
        widest = max(candidates, key=widths.__getitem__)
        widths[widest] -= 1
        excess -= 1
    return widths


def _wrapped(text: str, limit: int) -> list[str]:
    """`text` in lines of at most `limit` columns, broken at blanks where there are any."""
    lines = [""]
    for word in text.split(" "):
        if not lines[-1] or width(lines[-1]) + 1 + width(word) <= limit:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
        else:
            lines.append(word)
    return [piece for line in lines for piece in _pieces(line, limit)]


def width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def available() -> int:
    """How many columns a line on stdout may have."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    return PIPED_WIDTH


def _folded(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    parts = [_pieces(cell, w) for cell, w in zip(row, widths, strict=True)]
    for number in range(max(map(len, parts))):
        yield _line(columns, [p[number] if number < len(p) else "" for p in parts], widths)


def _pieces(text: str, limit: int) -> list[str]:
    """`text` cut so that no piece is wider than `limit`."""
    if width(text) <= limit:
        return [text]
    pieces, piece, used = [], "", 0
    for char in text:
        if used + width(char) > limit and piece:
            pieces.append(piece)
            piece, used = "", 0
        piece, used = piece + char, used + width(char)
    return [*pieces, piece]


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for column, cell, room in zip(columns, cells, widths, strict=True):
        blanks = " " * (room - width(cell))
        padded.append(blanks + cell if column.right else cell + blanks)
    return _GAP.join(padded).rstrip()
