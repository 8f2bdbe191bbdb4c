"""The command `run`: a program that cannot be changed, loading from the shared copy."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import click

_SITE = Path(__file__).parent.parent / "running_site"


def environment(given: Mapping[str, str], daemon: str | None) -> dict[str, str]:
    """The environment in which every Python loads from the shared copy."""
    path = [str(_SITE), *filter(None, [given.get("PYTHONPATH")])]
    return dict(given) | {"PYTHONPATH": os.pathsep.join(path)} | ({"MAPCELL_DAEMON": daemon} if daemon else {})


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--daemon",
    type=click.Choice(["auto", "require", "never"]),
    help="auto: load as without mapcell what the daemon cannot serve; require: fail instead.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(daemon: str | None, command: tuple[str, ...]) -> None:
    """Runs COMMAND, whose safetensors and torch.load(mmap=True) loads use the shared copy.

    mapcell run -- python serve.py. The Python programs that COMMAND starts do so too. This process becomes COMMAND:
    its exit status and signals are its own.
    """
    # Python ignores these, and a program that is started would go on ignoring them.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment(os.environ, daemon))
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, command[0]) from None
