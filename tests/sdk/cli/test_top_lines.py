"""The picture that top shows, as lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mapcell.cli.output import width
from mapcell.cli.rates import Rates
from mapcell.cli.top_lines import View, bar, describe, lines
from mapcell_formats.messages import Event

from .figures import ROW, sample, staging

MANY = tuple(replace(ROW, name=f"model-{i}") for i in range(200))
BUSY = View(
    sample(0.0, 7, staging=(staging("big", 250),), rows=MANY),
    Rates(1.5, {"big": 50.0}),
    tuple(f"12:00:00  event {i}" for i in range(50)),
)


def text(view: View, columns: int = 100, rows: int | None = None, footer: str = "") -> list[str]:
    """The lines without their styles."""
    return [line.text for line in lines(view, columns, rows, footer)]


def test_everything_is_there() -> None:
    """Memory, leases, rates, each model, what is staged with rate and rest, and what happened."""
    shown = "\n".join(text(BUSY))
    assert "mapcelld 1.2.3, pid 1, up 60 s, in /run/mapcell" in shown
    assert "[###.........]  25 %  256.0 MiB of 1.0 GiB" in shown
    assert "leases  2   attaches 7 (1.5/s)   stagings 1   evictions 0" in shown
    assert [word for line in shown.splitlines() if line.startswith("big ") for word in line.split()] == (
        ["big", "reading", "[###.........]", "25", "%", "1000", "B", "50", "B/s", "15", "s", "1"]
    )
    assert shown.count("blake3:aaaaaaaa") == len(MANY)
    assert "event 49" in shown


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("rows", [5, 12, 24, 60])
@pytest.mark.parametrize("view", [BUSY, View(sample(0.0, rows=()), Rates()), replace(BUSY, events=())])
def test_fits_the_terminal(view: View, rows: int, columns: int) -> None:
    """Whatever there is fills exactly the terminal's lines, none wider than it, and the footer is the last."""
    shown = text(view, columns, rows, "q quits")
    assert len(shown) == rows
    assert shown[-1] == "q quits"
    assert max(map(width, shown)) <= columns


def test_low_terminal_keeps_the_latest() -> None:
    """Of many events the latest are shown, and of many models how many are not."""
    shown = text(BUSY, 100, 24)
    assert shown[-1].endswith("event 49")
    hidden = next(line for line in shown if line.startswith("... "))
    models = sum(line.startswith("model-") for line in shown)
    assert hidden == f"... {len(MANY) - models} more; `mapcell ls` lists them ..."
    assert models > 3


def test_staging_fits_80_columns() -> None:
    """On an ordinary terminal nothing of what is staged is cut."""
    view = replace(BUSY, rates=Rates(0.0, {"big": 999.9 * 2**20}))
    assert max(len(line) for line in text(view, 200) if "big" in line or "STAGING" in line) <= 80


def test_trouble_comes_first() -> None:
    """A daemon that does not answer is said so at the top, with the last figures below."""
    shown = lines(replace(BUSY, trouble="no daemon answers in /x"), 100)
    assert (shown[0].text, shown[0].style) == ("no daemon answers in /x; waiting for it", "bold red")
    assert "attaches 7" in shown[2].text


def test_nothing_is_loaded() -> None:
    """Without models the picture says how to load one."""
    assert "no models are loaded; `mapcell load FILE` loads one" in text(View(sample(0.0, rows=()), Rates()))


def test_control_characters() -> None:
    """Names and reasons reach the terminal without their control characters."""
    evil = replace(ROW, name="/evil\x1b[31m\n.ckpt")
    view = View(sample(0.0, rows=(evil,)), Rates(), ("12:00:00  \x1b]0;x\x07",))
    assert all(c.isprintable() for line in text(view) for c in line)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Event(1, "staging", "m", "", 0, 2048, "sizing"), "m: staging 2.0 KiB"),
        (Event(1, "staging", "m", "", 0, 0, "sizing"), "m: opening"),
        (Event(2, "progress", "m", "", 5, 10, "reading"), ""),
        (Event(3, "ready", "m", ROW.version, 10, 10, "sealed"), "m blake3:aaaaaaaa: ready, 10 B sealed"),
        (Event(4, "retired", "m", ROW.version, 0, 10, ""), "m blake3:aaaaaaaa: retired, handed out no more"),
        (Event(5, "failed", "m", "", 0, 10, "it shrank"), "m: failed: it shrank"),
    ],
)
def test_events_in_words(event: Event, says: str) -> None:
    """Each kind of event in a few words; progress is in the table."""
    assert describe(event) == says


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (0, 0, "[............]   0 %"),
        (0, 10, "[............]   0 %"),
        (5, 10, "[######......]  50 %"),
        (10, 10, "[############] 100 %"),
        (20, 10, "[############] 100 %"),
    ],
)
def test_bar(done: int, total: int, shown: str) -> None:
    """A bar is as wide whatever it shows."""
    assert bar(done, total) == shown
