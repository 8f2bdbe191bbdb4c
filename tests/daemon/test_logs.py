"""Log lines: one an event, whatever it quotes; and every call in the daemon's sources quotes what is not its own."""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mapcelld
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import MapcellError
from mapcelld.logs import MAX_LINE, OneLine, escaped
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

SOURCES = sorted(Path(mapcelld.__file__).parent.glob("*.py"))
LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR) (asyncio|mapcelld)(\.[a-z_]+)? \S.*")
# Fields that hold nothing but words of the daemon's own, and ids that it computed.
OWN = {"version", "residence", "key", "channel", "pids"}
HOSTILE = "x\n<0>mapcelld evicted: version=1\r\x1b[2J\x1b]0;t\x07\u202e\u2028\x00\x9b31m"


def line(
    message: str, *arguments: object, journal: bool = False, level: int = logging.INFO, error: bool = False
) -> str:
    """What the daemon's formatter makes of a record."""
    raised = (ValueError, ValueError(HOSTILE), None) if error else None
    return OneLine(journal).format(logging.LogRecord("mapcelld", level, "f", 1, message, arguments, raised))


@pytest.mark.parametrize(
    ("level", "journal", "head"),
    [
        (logging.DEBUG, True, "<7>mapcelld "),
        (logging.INFO, True, "<6>mapcelld "),
        (logging.WARNING, True, "<4>mapcelld "),
        (logging.ERROR, True, "<3>mapcelld "),
        (logging.CRITICAL, True, "<2>mapcelld "),
        (logging.INFO, False, "INFO mapcelld "),
    ],
)
def test_priorities(level: int, journal: bool, head: str) -> None:
    """journald gets a priority that it understands, a terminal the level's name."""
    assert line("ready: bytes=%d", 7, level=level, journal=journal) == f"{head}ready: bytes=7"


@given(st.text(max_size=200))
def test_any_text_is_one_line(text: str) -> None:
    """Nothing that a record quotes ends the line, or says anything to a terminal."""
    for made in (line("said: name=%s", text), line("said: name=%r", text), line(text.replace("%", ""), error=True)):
        assert made.isprintable()
        assert len(made) <= MAX_LINE


def test_hostile_text() -> None:
    """Line ends, ANSI sequences, the bell, C1 controls and text direction are shown, not obeyed."""
    assert escaped(HOSTILE) == (
        "x\\n<0>mapcelld evicted: version=1\\r\\x1b[2J\\x1b]0;t\\x07\\u202e\\u2028\\x00\\x9b31m"
    )
    assert escaped("ein größeres 模型") == "ein größeres 模型"
    assert escaped("\udc80") == "\\udc80"


def test_exceptions_are_one_line() -> None:
    """A bug is one line too: what was raised, and where."""
    try:
        raise KeyError(HOSTILE)
    except KeyError:
        record = logging.LogRecord("mapcelld", logging.ERROR, "f", 1, "a request failed", (), sys.exc_info())
    made = OneLine(True).format(record)
    assert made.startswith("<3>mapcelld a request failed: exception=")
    assert "KeyError" in made
    assert re.search(r"at='test_logs\.py:\d+'$", made)
    assert made.isprintable()


def test_long_lines_are_cut() -> None:
    """A megabyte of name is a few kilobytes of log."""
    assert len(line("said: name=%r", "n" * 1_000_000)) == MAX_LINE


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger's method in the daemon's sources."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "log":
                    yield f"{path.name}:{node.lineno}", node


def test_every_call_is_key_and_value() -> None:
    """The event comes first, then key=value; text that is not the daemon's own is quoted, and nothing is pasted in."""
    seen = 0
    for place, call in calls():
        assert isinstance(call.args[0], ast.Constant), f"{place}: the message has to be a constant"
        message = str(call.args[0].value)
        event, _, fields = message.partition(": ")
        assert "%" not in event or event == "%s", f"{place}: {message}"
        for field in re.findall(r"\S*%\S*", fields):
            found = re.fullmatch(r"([a-z_]+)=%([a-z]|\.\d+f)", field)
            assert found, f"{place}: {field}"
            assert found[2] in ("d", "r", ".1f") or found[1] in OWN, f"{place}: {field} has to be quoted (%r)"
        seen += 1
    assert seen > 20


def test_no_handles_no_tickets() -> None:
    """No log call is given a descriptor, a ticket or a key."""
    for place, call in calls():
        names = {n.attr if isinstance(n, ast.Attribute) else n.id for a in call.args[1:] for n in ast.walk(a)
                 if isinstance(n, (ast.Attribute, ast.Name))}  # fmt: skip
        assert not names & {"fd", "fds", "fileno", "ticket", "_fd", "sock", "key_bytes", "environment"}, place


def test_names_and_paths_from_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a real daemon: paths, names and tensors that try to write the log write no line of it."""
    folder = tmp_path / "a\n<0>mapcelld pwned\x1b[31m"
    folder.mkdir()
    good = write_safetensors(folder / "good\nERROR.safetensors", {})
    bad = folder / "bad\r\nINFO mapcelld serving: pid=1.safetensors"
    bad.write_bytes(b"\x10\0\0\0\0\0\0\0" + b'{"\\n\\u001b[1m":3}')
    with DaemonProcess("--log-level", "debug") as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        for path, name in ((good, "m"), (bad, ""), (bad, "ok"), (good, "n\x1b[31m"), (good, "n\u2028")):
            with contextlib.suppress(MapcellError):
                attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name=name).close()
        CONNECTIONS.close()
        log = daemon.log()
    lines = [one for one in log.split("\n") if one and not one.startswith("mapcelld ready: ")]
    assert sum("staging failed" in one for one in lines) == 2
    for one in lines:
        assert LINE.fullmatch(one), one
        assert one.isprintable()


def test_a_daemon_that_cannot_start_says_so_in_one_line(tmp_path: Path) -> None:
    """What stops the start is one line without control characters, and exit status 1."""
    config = tmp_path / "c.toml"
    config.write_text('"bud\\u001bget\\n" = 1\n')
    done = subprocess.run(
        [sys.executable, "-m", "mapcelld.main", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.rstrip("\n").isprintable()
