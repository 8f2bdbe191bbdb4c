"""A workplace leaves neither processes nor its folder behind, however it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcell.demo.processes import Child, Workplace, messages
from mapcell.demo.signals import Signals
from mapcell_formats.errors import MapcellError

ECHO = "import sys\nprint('{\"said\": 0}', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)"
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('{\"child\": %d}' % child.pid, flush=True)\n"
    "time.sleep(600)"
)


@pytest.fixture
def place() -> Iterator[Workplace]:
    """An open workplace."""
    with Signals() as signals:
        place = Workplace(signals)
        try:
            place.open()
            yield place
        finally:
            place.close()


def first(children: list[Child]) -> dict[str, object]:
    """The first message of any."""
    return next(messages(children))[1]


def test_talks(place: Workplace) -> None:
    """A child says JSON lines and hears them."""
    child = place.start("echo", ["-c", ECHO], os.environ)
    heard = messages([child])
    assert next(heard) == (child, {"said": 0})
    child.tell([1, "two"])
    assert next(heard) == (child, [1, "two"])
    heard.close()


def test_end_asks_by_closing_stdin(place: Workplace) -> None:
    """A child whose stdin is closed ends by itself."""
    child = place.start("echo", ["-c", ECHO], os.environ)
    assert first([child]) == {"said": 0}
    place.end([child])
    assert not child.alive()


def test_failure_is_told(place: Workplace) -> None:
    """A child that dies brings an error with its last line on stderr."""
    child = place.start("a worker", ["-c", "raise SystemExit('no such file: x')"], os.environ)
    with pytest.raises(MapcellError, match="a worker ended before it was done: no such file: x"):
        first([child])


def test_close_ends_whatever_runs() -> None:
    """A child that ignores SIGTERM is killed, with what it started; the folder goes."""
    with Signals() as signals:
        place = Workplace(signals)
        place.open()
        folder = place.folder
        child = place.start("stubborn", ["-c", STUBBORN], os.environ)
        grandchild = first([child])["child"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mapcell.demo.processes._END_SECONDS", 0.1)
            place.close()
    assert not folder.exists()
    assert not child.alive()
    assert isinstance(grandchild, int)
    assert gone(grandchild)


def gone(pid: int) -> bool:
    """Whether the process ends within 5 s: it is not ours to wait for."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_children_keep_out_of_the_terminals_group(place: Workplace) -> None:
    """Ctrl-C in a terminal reaches the whole foreground group: the children are not in it."""
    child = place.start("echo", ["-c", ECHO], os.environ)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


def test_signal_while_starting(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal between the start of a process and its entry in the list waits for that entry."""

    class Signalled(Child):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("mapcell.demo.processes.Child", Signalled)
    with pytest.raises(SystemExit):
        place.start("echo", ["-c", ECHO], os.environ)
    assert len(place._children) == 1


def test_long_folder_names(place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary folder's path is too long for a socket, /tmp is used."""
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with Signals() as signals:
        other = Workplace(signals)
        try:
            other.open()
            assert other.folder.parent == Path("/tmp")
        finally:
            other.close()
    assert not list(deep.iterdir())


def test_daemon_that_does_not_start(place: Workplace) -> None:
    """A runtime folder that cannot be one brings the daemon's own words."""
    wrong = place.folder / "file"
    wrong.touch()
    with pytest.raises(MapcellError, match=r"the demo's daemon did not start: .*file"):
        place.start_daemon(wrong)
