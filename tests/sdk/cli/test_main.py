"""What holds for every command: the help, exit statuses, and how it ends when it is cut short."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from mapcell.cli import COMMANDS, GROUPS
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

from .conftest import Cli

MAIN = "import sys; from mapcell.cli import main; sys.exit(main())"
SECONDS = 30
PRINTS_NOTHING = ("run",)


def start(*arguments: str, environment: dict[str, str] | None = None, **options: object) -> subprocess.Popen[bytes]:
    """`mapcell` in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.Popen(command, env=os.environ | (environment or {}), **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder, for sockets."""
    with tempfile.TemporaryDirectory(prefix="mc", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["load", "-h"], 0),
        ([], 2),
        (["bogus"], 2),
        (["ls", "extra"], 2),
        (["load", "x", "--residence", "wax"], 2),
        (["load", "x", "--dtype", "int8"], 2),
        (["load", "x", "--dtype", "wax"], 2),
        (["inspect", "/no/such/file"], 1),
        (["ls"], 3),
        (["ps"], 3),
        (["status"], 3),
        (["show", "x"], 3),
        (["unload", "x"], 3),
        (["pin", "x"], 3),
        (["unpin", "x"], 3),
        (["tag", "x", "blake3:0", "t"], 3),
        (["retire", "x"], 3),
        (["evict", "x"], 3),
        (["tag", "x", "blake3:0"], 2),
        (["pin"], 2),
        (["load", "/no/such/file"], 3),
    ],
)
def test_exit_status(arguments: list[str], status: int, cli: Cli) -> None:
    """0 done, 1 refused, 2 wrong usage, 3 no daemon answers; a failure says nothing on stdout."""
    ran = cli(*arguments)
    assert ran.status == status
    assert bool(ran.out) == (status == 0)
    assert bool(ran.err) == (status != 0)
    if status in (1, 3):
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1


def test_no_daemon_says_what_to_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon the error names where one was sought and how to start one."""
    monkeypatch.setenv("MAPCELL_RUNTIME", "/tmp/nobody-here")
    err = cli("status").err
    assert "/tmp/nobody-here" in err
    assert "mapcelld" in err


def test_help_is_complete(cli: Cli) -> None:
    """The help names every command, the exit statuses and the shells, each line short enough for a terminal."""
    out = cli("--help").out
    for name, (_, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", out, re.MULTILINE)
    for word in ("Exit status", "_MAPCELL_COMPLETE", *GROUPS):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("serve", "top")])
def test_every_command_has_help(command: str, cli: Cli) -> None:
    """Every command in the table exists and explains itself, and each that prints something has --json."""
    ran = cli(command, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: mapcell {command} ")
    assert ("--json" in ran.out) == (command not in PRINTS_NOTHING)


def test_help_imports_little() -> None:
    """The help costs no import of what only commands need."""
    code = (
        "import sys; from mapcell.cli import main; main(['--help'])\n"
        "assert not {'rich', 'zmq', 'psutil', 'msgpack'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)


def test_package_imports_no_command_line() -> None:
    """`import mapcell` does not import what the command line is made with."""
    code = "import sys, mapcell; assert not {'rich', 'click', 'mapcell.cli'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)


def test_interrupt(folder: Path) -> None:
    """Ctrl-C while a daemon is silent ends with status 130 and without a traceback."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, silent_listener(folder):
        router.bind(f"ipc://{folder}/control.sock")
        with start("ls", environment={"MAPCELL_RUNTIME": str(folder)}) as process:
            assert router.poll(SECONDS * 1000)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def silent_listener(folder: Path) -> socket.socket:
    """A handle channel that accepts and says nothing."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{folder}/handles.sock")
    listener.listen()
    return listener


@pytest.mark.parametrize("arguments", [["--json"], ["--all"]])
def test_reader_that_leaves(arguments: list[str], tmp_path: Path) -> None:
    """A pipe that is closed while the command writes, or before its last flush, ends it quietly."""
    path = write_safetensors(tmp_path / "m.safetensors", {f"t{i}": np.zeros(1) for i in range(5000)})
    read, write = os.pipe()
    with start("inspect", str(path), *arguments, stdout=write) as process:
        os.close(write)
        os.close(read)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, b"")


def test_latin_terminal(tmp_path: Path) -> None:
    """A terminal that cannot show a letter gets an escape for it, not a traceback."""
    path = tmp_path / "größe重.safetensors"
    with start("inspect", str(path), environment={"PYTHONIOENCODING": "latin-1"}) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "größe\\u91cd.safetensors: no such file" in err.decode("latin-1")


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("mapcell s", 1, {"show", "status", "serve"}),
        ("mapcell show sm", 2, {"small"}),
        ("mapcell load x --residence m", 4, {"mapped"}),
    ],
)
def test_completion(
    words: str, position: int, expected: set[str], cli: Cli, daemon: DaemonProcess, checkpoint: Path
) -> None:
    """The shell completes commands, options' values and the names of models."""
    assert cli("load", str(checkpoint)).status == 0
    environment = {"_MAPCELL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    with start(environment=environment) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert err == b""
    assert {line.split(",")[1] for line in out.decode().splitlines()} == expected


def test_serve_is_the_daemon(folder: Path) -> None:
    """`mapcell serve` becomes the daemon: its options, its ready line, its end on SIGTERM."""
    with start("serve", "--runtime", f"{folder}/r", "--budget", "1MiB") as process:
        assert process.stderr is not None
        ready = next(line for line in iter(process.stderr.readline, b"") if b"ready" in line)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
    assert f"(pid {process.pid})".encode() in ready
    assert process.returncode == 0


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--check-config"], 0), (["--bogus"], 2)])
def test_serve_passes_arguments_on(arguments: list[str], status: int) -> None:
    """What follows `serve` is the daemon's to judge, help included."""
    with start("serve", *arguments) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == status
    assert (b"--check-config" in out) == (arguments == ["--help"])
    assert (b"No such option" in err) == (status == 2)
