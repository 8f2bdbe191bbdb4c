"""`mapcell run`: the process becomes the command, and the command's Pythons find the hook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mapcell.cli.run import _SITE, environment

MAIN = "import sys; from mapcell.cli import main; sys.exit(main())"


def run(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    """`mapcell run` with these arguments, in an environment with these additions."""
    command = [sys.executable, "-c", MAIN, "run", *arguments]
    return subprocess.run(command, check=False, env=os.environ | options, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("given", "daemon", "expected"),
    [
        ({}, None, {"PYTHONPATH": str(_SITE)}),
        ({"PYTHONPATH": ""}, None, {"PYTHONPATH": str(_SITE)}),
        ({"PYTHONPATH": "/a:/b", "X": "1"}, None, {"PYTHONPATH": f"{_SITE}:/a:/b", "X": "1"}),
        ({"MAPCELL_DAEMON": "never"}, "require", {"PYTHONPATH": str(_SITE), "MAPCELL_DAEMON": "require"}),
        ({"MAPCELL_DAEMON": "never"}, None, {"PYTHONPATH": str(_SITE), "MAPCELL_DAEMON": "never"}),
    ],
)
def test_environment(given: dict[str, str], daemon: str | None, expected: dict[str, str]) -> None:
    """The hook's folder comes first, and what else there was stays."""
    assert environment(given, daemon) == expected


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--", "sh", "-c", "exit 7"), 7),
        (("sh", "-c", "exit 7"), 7),
        (("--daemon", "require", "--", "sh", "-c", 'test "$MAPCELL_DAEMON" = require'), 0),
        (("--", "sh", "-c", "kill -TERM $$"), -signal.SIGTERM),
        (("--", "sh", "-c", "kill -KILL $$"), -signal.SIGKILL),
        (("--", "no-such-command"), 1),
        (("--", "/"), 1),
        ((), 2),
        (("--daemon", "perhaps", "--", "true"), 2),
    ],
)
def test_status(arguments: tuple[str, ...], status: int) -> None:
    """The status is the command's own; what could not be started is said in one line."""
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    if status == 1:
        assert done.stderr.startswith(f"error: {arguments[-1]}: ")


def test_the_process_becomes_the_command() -> None:
    """Output, arguments and signals: nothing stands between, and nothing is ignored that was not before."""
    done = run("sh", "-c", 'echo "$@"; grep SigIgn /proc/$$/status', "sh", "--json", "-x")
    printed, ignored = done.stdout.splitlines()
    assert printed == "--json -x"
    pipe_and_size = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(ignored.split()[1], 16) & pipe_and_size == 0
