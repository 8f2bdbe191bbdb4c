"""Tables, sizes, times and escapes, as people see them."""

from __future__ import annotations

import pytest

from mapcell.cli import output
from mapcell.cli.output import Column, fit


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (90_856_960, "86.6 MiB"),
        (48 << 30, "48.0 GiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_size(nbytes: int, text: str) -> None:
    """Sizes come in the largest unit that leaves a whole part."""
    assert output.size(nbytes) == text


@pytest.mark.parametrize(
    ("state", "detail", "follow", "text"),
    [
        ("", "", True, ""),
        ("same", "", False, ""),
        ("same", "", True, "followed"),
        ("changed", "", True, "was changed since, and is being staged"),
        ("changed", "", False, "was changed since; `mapcell load PATH --name NAME` takes the new one"),
        ("failing", "no tensors", True, "was changed, and cannot be staged (no tensors)"),
        ("of tomorrow", "", False, "of tomorrow"),
    ],
)
def test_source(state: str, detail: str, follow: bool, text: str) -> None:
    """What became of a source is said with its reason and what to do; nothing is said of one as it was."""
    assert output.source(state, detail, follow).partition(", follow =")[0] == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0.0 s"),
        (0.34, "0.3 s"),
        (12.9, "12 s"),
        (300, "5 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """Times come in at most two units."""
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("encoder.0.weight", "encoder.0.weight"),
        ("gewicht.größe 重み", "gewicht.größe 重み"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("right\u202eto left", "right\\u202eto left"),
        ("odd\udcff", "odd\\udcff"),
        ("\x9b1m \u2028 \U000e0001", "\\x9b1m \\u2028 \\U000e0001"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    """What a terminal would obey is spelled out; letters of any script stay."""
    assert output.escape(text) == shown


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("blake3:0123456789abcdef", "blake3:01234567"),
        ("file-0123456789abcdef", "file-01234567"),
        ("", ""),
    ],
)
def test_short(version: str, shown: str) -> None:
    """A version is cut to digits that still find it."""
    assert output.short(version) == shown


@pytest.mark.parametrize(
    ("cells", "available", "widths"),
    [
        (["x" * 20, "y" * 5], 100, [20, 5]),
        (["x" * 90, "y" * 5], 60, [53, 5]),
        (["x" * 90, "y" * 5], 5, [12, 5]),
    ],
)
def test_fit(cells: list[str], available: int, widths: list[int]) -> None:
    """The flexible column gives way until all fit, and never below what still says something."""
    assert fit(["A", "B"], [cells], [True, False], available) == widths


def test_table_folds_and_aligns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long cell goes on in the next line, numbers stand right, and wide letters count twice."""
    monkeypatch.setenv("COLUMNS", "24")
    output.put_table([Column("NAME", flexible=True), Column("N", right=True)], [("重" * 12, "1"), ("b", "22")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME                   N",
        "重重重重重重重重重重   1",
        "重重",
        "b                     22",
    ]


@pytest.mark.parametrize(("everything", "lines"), [(True, 1001), (False, 42)])
def test_long_table(everything: bool, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The middle of a long table is left out, with a word about how to see it, unless all of it is wanted."""
    output.put_table([Column("N")], [(str(i),) for i in range(1000)], everything=everything)
    out = capsys.readouterr().out.splitlines()
    assert (len(out), out[1], out[-1]) == (lines, "0", "999")
    assert ("... 960 more; --all shows them ..." in out) is not everything


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Titles line up, and what has no value is not mentioned."""
    output.put_fields([("a", "1"), ("longer", "x\ny"), ("none", "")])
    assert capsys.readouterr().out == "a       1\nlonger  x\\ny\n"
