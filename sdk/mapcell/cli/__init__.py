"""The command `mapcell`. Each command lives in a module of its group, which is imported when the command is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from mapcell_formats.errors import DaemonUnavailable, MapcellError

from .output import fail

_DONE, _FAILED, _NO_DAEMON, _INTERRUPTED = 0, 1, 3, 130
# The groups' lines begin in one column.
_NAME_WIDTH = 7

# Where each command is, and its line in the help, in the order of the help.
GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Models": {
        "load": ("mapcell.cli.loading:load", "Have the daemon hold a checkpoint under a name."),
        "ls": ("mapcell.cli.models:ls", "List the models that the daemon holds."),
        "show": ("mapcell.cli.models:show", "Show one model: its versions and tensors."),
        "tag": ("mapcell.cli.versions:tag", "Give a version a name that stays, such as stable."),
        "pin": ("mapcell.cli.versions:pin", "Never evict a model to make room."),
        "unpin": ("mapcell.cli.versions:unpin", "Let a model be evicted again."),
        "unload": ("mapcell.cli.versions:unload", "Give a model's memory back once nobody uses it."),
        "retire": ("mapcell.cli.versions:retire", "Stop handing a model out; who has it keeps it."),
        "evict": ("mapcell.cli.versions:evict", "Give a model's memory back now, or say who uses it."),
    },
    "Daemon": {
        "serve": ("mapcell.cli.daemon:serve", "Run the daemon in the foreground, as mapcelld does."),
        "status": ("mapcell.cli.daemon:status", "Show its memory, its budget and what is being loaded."),
        "ps": ("mapcell.cli.daemon:ps", "List the processes that hold models."),
        "top": ("mapcell.cli.top:top", "Watch models, memory and rates as they change."),
        "run": ("mapcell.cli.run:run", "Run a program that loads from the shared copy without knowing it."),
        "doctor": ("mapcell.cli.doctor:doctor", "Check what this host can do; needs no daemon."),
    },
    "Files, without a daemon": {
        "inspect": ("mapcell.cli.files:inspect", "Show what is in a checkpoint file."),
        "verify": ("mapcell.cli.verify:verify", "Read every byte of a file, or model, and say its digest."),
        "convert": ("mapcell.cli.convert:convert", "Write a checkpoint to a file of another format."),
        "demo": ("mapcell.demo.command:demo", "Measure a real model in several workers, shared and not."),
    },
}
COMMANDS: Mapping[str, tuple[str, str]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}

EPILOG = """\b
Start with:  mapcell serve &
             mapcell load ./model.safetensors
             python -c 'import mapcell; print(mapcell.attach("model"))'

\b
Completion of commands and model names, for the shell that you use:
  bash  eval "$(_MAPCELL_COMPLETE=bash_source mapcell)"              in ~/.bashrc
  zsh   eval "$(_MAPCELL_COMPLETE=zsh_source mapcell)"               in ~/.zshrc
  fish  _MAPCELL_COMPLETE=fish_source mapcell | source               in ~/.config/fish/config.fish

\b
Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon answers.
"""


class _ReaderLeft(Exception):
    """Whoever read our output has seen enough. click would turn a BrokenPipeError into status 1."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and not for the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            raise _ReaderLeft from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands' lines from the table, group by group."""
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(_NAME_WIDTH), line) for name, (_, line) in group.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mapcell")
def root() -> None:
    """Maps model checkpoints into memory once per host and lends them to every process that asks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Its exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon answers."""
    _tolerate_any_name(sys.stdout)
    _tolerate_any_name(sys.stderr)
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, _ReaderLeft):
        _silence_stdout()
        return _DONE
    return status


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return root.main(arguments, prog_name="mapcell", standalone_mode=False) or _DONE
    except click.Abort:
        return _INTERRUPTED
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except DaemonUnavailable as exc:
        fail(exc.message)
        return _NO_DAEMON
    except MapcellError as exc:
        fail(exc.message)
        return _FAILED
    except OSError as exc:
        fail(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))
        return _FAILED


def _tolerate_any_name(stream: Any) -> None:
    # A terminal that knows only ASCII shows a name with escapes instead of ending the command.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    # What is still buffered would fail again when the interpreter ends.
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
